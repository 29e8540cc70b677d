"""Bytes of pictures become images, and everything else a sentence."""

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelError
from hardware.pipeline import decode, decode_image
from hardware.pipeline.picture_size import picture_size

PICTURE = np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_lossless_picture_is_decoded_to_its_pixels(suffix: str) -> None:
    data = cv2.imencode(suffix, PICTURE)[1].tobytes()
    np.testing.assert_array_equal(decode_image(data), PICTURE, strict=True)


def test_a_gray_picture_has_three_channels_too() -> None:
    assert decode_image(cv2.imencode(".jpg", PICTURE[..., 0])[1].tobytes()).shape == (9, 13, 3)


@given(st.binary(max_size=200))
def test_what_is_no_picture_is_a_sentence(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        assert decode_image(data).dtype == np.uint8


def test_nothing_and_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_IMAGE_BYTES", 100)
    for data in (b"", bytes(101)):
        with pytest.raises(ModelError, match="cannot be decoded"):
            decode_image(data)


def png_bomb(side: int) -> bytes:
    """A black square as PNG: a thousandth of its decoded size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    pixels = zlib.compressobj(9)
    rows = b"".join(pixels.compress(bytes(1 + side // 8)) for _ in range(side)) + pixels.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_small_file_that_would_be_gigabytes_is_refused_by_its_header() -> None:
    data = png_bomb(20_000)
    assert len(data) < 1 << 20
    with pytest.raises(ModelError, match="20000 x 20000 pixels, allowed are 50,000,000"):
        decode_image(data)
    assert decode_image(png_bomb(80)).shape == (80, 80, 3)


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        (".png", []),
        (".bmp", []),
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),  # lossless
    ],
)
def test_the_header_says_the_size_that_the_decoder_finds(suffix: str, how: list[int]) -> None:
    data = cv2.imencode(suffix, PICTURE, how)[1].tobytes()
    assert picture_size(data) == (13, 9)
    assert decode_image(data).shape == (9, 13, 3)


def test_what_stands_before_a_jpegs_frame_is_stepped_over() -> None:
    data = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    thumbnail = cv2.imencode(".jpg", PICTURE[:2, :2])[1].tobytes()
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert picture_size(data[:2] + exif + b"\x00\x07" + data[2:]) == (13, 9)


def test_a_jpeg_of_headers_only_does_not_hold_up_its_reader() -> None:
    for many in (b"\xff\xe1\x00\x02", b"\xff", b"\xff\xd0", b"\x00"):
        assert picture_size(b"\xff\xd8" + many * (32 << 20 >> 2)) is None


def test_a_format_that_is_not_named_is_refused() -> None:
    with pytest.raises(ModelError, match="no JPEG, PNG, WebP or BMP"):
        decode_image(cv2.imencode(".tiff", PICTURE)[1].tobytes())


@given(st.sampled_from([".png", ".bmp", ".jpg", ".webp"]), st.integers(0, 200))
def test_a_picture_that_ends_early_is_a_sentence(suffix: str, length: int) -> None:
    with contextlib.suppress(ModelError):
        decode_image(cv2.imencode(suffix, PICTURE)[1].tobytes()[:length])
