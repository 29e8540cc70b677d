"""The child process that tests a new variant on this device's real runtime.

`python -m edge_agent.testing PARENT` reads a `TestRequest` as JSON from standard input,
replays the golden set and prints a `TestResult`. It is a process of its own so that a crash
in the runtime is a failed test and no crashed agent; it ends with the agent, however that ends.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_sync.evidence import GateResult, GoldenResult, Latency, Verdict
from edge_agent.execution import Execution, placement_gate
from edge_agent.failpoints import reach
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from hardware.runtimes.interface import TensorSpec

TIMEOUT_S = 180.0
TIMED_RUNS = 50
POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


class TestRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which files to test, and how to run them; `compiled` as in `SessionOptions`.

    Without a `pipeline` golden samples are the model's own inputs.
    """

    __test__ = False

    execution: Execution
    model: str
    pipeline: str
    golden: str
    recorded: str
    compiled: str = ""
    spin: bool = False


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the test found; `error` where it could not be made, `crashed` where its process died."""

    __test__ = False

    gates: tuple[GateResult, ...] = ()
    golden: GoldenResult | None = None
    latency: Latency | None = None
    memory_bytes: int = 0
    placement: dict[str, int] = {}
    error: str = ""
    crashed: bool = False


def run_child(
    request: TestRequest, stop: threading.Event, timeout_s: float = TIMEOUT_S
) -> TestResult | None:
    """Test in a child process; whatever happens there is a result.

    Returns:
        What was found, or None where `stop` was set before the end; the child is gone then.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "edge_agent.testing", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # a Ctrl-C in the terminal is the agent's to handle
    ) as child:
        try:
            answer = _communicate(child, msgspec.json.encode(request), stop, timeout_s)
        finally:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
    if answer is None:
        return (
            None
            if stop.is_set()
            else _broken(f"the test did not end within {timeout_s:.0f} seconds")
        )
    out, err = answer
    if child.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"code {child.returncode}"
        broken = _broken(f"the test process ended with {how}: {last[0]}")
        return msgspec.structs.replace(broken, crashed=True)
    try:
        return msgspec.json.decode(out, type=TestResult)
    except msgspec.DecodeError as error:
        return _broken(f"the test's answer could not be read: {error}")


def _communicate(
    child: "subprocess.Popen[bytes]", request: bytes, stop: threading.Event, timeout_s: float
) -> tuple[bytes, bytes] | None:
    deadline = time.monotonic() + timeout_s
    question: bytes | None = request
    while not stop.is_set() and time.monotonic() < deadline:
        try:
            return child.communicate(question, POLL_S)
        except subprocess.TimeoutExpired:
            question = None
    return None


def run(request: TestRequest) -> TestResult:
    """Replay the golden set in this process."""
    import numpy as np

    from cloud_sync.golden import decode_golden, decode_recorded, joined
    from edge_agent.golden_replay import compare
    from hardware.probes import instruction_set, probe
    from hardware.runtimes import SessionOptions, answers, open_session

    golden = decode_golden(Path(request.golden).read_bytes())
    recordings = decode_recorded(Path(request.recorded).read_bytes())
    execution = request.execution
    options = SessionOptions(
        threads=execution.threads,
        provider=execution.provider,
        spin=request.spin,
        compiled=request.compiled,
    )
    if request.compiled:
        # The first session compiles; what is tested is what will be loaded from then on.
        open_session(execution.runtime, Path(request.model), options).close()
    session = open_session(execution.runtime, Path(request.model), options)
    prepare, read, task = _pipeline(request.pipeline, session.inputs)
    prepared = takewhile(lambda tensors: tensors is not None, map(prepare, golden.samples()))
    rows = [[output.copy() for output in outputs] for outputs in answers(session, prepared)]
    if not len(golden.inputs):
        return _broken("the golden set is empty")
    if len(rows) < len(golden.inputs):
        return _broken("the pipeline found nothing in a golden input")
    times = []
    for sample, row in zip(golden.samples(), rows, strict=True):
        read(row)
        tensors = prepare(sample)
        for _ in range(max(1, TIMED_RUNS // len(golden.inputs))):
            begun = time.perf_counter()
            session.run(tensors)
            times.append((time.perf_counter() - begun) * 1000)
    outputs = joined(rows)
    made_with = (execution.runtime, execution.version, instruction_set(probe()))
    result, gate = compare(outputs, golden, recordings, made_with, task)
    placement = session.placement()
    placed = placement_gate(execution, placement)
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    return TestResult(
        gates=(gate,) if placed is None else (gate, placed),
        golden=result,
        latency=Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, n=len(times)),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        placement=placement,
    )


def _pipeline(
    path: str, inputs: "Sequence[TensorSpec]"
) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    """How golden samples become tensors and outputs are read, and the task; without it all bare."""
    if path:
        from hardware.pipeline import parse

        pipeline = parse(Path(path).read_bytes())
        runner = pipeline.runner(inputs)
        return lambda sample: runner.prepare(sample[0]), runner.read, pipeline.task
    return (
        lambda sample: [spec.tensor(array) for spec, array in zip(inputs, sample, strict=True)],
        lambda _: None,
        "",
    )


def _broken(why: str) -> TestResult:
    gate = GateResult(name="golden.outputs", result=Verdict.FAIL, reason=why)
    return TestResult(gates=(gate,), error=why)


def _end_with(parent: int) -> None:
    """Let the agent's end, however it comes, be the end of this process."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the agent is gone")


def _main() -> None:
    _end_with(int(sys.argv[1]))
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=TestRequest)
    reach("testing-child")
    try:
        result = run(request)
    except EdgemlError as error:
        result = _broken(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    _main()
