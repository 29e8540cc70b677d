"""The agent as a process beside a bare process that does the same work: start, memory, CPU.

The bare process decodes the same pictures at the same pace, prepares them with the same
pipeline and runs the same session; it has no mailbox, no fleet, no updates and no results.
"""

import atexit
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import msgspec

from benchmarks.agent_device import make_device, make_images

SETTLE_S = 4.0
AT_START = dict(os.environ)
_THREADS = "OPENBLAS_NUM_THREADS"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

BARE = """
import sys, time
import cv2, numpy, onnxruntime as ort
from pathlib import Path
from hardware.pipeline import parse
from hardware.runtimes.interface import TensorSpec
model, pipeline, images, fps, out = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
[given] = session.get_inputs()
spec = TensorSpec(name=given.name, shape=tuple(given.shape), dtype="float32")
runner = parse(Path(pipeline).read_bytes()).runner([spec])
files = sorted(Path(images).iterdir())
due = time.monotonic()
count = 0
while True:
    for file in files:
        time.sleep(max(0.0, due - time.monotonic()))
        due += 1 / float(fps)
        [tensor] = runner.prepare(runner.crop(cv2.imread(str(file))))
        runner.read(session.run(None, {given.name: tensor}))
        if not count:
            open(out, "w").write("1")
        count += 1
"""


class Setting(msgspec.Struct, frozen=True):
    """What both processes work on."""

    folder: Path
    model: Path
    pipeline: bytes
    size: int


@cache
def installed() -> dict[str, str]:
    """An environment in which modules are compiled once, as those of an installed package are."""
    folder = tempfile.TemporaryDirectory(prefix="edgeml-bytecode-")
    atexit.register(folder.cleanup)
    environment = os.environ | {"PYTHONPYCACHEPREFIX": folder.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process, ended with the block."""
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=null, stderr=null, env=installed()) as process:
        try:
            yield process
        finally:
            process.kill()


class Pair:
    """The two processes, made anew for each measurement."""

    def __init__(self, setting: Setting, fps: float) -> None:
        folder = setting.folder / f"{fps:g}"
        folder.mkdir()
        images = make_images(folder / "images", setting.size)
        pipeline = folder / "pipeline.toml"
        pipeline.write_bytes(setting.pipeline)
        self._config = make_device(folder, setting.model, setting.pipeline, images, fps)
        self._results = self._config.parent / "results.jsonl"
        self._done = folder / "bare.done"
        self._bare = [
            *(sys.executable, "-c", BARE, str(setting.model), str(pipeline), str(images)),
            *(str(fps), str(self._done)),
        ]

    def agent(self, measure: Callable[["subprocess.Popen[bytes]", float], float]) -> float:
        """A figure of the agent, once it has inferred."""
        self._results.unlink(missing_ok=True)
        command = [sys.executable, "-m", "edgeml.cli", "agent", "run", "--config"]
        return self._run([*command, str(self._config)], self._results, measure)

    def bare(self, measure: Callable[["subprocess.Popen[bytes]", float], float]) -> float:
        """A figure of the bare process, once it has inferred."""
        self._done.unlink(missing_ok=True)
        return self._run(self._bare, self._done, measure)

    @staticmethod
    def _run(
        command: list[str],
        done: Path,
        measure: Callable[["subprocess.Popen[bytes]", float], float],
    ) -> float:
        begun = time.perf_counter()
        with running(command) as process:
            while not (done.exists() and done.stat().st_size):
                if process.poll() is not None or time.perf_counter() > begun + 60:
                    raise RuntimeError(f"{command[:4]} did not infer")
                time.sleep(0.002)
            return measure(process, time.perf_counter() - begun)


def started(_process: "subprocess.Popen[bytes]", seconds: float) -> float:
    """Milliseconds from the start of the process to its first inference."""
    return seconds * 1000


def resident(process: "subprocess.Popen[bytes]", _seconds: float) -> float:
    """Megabytes that it holds when it has settled: the median of a few looks."""
    time.sleep(SETTLE_S)
    looks = []
    for _ in range(5):
        looks.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE)
        time.sleep(0.1)
    return statistics.median(looks) / (1 << 20)


def busy(seconds: float) -> Callable[["subprocess.Popen[bytes]", float], float]:
    """Per cent of a core that it takes over some seconds when it has settled."""

    def measure(process: "subprocess.Popen[bytes]", _seconds: float) -> float:
        time.sleep(SETTLE_S)
        before, begun = _cpu(process.pid), time.perf_counter()
        time.sleep(seconds)
        return (_cpu(process.pid) - before) / (time.perf_counter() - begun) * 100

    return measure


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def import_ms(module: str) -> float:
    """CPU milliseconds that a new process takes to import a module."""
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    command = [sys.executable, "-c", code]
    environment = dict(installed())
    if _THREADS not in AT_START:  # the agent sets it for itself, which makes numpy's import cheaper
        environment.pop(_THREADS, None)
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return float(done.stdout) * 1000
