"""Start-up time and memory of an artifact, measured in a child process of its own.

In this process the sessions of other candidates would be counted too. The child is
`python -m converters.footprint`, which reads one JSON request from standard input and writes
one JSON reply: it loads the model, runs it, and says its peak resident memory.
"""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from edgeml.errors import ModelError
from hardware.runtimes import SessionOptions, open_session

_TIMEOUT_S = 300


class FootprintRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Load `model` on `runtime` and run it on zeros of the given shapes and types."""

    runtime: str
    model: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    runs: int = 20


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """`memory_bytes` is the child's peak resident memory, Python and runtime included."""

    memory_bytes: int
    load_ms: float


def measure_footprint(runtime: str, model: Path, feed: list[np.ndarray]) -> Footprint:
    """Measure in a child process.

    Raises:
        ModelError: the child failed; the sentence is its last line.
    """
    request = FootprintRequest(
        runtime=runtime,
        model=str(model),
        inputs=tuple((array.dtype.name, array.shape) for array in feed),
    )
    try:
        child = subprocess.run(
            [sys.executable, "-m", "converters.footprint"],
            input=msgspec.json.encode(request),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"The artifact for {runtime} does not come to an end in a process of its own.",
            why=f"It was given {_TIMEOUT_S} s to load and run {request.runs} times.",
        ) from None
    if child.returncode:
        last = (child.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ModelError(
            f"The artifact for {runtime} failed in a process of its own.",
            why=f"Exit status {child.returncode}: {last}.",
        )
    return msgspec.json.decode(child.stdout, type=Footprint)


def _measure(request: FootprintRequest) -> Footprint:
    feed = [np.zeros(shape, dtype) for dtype, shape in request.inputs]
    begun = time.perf_counter()
    session = open_session(request.runtime, Path(request.model), SessionOptions())
    loaded = time.perf_counter()
    for _ in range(request.runs):
        session.run(feed)
    return Footprint(memory_bytes=_peak_memory(), load_ms=1000 * (loaded - begun))


def _peak_memory() -> int:
    # not getrusage: its maximum is inherited through fork and exec, and so is the parent's
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    reply = _measure(msgspec.json.decode(sys.stdin.buffer.read(), type=FootprintRequest))
    sys.stdout.buffer.write(msgspec.json.encode(reply))
