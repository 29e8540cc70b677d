"""Bytes of a picture file to an image."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.pipeline.picture_size import picture_size

MAX_IMAGE_BYTES = 64 << 20
MAX_IMAGE_PIXELS = 50_000_000


def decode_image(data: bytes | bytearray | memoryview) -> NDArray[np.uint8]:
    """Decode JPEG, PNG, WebP or BMP to uint8 [height, width, 3] BGR, turned as EXIF says.

    Raises:
        ModelError: it is no such picture, or is too large to be one of a camera.
    """
    what = "The picture cannot be decoded."
    if len(data) > MAX_IMAGE_BYTES:
        raise ModelError(what, why=f"It has {len(data)} bytes, allowed are {MAX_IMAGE_BYTES}.")
    size = picture_size(data)
    if size is None:
        raise ModelError(what, why="It is no JPEG, PNG, WebP or BMP, or is damaged.")
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise ModelError(
            what, why=f"It has {size[0]} x {size[1]} pixels, allowed are {MAX_IMAGE_PIXELS:,}."
        )
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ModelError(what, why=f"{error.err}.") from error
    if image is None:
        raise ModelError(what, why="It is damaged.")
    found: NDArray[np.uint8] = image
    return found
