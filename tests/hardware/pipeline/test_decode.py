"""Bytes of pictures become images, and everything else a sentence."""

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelError
from hardware.pipeline import decode, decode_image

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
