"""Numbers and texts as people read them."""

import math
from collections.abc import Iterable

_DIGITS = 3


def printable(text: str) -> str:
    """A text without characters that do not print or that change how others are read."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    """A printable text without line breaks."""
    return " ".join(printable(text).split())


def shortened(text: str, length: int) -> str:
    """A text of at most `length` characters; the middle of a longer one is left out.

    >>> shortened("/model.22/cv3/conv/Conv", 12)
    '/model…/Conv'
    """
    if len(text) <= length:
        return text
    head = (length - 1 + 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def number(value: float) -> str:
    """A number with three digits that tell, never in powers of ten.

    >>> [number(n) for n in (1234.5, 12.345, 0.98765, 0.0)]
    ['1,234', '12.3', '0.988', '0']
    """
    if not math.isfinite(value):
        return "unbounded"
    if not value:
        return "0"
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def count(value: int) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes as people say them.

    >>> size(13_183_921), size(913), size(0)
    ('13.2 MB', '913 bytes', 'not measured')
    """
    if not value:
        return "not measured"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{value} bytes"


def share(value: float) -> str:
    """A share in per cent.

    >>> share(0.75304)
    '75.30 %'
    """
    return f"{100 * value:.2f} %"


def points(value: float) -> str:
    """A difference of shares in points.

    >>> points(0.0021), points(-0.0005), points(-1e-9)
    ('0.21', '-0.05', '0.00')
    """
    return f"{round(100 * value, 2) + 0.0:.2f}"


def quoted(text: str) -> str:
    """Somebody's own words."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def in_points(value: float) -> str:
    """A share as points, in words.

    >>> in_points(0.01), in_points(0.005)
    ('1 point', '0.5 points')
    """
    said = f"{100 * value:g}"
    return f"{said} point{'' if said == '1' else 's'}"


def listed(items: Iterable[str]) -> str:
    """Items as a sentence lists them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    words = list(items)
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def sentence(text: str) -> str:
    """A text with a capital at its start and one full stop at its end.

    >>> sentence("it is slow"), sentence("mine:Metric fell")
    ('It is slow.', 'mine:Metric fell.')
    """
    text = text.strip()
    if not text:
        return ""
    is_name = not text.split()[0].rstrip(".,:;").isalpha()
    return (text[0] if is_name else text[0].upper()) + text[1:].rstrip(".") + "."
