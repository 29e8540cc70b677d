"""How warm the device is and how far its clock is held back: the kernel's own figures.

>>> from pathlib import Path
>>> hottest(Path("/nowhere")) is None, clock_share(Path("/nowhere"))
(True, 1.0)
"""

from pathlib import Path

import msgspec

from hardware.probes import files

_PLAUSIBLE_C = (-60.0, 200.0)


class Temperature(msgspec.Struct, frozen=True, kw_only=True):
    """One thermal zone: its type as the kernel names it (`cpu-thermal`), in degrees Celsius."""

    zone: str
    celsius: float


def temperatures(root: Path = Path("/")) -> tuple[Temperature, ...]:
    """Every thermal zone that can be read now; one that is off or answers nonsense is left out."""
    found = []
    for folder in files.each(root / "sys/class/thermal", "thermal_zone[0-9]*"):
        milli = files.number(folder / "temp")
        if milli is None or not _PLAUSIBLE_C[0] <= milli / 1000 <= _PLAUSIBLE_C[1]:
            continue
        zone = files.text(folder / "type") or folder.name
        found.append(Temperature(zone=zone, celsius=milli / 1000))
    return tuple(found)


def hottest(root: Path = Path("/")) -> Temperature | None:
    """The warmest zone; None where the kernel tells of none."""
    return max(temperatures(root), key=lambda found: found.celsius, default=None)


def zones(root: Path = Path("/")) -> tuple[str, ...]:
    """The types of all thermal zones, also of those that cannot be read now."""
    folders = files.each(root / "sys/class/thermal", "thermal_zone[0-9]*")
    return tuple(files.text(folder / "type") or folder.name for folder in folders)


def critical_c(root: Path = Path("/")) -> float | None:
    """The lowest temperature at which the kernel shuts the device down; None where none is set."""
    points = []
    for kind in files.each(root / "sys/class/thermal", "thermal_zone[0-9]*/trip_point_*_type"):
        if files.text(kind) == "critical":
            milli = files.number(kind.with_name(kind.name.replace("_type", "_temp")))
            if milli is not None and milli > 0:
                points.append(milli / 1000)
    return min(points, default=None)


def clock_share(root: Path = Path("/")) -> float:
    """How much of its highest clock the device may use now; 1 where nothing holds it back.

    `scaling_max_freq` is what the kernel allows; throttling lowers it, idling does not.
    """
    shares = []
    for limit in files.each(root / "sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_max_freq"):
        allowed = files.number(limit)
        highest = files.number(limit.with_name("cpuinfo_max_freq"))
        if allowed and highest:
            shares.append(allowed / highest)
    return min(1.0, min(shares, default=1.0))
