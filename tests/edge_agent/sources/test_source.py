"""Sources: paced as recorded, numbered, looped, and patient with what is not there yet."""

import threading
import time
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.mailbox import Frame
from edge_agent.sources import PushSource, SourceStatus, check_source, open_source, shown
from edge_agent.sources import source as module
from edge_agent.sources.backoff import LONGEST_S, Backoff
from edge_agent.sources.kinds import SCHEMES
from edgeml.errors import DeviceError
from tests.edge_agent.processes import eventually
from tests.edge_agent.scene import make_images
from tests.edge_agent.sources.seen import Seen, config
from tests.hardware.plugins import install

FPS = 50.0


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "belt 1.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (32, 24))
    for shade in range(10):
        writer.write(np.full((24, 32, 3), shade * 20, np.uint8))
    writer.release()
    return path


def test_a_video_is_played_once_at_the_pace_it_was_recorded_in(video: Path) -> None:
    begun = time.monotonic()
    seen = Seen(config(video.as_uri(), loop=False))
    eventually(lambda: seen.source.ended)
    assert [frame.index for frame in seen.frames] == list(range(10))
    assert seen.frames[0].image.shape == (24, 32, 3)
    # A late first frame shortens what lies between the two, never what lies since the start.
    assert seen.frames[-1].captured - begun >= 9 / FPS * 0.95
    seen.stop()


def test_a_recorded_clip_is_played_in_its_own_time(shared_models: Path) -> None:
    clip = shared_models / "video" / "bikes.mp4"
    capture = cv2.VideoCapture(str(clip))
    fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    good, first = capture.read()
    capture.release()
    assert good
    seen = Seen(config(clip.as_uri(), loop=False))
    eventually(lambda: len(seen.frames) >= 30)
    seen.stop()
    assert count > 30
    assert np.array_equal(seen.frames[0].image, first)
    assert seen.frames[29].captured - seen.frames[0].captured >= 29 / fps * 0.95


def test_a_configured_rate_goes_before_the_recorded_one(video: Path) -> None:
    seen = Seen(config(video.as_uri(), fps=500.0, loop=False))
    eventually(lambda: seen.source.ended)
    assert seen.frames[-1].captured - seen.frames[0].captured < 9 / FPS
    seen.stop()


def test_a_loop_begins_again_with_the_first_frame(video: Path) -> None:
    seen = Seen(config(video.as_uri(), fps=1000.0))
    eventually(lambda: len(seen.frames) > 25)
    seen.stop()
    assert [frame.index for frame in seen.frames[:25]] == [n % 10 for n in range(25)]


def test_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", 4)
    (folder / "readme.txt").write_text("no image")
    reader = open_source(config(f"images://{folder}"))
    for index in range(4):
        found = reader.read()
        assert found is not None
        assert np.array_equal(found[1], cv2.imread(str(folder / f"{index:03}.png")))
    assert reader.read() is None


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///no/such.mp4", "cannot be opened"),
        ("images:///no/such/folder", "no images"),
        ("watch:///no/such/folder", "no folder"),
        ("wav:///no/such.wav", "cannot be opened"),
        ("v4l2:///home/me", "is no device"),
        ("v4l2:///dev/video0?width=wide", "width is 'wide'"),
        ("rtsp:///stream", "names no camera"),
        ("npy:there", "names no socket"),
        ("alsa:default?window=0", "window is '0'"),
        ("file:///a.mp4?speed=2", "unknown option 'speed'"),
        ("ftp://camera/1", "Known kinds are alsa:, file:"),
        ("", "Known kinds"),
        ("file://[half", "Known kinds"),
    ],
)
def test_a_source_that_can_never_work_is_a_sentence(uri: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        check_source(config(uri))


@pytest.mark.parametrize(
    "uri",
    ["rtsp://user:secret@10.9.9.9/1", "v4l2:///dev/video77", "npy:///run/x.sock", "npy:-", "push:"],
)
def test_what_is_only_not_there_yet_is_no_mistake(uri: str) -> None:
    check_source(config(uri))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("rtsp://viewer:secret@10.0.0.7:554/stream1?key=secret", "rtsp://10.0.0.7:554/stream1"),
        ("rtsp://viewer:secret/or#so@camera/1", "rtsp://..."),
        ("rtsp://viewer:secret?so@camera/1", "rtsp://..."),
        ("rtsp://a@b:secret@[half/1", "rtsp://[half/1"),
        ("viewer:secret@camera/1", "camera/1"),
        ("images:///pictures/b@secret-free", "images:///pictures/b@secret-free"),
        ("alsa:plughw:1,0?rate=16000", "alsa:plughw:1,0"),
    ],
)
def test_an_address_is_shown_without_a_password(uri: str, said: str) -> None:
    assert shown(uri) == said


