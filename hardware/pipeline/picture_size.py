"""How large a picture is, read from its header before anything of it is decoded.

A few hundred kilobytes of PNG can hold gigabytes of one colour, and OpenCV has no reader that
stops at the header. Source: the formats' specifications (PNG 3rd edition, ITU-T T.81, the WebP
container, and Microsoft's BITMAPINFOHEADER).
"""

import re
from typing import Literal

_BMP_CORE = 12  # the oldest header, whose sizes have 16 bits
# Start of frame: every SOF marker; C4, C8 and CC share the range and are others.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# 01 and D0 to D7 have no length.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_MAX_SEGMENTS = 1000  # before the frame; a camera writes a dozen


def picture_size(data: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Width and height of a JPEG, PNG, WebP or BMP as its header says; None for anything else.

    Every part is read where the decoders read it, so that a picture cannot show one size here
    and another one there.
    """
    view = memoryview(data)
    start = bytes(view[:32])
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _pair(view, 16, 4, "big") if start[12:16] == b"IHDR" else None
    if start.startswith(b"\xff\xd8"):
        return _jpeg(view)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp(view, start[12:16])
    if start.startswith(b"BM"):
        core = int.from_bytes(start[14:18], "little") == _BMP_CORE
        return _pair(view, 18, 2 if core else 4, "little", signed=not core)
    return None


def _pair(
    view: memoryview,
    at: int,
    size: int,
    order: Literal["big", "little"],
    *,
    signed: bool = False,
) -> tuple[int, int] | None:
    """Two whole numbers side by side; a negative height (a BMP from the top) counts as such."""
    if len(view) < at + 2 * size:
        return None
    first, second = (
        abs(int.from_bytes(view[i : i + size], order, signed=signed)) for i in (at, at + size)
    )
    return first, second


def _jpeg(view: memoryview) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        # What is between segments is skipped, as libjpeg does.
        found = _JPEG_MARKER.search(view, at)
        if found is None:
            return None
        marker, at = found[1][0], found.end()
        if marker in _JPEG_FRAMES:
            size = _pair(view, at + 3, 2, "big")
            return (size[1], size[0]) if size else None
        at += max(2, int.from_bytes(view[at : at + 2], "big"))
    return None


def _webp(view: memoryview, chunk: bytes) -> tuple[int, int] | None:
    if chunk == b"VP8X" and len(view) >= 30:  # noqa: PLR2004 -- the header's end
        width, height = (int.from_bytes(view[i : i + 3], "little") for i in (24, 27))
        return width + 1, height + 1
    if chunk == b"VP8L" and len(view) >= 25:  # noqa: PLR2004
        bits = int.from_bytes(view[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        found = _pair(view, 26, 2, "little")
        return (found[0] & 0x3FFF, found[1] & 0x3FFF) if found else None
    return None
