"""Arrays over stdin and over a Unix socket, and what is no array."""

import io
import os
import pickle
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.sources import open_source, tensors
from edge_agent.sources.tensors import read_array
from edgeml.errors import DeviceError
from tests.edge_agent.processes import eventually
from tests.edge_agent.sources.seen import Seen, config


def npy(array: Any, **more: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **more)
    return stream.getvalue()


def headed(shape: str) -> bytes:
    """The beginning of an array whose header says this of its shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def through_a_pipe(data: bytes) -> np.ndarray | None:
    ours, theirs = os.pipe()

    def write() -> None:
        with os.fdopen(theirs, "wb") as stream:
            stream.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return read_array(ours, threading.Event())
    finally:
        os.close(ours)
        writer.join()


@given(
    hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "u1", "i1", "<i2", ">i4", "<f2"]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=5),
    ),
    st.booleans(),
)
def test_what_numpy_saves_is_read_back(array: np.ndarray, fortran: bool) -> None:
    found = through_a_pipe(npy(np.asfortranarray(array) if fortran else array))
    assert found is not None
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\n", "no .npy array"),
        (npy(np.zeros(3))[:-1], "ended in the middle"),
        (npy(np.zeros(3))[:9], "ended in the middle"),
        (npy(np.zeros(3))[:40], "ended in the middle"),
        (npy(np.array([{}], object), allow_pickle=True), "is not taken"),
        (npy(np.array(["text"])), "is not taken"),
        (npy(np.zeros(0)), "is not taken"),
        (npy(np.zeros(3)).replace(b"(3,)", b"(1099511627776,)").replace(b" " * 12 + b"\n", b"\n"),
         "is not taken"),
        (b"\x93NUMPY\x01\x00\x04\x00oops", "no .npy array"),
        (headed("(-1, -4)") + bytes(16), "is not taken"),
        (headed("(-1,)") + bytes(4), "is not taken"),
        (headed("((((2,"), "no .npy array"),
        (headed("(2,)" + ")" * 9), "no .npy array"),
        (headed("(" * 3000 + ")" * 3000), "no .npy array"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header has 4294967295 bytes"),
        (pickle.dumps([1]) * 3, "no .npy array"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        through_a_pipe(data)


def test_nothing_is_the_end() -> None:
    assert through_a_pipe(b"") is None


def test_stdin_gives_its_arrays_and_ends_with_the_pipe() -> None:
    code = (
        "import threading\n"
        "from cloud_sync.messages import SourceConfig\n"
        "from edge_agent.sources import open_source\n"
        "reader = open_source(SourceConfig(name='a', uri='npy:-', model='m'))\n"
        "while (found := reader.read()) is not None: print(found[1].sum())\n"
    )
    arrays = b"".join(npy(np.full((2, 3), value, np.float32)) for value in (1, 2, 3))
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, input=arrays, capture_output=True
    )
    assert done.stdout.split() == [b"6.0", b"12.0", b"18.0"], done.stderr


def test_whoever_connects_to_the_socket_is_read_and_whoever_lies_is_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "belt.sock"
    seen = Seen(config(f"npy://{path}"))
    eventually(path.is_socket)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    _send(path, npy(np.arange(6, dtype=np.float32)) * 2)
    eventually(lambda: len(seen.frames) == 2)
    _send(path, b"rubbish that is no array")
    eventually(lambda: "is cut off" in caplog.text)
    _send(path, npy(np.zeros((4, 4)))[:-5])
    _send(path, npy(np.ones((2, 2), np.int8)))
    eventually(lambda: len(seen.frames) == 3)
    assert seen.frames[-1].image.tolist() == [[1, 1], [1, 1]]
    assert seen.source.status().state == "running"
    seen.stop()
    assert not path.exists()


def test_a_header_that_lies_or_is_no_header_ends_its_client_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "belt.sock"
    seen = Seen(config(f"npy://{path}"))
    eventually(path.is_socket)
    for count, shape in enumerate(["(-1, -4)", "((((2,", "(2,))))"], 1):
        _send(path, headed(shape) + bytes(16))
        eventually(lambda count=count: caplog.text.count("is cut off") == count)
        _send(path, npy(np.full(3, count, np.int8)))
        eventually(lambda count=count: len(seen.frames) == count)
        assert seen.frames[-1].image.tolist() == [count] * 3
    assert seen.source.status().state == "running"
    assert "is lost" not in caplog.text
    seen.stop()


def test_an_agent_that_was_killed_leaves_a_socket_that_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "belt.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    seen = Seen(config(f"npy://{path}"))
    eventually(lambda: _send(path, npy(np.zeros(2))) and seen.frames)
    seen.stop()


def test_a_file_in_the_way_is_kept_and_said(tmp_path: Path) -> None:
    path = tmp_path / "belt.sock"
    path.write_text("mine")
    with pytest.raises(DeviceError, match="cannot be made"):
        open_source(config(f"npy://{path}"))
    assert path.read_text() == "mine"


def test_arrays_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MAX_BYTES", 100)
    with pytest.raises(DeviceError, match="is not taken"):
        through_a_pipe(npy(np.zeros(101, np.uint8)))


def _send(path: Path, data: bytes) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(data)
        except OSError:
            return False
    return True
