"""`edgeml agent try`, in processes of its own and in this one."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from edge_agent.commands.trying import source_of
from edgeml.cli import run
from edgeml.errors import UserError
from tests.cloud_sync.releases import make_release
from tests.edge_agent.commands.conftest import FRAMES

EDGEML = [sys.executable, "-m", "edgeml.cli", "agent"]


def as_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_video_is_run_to_its_end_and_every_frame_accounted_for(
    release: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agent", "try", str(release), "--source", str(video), "--json"]) == 0
    said = as_json(capsys)
    assert said["release"] == "toy:1.2.0"
    assert said["accepted"] == FRAMES
    assert said["inferred"] + said["empty"] + said["replaced"] + said["errors"] == FRAMES
    assert set(said["latency_ms"]) == {"wait", "pre", "inference", "post", "total"}
    assert sum(said["classes"].values()) == said["inferred"]
    assert not (release / "compiled").exists()


def test_figures_are_lines_for_people(
    release: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["agent", "try", str(release), "--source", str(video), "--seconds", "0.6"]
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert "toy:1.2.0, cpu-test float32, on onnxruntime" in text
    assert "milliseconds" in text


def test_an_annotated_video_has_the_frames_and_their_size(
    release: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["agent", "try", str(release), "--source", str(video), "--annotate", str(out)]
    assert run([*arguments, "--json"]) == 0
    drawn = as_json(capsys)["annotated"]
    assert 0 < drawn <= FRAMES  # what a busy machine replaced is not drawn
    film = cv2.VideoCapture(str(out))
    shapes = []
    while (read := film.read())[0]:
        shapes.append(read[1].shape)
    film.release()
    assert shapes == [(48, 64, 3)] * drawn
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a belt.mp4", "made", "out.mp4"]


def test_an_annotated_picture_shows_the_last_frame(
    release: Path, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jpg"
    run(["agent", "try", str(release), "--source", str(video), "--annotate", str(out), "--json"])
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape == (48, 64, 3)
    assert picture.max() > 100


def test_what_is_wrong_is_a_sentence_and_its_exit_code(
    release: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> tuple[int, str]:
        code = run(["agent", "try", *arguments])
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return code, said

    source = ["--source", str(video)]
    assert refused(str(tmp_path), *source)[0] == 6
    assert "no release folder" in refused(str(tmp_path), *source)[1]
    assert "There is no source" in refused(str(release), "--source", "nothing.mp4")[1]
    assert refused(str(release), *source, "--runtime", "openvino")[0] == 9
    code, said = refused(str(release), *source, "--annotate", str(tmp_path / "out.gif"))
    assert code == 2
    assert "Name a .jpg" in said
    code, said = refused(str(release), "--source", "gopher://x/y")
    assert "gopher" in said
    camera = "rtsp://viewer:secret@127.0.0.1:9/1"
    code, said = refused(str(release), "--source", camera, "--seconds", "1")
    assert "No frame came from rtsp://127.0.0.1:9/1" in said
    assert "secret" not in said
    assert refused(str(release), *source, "--api", "0.0.0.0:0")[0] == 2


def test_ctrl_c_ends_it_with_its_figures_and_the_api_is_open_meanwhile(
    release: Path, video: Path, tmp_path: Path
) -> None:
    path = tmp_path / "api.sock"
    command = [*EDGEML, "try", str(release), "--source", str(video), "--loop", "--json"]
    with subprocess.Popen(
        [*command, "--api", f"unix:{path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.05)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=20) as client:
            assert client.get("http://here/frames/toy.jpg").status_code == 200
            while "edgeml_frames_total" not in client.get("http://here/metrics").text:
                assert time.monotonic() < deadline
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert json.loads(out)["inferred"] > 0
    assert not path.exists()


def test_a_source_is_named_as_people_name_it(video: Path, tmp_path: Path) -> None:
    assert source_of(str(video), None, loop=False).uri == video.as_uri()
    assert source_of(str(tmp_path), 3.0, loop=True).uri == f"images://{tmp_path}"
    assert source_of("rtsp://cam/1", None, loop=False).uri == "rtsp://cam/1"
    (tmp_path / "a.wav").touch()
    assert source_of(str(tmp_path / "a.wav"), None, loop=False).uri == f"wav://{tmp_path}/a.wav"
    with pytest.raises(UserError, match="no file, no folder and no address"):
        source_of("nothing", None, loop=False)


@pytest.mark.parametrize(
    ("option", "values"),
    [("--seconds", ("nan", "-1", "inf")), ("--fps", ("nan", "-1", "0", "inf", "1001"))],
)
def test_a_number_that_is_none_is_refused(
    option: str, values: tuple[str, ...], release: Path, video: Path
) -> None:
    for value in values:
        assert run(["agent", "try", str(release), "--source", str(video), option, value]) == 2


def test_minutes_that_are_none_are_refused(release: Path) -> None:
    for value in ("nan", "-1", "inf"):
        assert run(["agent", "bench", str(release), "--minutes", value]) == 2


def test_the_variant_of_the_runtime_asked_for_is_run(
    two_variants: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for runtime in ("openvino", "onnxruntime"):
        asked = ["--source", str(video), "--runtime", runtime, "--seconds", "0.6", "--json"]
        assert run(["agent", "try", str(two_variants), *asked]) == 0
        said = as_json(capsys)
        assert said["runtime"].startswith(runtime)
        assert said["errors"] == 0


def test_the_api_asks_for_its_token_meanwhile(
    release: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")
    token.chmod(0o644)
    asked = ["--source", str(video), "--api", f"unix:{tmp_path}/s", "--api-token", str(token)]
    assert run(["agent", "try", str(release), *asked]) != 0
    assert "Other users can read the file." in capsys.readouterr().err
    token.chmod(0o600)
    assert run(["agent", "try", str(release), *asked]) == 0


def test_a_release_without_a_pipeline_is_tried_with_tensors(tmp_path: Path) -> None:
    layout, _ = make_release(tmp_path / "bare", pipeline=b"")
    data = io.BytesIO()
    np.save(data, np.zeros((1, 4, 4), np.float32))
    command = [*EDGEML, "try", str(layout.folder), "--source", "npy:-"]
    done = subprocess.run(command, input=data.getvalue(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "last: float32[1, 3]" in done.stdout.decode() + done.stderr.decode()
