"""What a device says of a captured frame that it brings up, and what the fleet has of it.

It offers a frame, `POST /device/v1/samples` with a signed `SampleOffer`, and sends it in pieces,
`PUT /device/v1/samples/{model}/{digest}?offset=`. Both answer `SampleHeld`: the next piece begins
at its `size`, until the frame is `stored`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from cloud_sync.messages import MESSAGE_VERSION, Bytes, DeviceId, Digest, Name

MAX_SAMPLE_BYTES = 64 << 20
MAX_LINE_BYTES = 256 << 10
MAX_PIECE_BYTES = 1 << 20


class MediaType(StrEnum):
    """What a captured frame is: a picture, or an array of what is none."""

    PNG = "image/png"
    NPY = "application/x-npy"

    @property
    def suffix(self) -> str:
        """Of its file: `.png` or `.npy`."""
        return f".{self.name.lower()}"


class CaptureReason(StrEnum):
    """Why a device kept a frame."""

    FAILED = "failed"
    UNSURE = "unsure"
    ONE_IN = "one-in"


class SampleOffer(Struct, frozen=True, kw_only=True):
    """A captured frame, signed by its device: its digest is that of the file's bytes.

    `line` is the frame's line of results; `t` in it is when the device's clock said that it was.
    """

    version: int = MESSAGE_VERSION
    device: DeviceId
    model: Name
    digest: Digest
    size: Bytes
    media_type: MediaType
    reason: CaptureReason
    line: dict[str, Any]


class SampleHeld(Struct, frozen=True, kw_only=True):
    """How much of a frame the fleet has on its disk; one that is `stored` is whole and listed."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]
    stored: bool = False


def reason_of(line: Mapping[str, Any]) -> CaptureReason:
    """Why a frame with this line of results was kept.

    >>> str(reason_of({"confident": False})), str(reason_of({"confident": True}))
    ('unsure', 'one-in')
    """
    if "error" in line:
        return CaptureReason.FAILED
    return CaptureReason.UNSURE if line.get("confident") is False else CaptureReason.ONE_IN


def confidence_of(line: Mapping[str, Any]) -> float | None:
    """The confidence that a line of results states; None where it states none.

    >>> confidence_of({"confidence": 0.5}), confidence_of({"empty": True})
    (0.5, None)
    """
    found = line.get("confidence")
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if is_number and found is not None else None
