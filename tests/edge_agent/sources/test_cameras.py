"""Streams of cameras, with the faults that they have."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.sources import cameras, check_source, open_source
from edge_agent.sources import source as module
from edgeml.errors import DeviceError
from tests import needs
from tests.edge_agent.processes import eventually
from tests.edge_agent.sources.http_camera import HttpCamera
from tests.edge_agent.sources.seen import Seen, config


@pytest.fixture
def camera() -> Iterator[HttpCamera]:
    with HttpCamera() as camera:
        yield camera


def test_a_stream_over_http_is_read_with_the_time_of_capture(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 10)
    seen.stop()
    assert seen.frames[0].image.shape == (48, 64, 3)
    assert [frame.index for frame in seen.frames] == list(range(len(seen.frames)))
    times = [frame.captured for frame in seen.frames]
    assert times == sorted(times)
    assert times[-1] <= time.monotonic()


def test_a_wanted_rate_leaves_frames_out(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url, fps=5.0))
    eventually(lambda: len(seen.frames) >= 4)
    seen.stop()
    gaps = np.diff([frame.captured for frame in seen.frames])
    assert (gaps >= 0.9 / 5).all()


def test_a_stream_that_falls_silent_stalls_and_goes_on(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 10)
    camera.mode = "silent"
    eventually(lambda: seen.source.status().state == "stalled")
    last = seen.frames[-1].captured
    assert seen.source.status().since - last < module.STALL_S + 2.0
    assert "No frame for" in seen.source.error
    camera.mode = "good"
    count = len(seen.frames)
    eventually(lambda: len(seen.frames) > count + 3)
    assert seen.source.status().state == "running"
    seen.stop()


def test_a_stream_that_stays_silent_is_opened_anew(
    camera: HttpCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GIVE_UP_S", 1.5)
    monkeypatch.setattr(cameras, "READ_MS", 1000)
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 5)
    camera.mode = "silent"
    eventually(lambda: seen.source.status().state == "lost")
    connections = camera.connections
    camera.mode = "good"
    count = len(seen.frames)
    eventually(lambda: len(seen.frames) > count and camera.connections > connections, 30)
    # The numbers go on where a camera's connection breaks.
    numbers = [frame.index for frame in seen.frames]
    assert numbers == list(range(len(numbers)))
    seen.stop()


def test_a_stream_that_closes_is_lost_and_found_again(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 5)
    camera.mode = "closed"
    eventually(lambda: seen.source.status().state == "lost")
    assert seen.source.error
    camera.mode = "good"
    count = len(seen.frames)
    eventually(lambda: len(seen.frames) > count + 3, 30)
    seen.stop()


def test_rubbish_is_no_picture_and_said_so(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 5)
    camera.mode = "rubbish"
    eventually(lambda: seen.source.status().state in {"stalled", "lost"})
    camera.mode = "good"
    count = len(seen.frames)
    eventually(lambda: len(seen.frames) > count + 3, 40)
    seen.stop()


def test_a_camera_that_answers_nothing_is_not_waited_for_for_ever(
    camera: HttpCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "OPEN_MS", 500)
    camera.mode = "mute"
    seen = Seen(config(camera.url))
    eventually(lambda: seen.source.status().state == "lost")
    assert "cannot be opened" in seen.source.error
    assert "secret" not in seen.source.error
    seen.stop()


def test_nobody_there_is_a_sentence_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DeviceError, match="cannot be opened") as caught:
        open_source(config(f"rtsp://user:secret@127.0.0.1:{port}/1?token=secret"))
    assert "secret" not in str(caught.value)
    check_source(config(f"rtsp://user:secret@127.0.0.1:{port}/1"))


def test_stopping_leaves_no_thread(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 3)
    seen.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("source-belt")]


@pytest.fixture
def rtsp(tmp_path: Path) -> Iterator[tuple[str, tuple[subprocess.Popen[bytes], ...]]]:
    """A real RTSP server, and FFmpeg that publishes a moving picture to it."""
    serve = needs.program("rtsp-server-perl", "rtsp-server-perl")
    ffmpeg = needs.program("ffmpeg", "ffmpeg")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    listen = ["--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1"]
    log = (tmp_path / "rtsp.log").open("wb")
    server = subprocess.Popen(
        [serve, "--clientport", str(ports[0]), "--serverport", str(ports[1]), *listen],
        stdout=log,
        stderr=log,
    )
    eventually(lambda: _listens(ports[1]))
    picture = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=25"]
    coded = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-g",
        "5",
        "-pix_fmt",
        "yuv420p",
    ]
    publish = f"-f rtsp -rtsp_transport udp rtsp://127.0.0.1:{ports[1]}/live".split()
    publisher = subprocess.Popen(
        [ffmpeg, "-loglevel", "error", "-re", *picture, *coded, *publish], stdout=log, stderr=log
    )
    yield f"rtsp://127.0.0.1:{ports[0]}/live", (publisher, server)
    for child in (publisher, server):
        child.kill()
        child.wait()
    log.close()


def test_a_stream_over_rtsp_is_read_and_its_end_is_noticed(
    rtsp: tuple[str, tuple[subprocess.Popen[bytes], ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This server knows UDP only; OpenCV asks for TCP where nothing is said.
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    url, children = rtsp
    seen = Seen(config(url))
    eventually(lambda: len(seen.frames) >= 5, 30)
    assert seen.frames[0].image.shape == (120, 160, 3)
    for child in children:
        child.kill()
    eventually(lambda: seen.source.status().state in {"stalled", "lost"})
    seen.stop()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_camera_that_changes_its_size_goes_on_in_the_first(camera: HttpCamera) -> None:
    seen = Seen(config(camera.url))
    eventually(lambda: len(seen.frames) >= 5)
    camera.size = (96, 128)
    count = len(seen.frames)
    eventually(lambda: len(seen.frames) >= count + 10)
    seen.stop()
    assert {frame.image.shape for frame in seen.frames} == {(48, 64, 3)}
