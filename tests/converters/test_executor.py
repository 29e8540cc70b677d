"""Artifacts in processes of their own: the same answers, and deaths that are only theirs."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converters.executor import LocalExecutor, RemoteSession, load, open_remote
from edgeml.errors import ModelError
from hardware.runtimes import SessionOptions, open_session

from .conftest import SIZE, write_convnet

IMAGE = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(1, 1, SIZE, SIZE)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[RemoteSession]:
    opened = open_remote(LocalExecutor(), "onnxruntime", write_convnet(tmp_path / "net.onnx"))
    yield opened
    opened.close()


def test_a_worker_answers_as_a_session_here_does(session: RemoteSession, tmp_path: Path) -> None:
    here = open_session("onnxruntime", tmp_path / "net.onnx", SessionOptions())
    assert session.inputs == here.inputs
    assert session.outputs == here.outputs
    assert session.placement() == here.placement()
    for given, wanted in zip(session.run([IMAGE]), here.run([IMAGE]), strict=True):
        np.testing.assert_array_equal(given, wanted)


def test_a_worker_times_itself_and_tells_its_memory(session: RemoteSession) -> None:
    session.keep([[IMAGE], [IMAGE + 1]])
    times = session.time(1, 5)
    assert len(times) == 5
    assert min(times) > 0
    assert 10e6 < session.memory_bytes < 1e9
    assert session.load_ms > 0


def test_what_the_runtime_refuses_is_a_sentence_and_the_worker_lives(
    session: RemoteSession,
) -> None:
    with pytest.raises(ModelError, match="does not fit the model"):
        session.run([IMAGE[:, :, :3]])
    assert len(session.run([IMAGE])) == 1


def test_a_worker_that_dies_takes_nothing_with_it(session: RemoteSession) -> None:
    os.kill(_pid(session), signal.SIGKILL)
    with pytest.raises(ModelError, match=r"died in a process of its own.*") as error:
        session.run([IMAGE])
    assert "SIGKILL" in str(error.value.why)


def test_a_file_that_is_no_model_leaves_no_worker(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot load"):
        open_remote(LocalExecutor(), "onnxruntime", tmp_path / "net.onnx")
    assert not _workers()


def test_the_end_of_the_converter_is_the_end_of_its_workers(session: RemoteSession) -> None:
    pid = _pid(session)
    session.close()
    assert not Path(f"/proc/{pid}").exists()


def test_a_worker_takes_one_model_after_the_other(session: RemoteSession, tmp_path: Path) -> None:
    pid, first = _pid(session), session.run([IMAGE])
    other = load(session.release(), "onnxruntime", write_convnet(tmp_path / "o.onnx", channels=4))
    second = other.run([IMAGE])
    again = load(other.release(), "onnxruntime", tmp_path / "net.onnx")
    assert _pid(again) == pid
    np.testing.assert_array_equal(again.run([IMAGE])[0], first[0])
    assert not np.array_equal(second[0], first[0])


def test_a_model_that_is_sent_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "here"))
    model = write_convnet(tmp_path / "net.onnx")
    sent = load(LocalExecutor().start(), "onnxruntime", model, copies=True)
    os.kill(_pid(sent), signal.SIGKILL)
    sent.close()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_command_that_is_no_worker_says_what_it_said(tmp_path: Path) -> None:
    executor = LocalExecutor([sys.executable, "-c", "raise SystemExit('no emulator')"])
    with pytest.raises(ModelError) as error:
        open_remote(executor, "onnxruntime", write_convnet(tmp_path / "net.onnx"))
    assert "no emulator" in str(error.value.why)


def _pid(session: RemoteSession) -> int:
    return session._channel._child.pid  # type: ignore[attr-defined, no-any-return]


def _workers() -> list[str]:
    return [
        line
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if "converters.worker" in (line := _read(entry)) and f"{os.getpid()}" in _parent(entry)
    ]


def _read(entry: Path) -> str:
    try:
        return entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _parent(entry: Path) -> str:
    try:
        return (entry.parent / "stat").read_text().rsplit(") ", 1)[1].split()[1]
    except OSError:
        return ""
