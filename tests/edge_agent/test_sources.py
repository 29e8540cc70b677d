"""Sources: paced as recorded, numbered, looped, and patient with what is not there yet."""

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cloud_sync.messages import SourceConfig
from edge_agent.mailbox import Frame
from edge_agent.sources import Source, open_source
from edgeml.errors import DeviceError
from tests.edge_agent.processes import eventually
from tests.edge_agent.scene import make_images

FPS = 50.0


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "belt 1.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (32, 24))
    for shade in range(10):
        writer.write(np.full((24, 32, 3), shade * 20, np.uint8))
    writer.release()
    return path


def config(uri: str, **more: object) -> SourceConfig:
    return SourceConfig(**({"name": "belt", "uri": uri, "model": "toy"} | more))


class Seen:
    """A source, started, and the frames that it delivered."""

    def __init__(self, wanted: SourceConfig) -> None:
        self.frames: list[Frame] = []
        self.source = Source(wanted, self.frames.append)
        self.source.start()

    def stop(self) -> None:
        self.source.stop()
        assert self.source.join(2)


def test_a_video_is_played_once_at_the_pace_it_was_recorded_in(video: Path) -> None:
    begun = time.monotonic()
    seen = Seen(config(video.as_uri(), loop=False))
    eventually(lambda: seen.source.ended, 5)
    assert [frame.index for frame in seen.frames] == list(range(10))
    assert seen.frames[0].image.shape == (24, 32, 3)
    # A late first frame shortens what lies between the two, never what lies since the start.
    assert seen.frames[-1].captured - begun >= 9 / FPS * 0.95
    seen.stop()


def test_a_configured_rate_goes_before_the_recorded_one(video: Path) -> None:
    seen = Seen(config(video.as_uri(), fps=500.0, loop=False))
    eventually(lambda: seen.source.ended, 5)
    assert seen.frames[-1].captured - seen.frames[0].captured < 9 / FPS
    seen.stop()


def test_a_loop_begins_again_with_the_first_frame(video: Path) -> None:
    seen = Seen(config(video.as_uri(), fps=1000.0))
    eventually(lambda: len(seen.frames) > 25, 10)
    seen.stop()
    assert [frame.index for frame in seen.frames[:25]] == [n % 10 for n in range(25)]


def test_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", 4)
    (folder / "readme.txt").write_text("no image")
    _, frames = open_source(config(f"images://{folder}"))
    for index, image in frames:
        stored = cv2.imread(str(folder / f"{index:03}.png"))
        assert np.array_equal(image, stored)
    assert index == 3


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///no/such.mp4", "cannot be opened"),
        ("images:///no/such/folder", "no images"),
        ("rtsp://camera/1", "Known kinds are file:, images:"),
        ("", "Known kinds"),
        ("file://[half", "Known kinds"),
    ],
)
def test_a_source_that_cannot_be_opened_is_a_sentence(uri: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        open_source(config(uri))


def test_a_file_that_is_no_video_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "belt.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_source(config(path.as_uri()))


def test_a_source_that_is_not_there_is_tried_again(video: Path) -> None:
    away = video.with_suffix(".away")
    video.rename(away)
    seen = Seen(config(video.as_uri()))
    eventually(lambda: "cannot be opened" in seen.source.error, 5)
    away.rename(video)
    eventually(lambda: seen.frames, 5)
    assert seen.source.error == ""
    seen.stop()


def test_a_slow_source_is_stopped_without_waiting_for_its_next_frame(video: Path) -> None:
    seen = Seen(config(video.as_uri(), fps=0.01))
    eventually(lambda: seen.frames, 5)
    seen.stop()
    assert len(seen.frames) == 1
    assert not any(t.name == "source-belt" for t in threading.enumerate())
