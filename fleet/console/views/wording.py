"""How states and figures are worded and coloured, the same on every page. Pure."""

import datetime as dt

_TONES = {
    "committed": "good",
    "completed": "good",
    "pass": "good",
    "running": "busy",
    "updating": "busy",
    "undecided": "busy",
    "fail": "bad",
    "failed": "bad",
    "halted": "bad",
    "rolled_back": "bad",
    "aborted": "warn",
    "refused": "warn",
    "paused": "warn",
    "restored": "warn",
    "unfit": "warn",
}


def tone(state: str) -> str:
    """How a state is coloured: `good`, `bad`, `warn`, `busy` or `idle`."""
    return _TONES.get(state, "busy" if state and state not in {"waiting", "idle"} else "idle")


def number(value: float, unit: str = "") -> str:
    """A figure with the digits that say something, and its unit."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004
    return f"{text} {unit}".rstrip()


def size(count: int) -> str:
    """Bytes for people, in powers of 1000: `412 kB`."""
    value, units = float(count), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 1000 and (larger := next(units, None)):  # noqa: PLR2004
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def plural(count: int, word: str) -> str:
    """`1 device`, `3 devices`."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def ago(seconds: float) -> str:
    """`5 min`: coarse, so that a page does not change every second."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "a moment"


def clock(unix: float) -> str:
    """A moment: `21 Sep 14:13 UTC`."""
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%d %b %H:%M UTC")


def day(unix: float) -> str:
    """A day that may be far away: `21 Sep 2027`."""
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%d %b %Y")
