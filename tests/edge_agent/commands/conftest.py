"""A release folder, a video, and an enrolled device."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cloud_sync.releases import make_release

FRAMES = 30


@pytest.fixture
def release(tmp_path: Path) -> Path:
    layout, _ = make_release(tmp_path / "made", "1.2.0")
    return layout.folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a belt.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 48))
    for index in range(FRAMES):
        picture = np.full((48, 64, 3), 30, np.uint8)
        cv2.circle(picture, (10 + index, 24), 8, (0, 200, 250), -1)
        writer.write(picture)
    writer.release()
    return path