def test_a_camera_that_is_not_plugged_in_is_a_sentence() -> None:
    with pytest.raises(DeviceError, match="camera /dev/video77 cannot be opened"):
        open_source(config("v4l2:///dev/video77?width=640&height=480", fps=15.0))


def test_a_file_that_is_no_video_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "belt.mp4"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_source(config(path.as_uri()))


def test_a_source_that_is_not_there_is_tried_again(video: Path) -> None:
    away = video.with_suffix(".away")
    video.rename(away)
    seen = Seen(config(video.as_uri()))
    eventually(lambda: "cannot be opened" in seen.source.error)
    away.rename(video)
    eventually(lambda: seen.frames)
    assert seen.source.error == ""
    seen.stop()


def test_a_slow_source_is_stopped_without_waiting_for_its_next_frame(video: Path) -> None:
    seen = Seen(config(video.as_uri(), fps=0.01))
    eventually(lambda: seen.frames)
    seen.stop()
    assert len(seen.frames) == 1
    assert not any(t.name.startswith("source-belt") for t in threading.enumerate())


def test_what_is_said_of_a_source_follows_what_happens(video: Path) -> None:
    said: list[SourceStatus] = []
    away = video.with_suffix(".away")
    video.rename(away)
    seen = Seen(config(video.as_uri(), loop=False), on_status=said.append)
    assert seen.source.status().state in {"starting", "lost"}
    eventually(lambda: seen.source.status().state == "lost")
    away.rename(video)
    eventually(lambda: seen.source.ended)
    assert [status.state for status in said] == ["lost", "running", "ended"]
    assert "cannot be opened" in said[0].reason
    assert seen.source.status().frames == 10
    assert said[-1].line()["state"] == "ended"
    seen.stop()


