"""A real Ray cluster of some nodes on this machine, as `ray start` makes it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import needs

_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def ray_cluster(cpus: Sequence[int] = (2,)) -> Iterator[str]:
    """The address of a cluster with a node for each number of CPUs; gone at the end."""
    needs.module("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    # Ray's sockets are there, and their paths may not be long
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    try:
        with ExitStack() as stack:
            for index, count in enumerate(cpus):
                head = ["--head", f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}"]
                joined = [f"--address={address}"]
                command = [
                    *(str(Path(sys.executable).with_name("ray")), "start", "--block"),
                    *(joined if index else [*head, "--include-dashboard=false"]),
                    *(f"--num-cpus={count}", "--object-store-memory=80000000"),
                    *([] if index else ["--disable-usage-stats"]),
                ]
                stack.enter_context(_running(command, says="Ray runtime started"))
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: Sequence[str], says: str) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "RAY_AUTH_MODE": "disabled"}
    child = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        told = ""
        for line in child.stdout:
            told += line
            if says in line:
                break
        assert says in told, told
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stdout.close()