def test_a_truncated_video_gives_what_it_has_and_a_warning(
    video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    seen = Seen(config(video.as_uri(), fps=500.0, loop=False))
    eventually(lambda: seen.source.status().state in {"ended", "lost"})
    assert len(seen.frames) < 10
    assert seen.source.status().reason or "ends after" in caplog.text
    seen.stop()


def test_the_clock_dates_a_frame_where_it_is_known(video: Path) -> None:
    for clock, known in ((time.time, True), (lambda: None, False)):
        seen = Seen(config(video.as_uri()), clock=clock)
        eventually(lambda seen=seen: seen.frames)
        seen.stop()
        frame = seen.frames[0]
        assert (frame.wall is not None) == known
        if frame.wall is not None:
            ago = time.monotonic() - frame.captured
            assert abs(time.time() - ago - frame.wall) < 0.5


class Timed(Seen):
    """Knows when the last frame came."""

    taken_at = 0.0

    def _take(self, frame: Frame) -> bool | None:
        self.taken_at = time.monotonic()
        return super()._take(frame)


def test_a_silence_is_noticed_within_a_second_or_three_periods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[SourceStatus] = []
    silent = threading.Event()
    _script(monkeypatch, silent)
    seen = Timed(config("script:"), on_status=said.append)
    eventually(lambda: len(seen.frames) > 10)
    silent.set()
    # However busy the machine: asked a second after the last frame it says so, and not before.
    state, asked, running_at = "", 0.0, 0.0
    while state != "stalled":
        running_at, asked = asked, time.monotonic()
        state = seen.source.status().state
        time.sleep(0.01)
    assert running_at < seen.taken_at + 1.0
    assert time.monotonic() >= seen.frames[-1].captured + 1.0
    eventually(lambda: [status for status in said if status.state == "stalled"])
    assert "No frame for" in next(s.reason for s in said if s.state == "stalled")
    silent.clear()
    eventually(lambda: seen.source.status().state == "running")
    assert seen.source.error == ""
    seen.stop()


def test_a_reading_that_hangs_in_the_driver_is_given_up_and_begun_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GIVE_UP_S", 0.2)
    monkeypatch.setattr(module, "STALL_S", 0.05)
    monkeypatch.setattr(module, "CLOSE_S", 0.1)
    hangs = threading.Event()
    hangs.set()
    opened = _script(monkeypatch, hangs, deaf=True)
    seen = Seen(config("script:"))
    # As many as may hang do; then none is opened any more.
    eventually(lambda: "readings hang" in seen.source.error)
    assert len(opened) == module.MAX_HANGING
    hangs.clear()
    eventually(lambda: seen.source.status().state == "running")
    assert len(opened) == module.MAX_HANGING + 1
    seen.stop()
    eventually(lambda: not [t for t in threading.enumerate() if "source-belt" in t.name])


def _script(
    monkeypatch: pytest.MonkeyPatch, silent: threading.Event, *, deaf: bool = False
) -> list[object]:
    """A kind of source that gives 100 frames a second but while it is silent."""
    opened: list[object] = []

    class Scripted:
        kind = "live"
        fps = 100.0

        def __init__(self, stop: threading.Event) -> None:
            self._stop = stop
            opened.append(self)

        def read(self) -> tuple[float, np.ndarray] | None:
            while silent.is_set():
                if not deaf and self._stop.is_set():
                    return None
                time.sleep(0.005)
            time.sleep(0.01)
            return time.monotonic(), np.zeros((2, 2), np.uint8)

        def close(self) -> None:
            pass

    monkeypatch.setitem(SCHEMES, "script", lambda _config, stop: Scripted(stop))
    return opened


def test_the_pauses_grow_with_jitter_and_begin_anew() -> None:
    backoff = Backoff(spread=lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, LONGEST_S, LONGEST_S]
    backoff.reset()
    assert backoff.next_s() == 0.5
    waits = {Backoff().next_s() for _ in range(50)}
    assert len(waits) > 10
    assert all(0.25 <= wait <= 0.5 for wait in waits)


def test_what_is_pushed_is_accepted_or_replaces_or_is_refused() -> None:
    seen = Seen(config("push:"), kind=PushSource)
    source = seen.source
    assert isinstance(source, PushSource)
    eventually(lambda: source.push(np.zeros((2, 2), np.uint8)) == "accepted")
    assert source.push(np.zeros((2, 2), np.uint8), captured_at=3.5) == "accepted"
    assert seen.frames[-1].captured == 3.5
    assert source.status().state == "running"
    seen.answer = True
    assert source.push(np.zeros((2, 2), np.uint8)) == "replaced"
    seen.answer = None
    assert source.push(np.zeros((2, 2), np.uint8)) == "refused"
    seen.stop()
    seen.answer = False
    assert source.push(np.zeros((2, 2), np.uint8)) == "refused"


def test_a_source_that_waits_for_others_runs_as_soon_as_it_is_open(tmp_path: Path) -> None:
    for uri in ("push:", f"npy://{tmp_path / 'x.sock'}", f"watch://{tmp_path}"):
        seen = Seen(config(uri))
        eventually(lambda seen=seen: seen.source.status().state == "running")
        assert seen.source.status().frames == 0
        seen.stop()


def test_frames_pushed_by_many_threads_are_all_counted_and_numbered_once() -> None:
    seen = Seen(config("push:"), kind=PushSource)
    source = seen.source
    assert isinstance(source, PushSource)
    eventually(lambda: source.push(np.zeros((1, 1), np.uint8)) == "accepted")
    threads = [
        threading.Thread(
            target=lambda: [source.push(np.zeros((1, 1), np.uint8)) for _ in range(300)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen.stop()
    numbers = [frame.index for frame in seen.frames]
    assert sorted(numbers) == list(range(len(numbers)))
    assert source.status().frames == len(numbers)


def test_a_pushed_source_with_a_rate_stalls_and_one_without_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.1)
    quick = Seen(config("push:", fps=100.0), kind=PushSource)
    free = Seen(config("push:"), kind=PushSource)
    for one in (quick, free):
        assert isinstance(one.source, PushSource)
        eventually(lambda one=one: one.source.push(np.zeros((1, 1), np.uint8)) == "accepted")
    eventually(lambda: quick.source.status().state == "stalled")
    assert free.source.status().state == "running"
    quick.stop()
    free.stop()


PLUGIN = """
import time
import numpy as np
class Reader:
    kind, fps = "live", 50.0
    def read(self):
        time.sleep(0.02)
        return time.monotonic(), np.full((2, 2), 7, np.uint8)
    def close(self):
        pass
def make(config, stop):
    return Reader()
"""


def test_a_plug_in_brings_a_kind_of_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "edgeml.sources", "genicam", PLUGIN)
    install(tmp_path, "edgeml.sources", "broken", "raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    check_source(config("genicam:1"))
    seen = Seen(config("genicam:1"))
    eventually(lambda: len(seen.frames) > 2)
    seen.stop()
    assert seen.frames[0].image[0, 0] == 7
    with pytest.raises(DeviceError, match=r"plug-in broken cannot be loaded.*no licence"):
        open_source(config("broken:1"))


def test_our_kinds_are_registered_as_a_plug_in_would_be() -> None:
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    named = tomllib.loads(project.read_text())["project"]["entry-points"]["edgeml.sources"]
    ours = {scheme: f"{opener.__module__}:{opener.__name__}" for scheme, opener in SCHEMES.items()}
    assert named == ours
