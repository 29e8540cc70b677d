"""A third party's backend, small and real: it "compiles" by copying, and runs on onnxruntime.

Its targets: `npu-own-good`, whose first offer is right; `npu-own-second`, whose first offer answers
the wrong class; `npu-own-cpu`, of which half stays on the CPU; `npu-own-refused`;
`npu-own-broken`, whose backend has a fault. What it was told stands in its report.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cloud_sync.evidence import CompileReport, LeftOnCpu, Placement, Verification
from converters.artifact import Made, write_artifact
from converters.backends.graph import Node
from converters.backends.interface import Execution, Job, Offer, Tensors
from converters.backends.placement import placement_gate
from converters.backends.support import Constraint
from converters.recipe import Method, Parameters, Rule
from edgeml.errors import ModelError
from hardware.profiles import TargetProfile
from hardware.requirements import RuntimeRequirement
from hardware.runtimes import Session, SessionOptions, open_session

KINDS = ("good", "second", "cpu", "refused", "broken")


def make() -> list[TargetProfile]:
    """Its targets."""
    return [
        TargetProfile(
            name=f"npu-own-{kind}",
            description="a copy",
            architecture="arm64",
            backend="own",
            runtimes=(RuntimeRequirement(name="own"),),
            settings={"kind": kind},
        )
        for kind in KINDS
    ]


def no_average(node: Node) -> str | None:
    """Nothing is averaged."""
    return f"a window of {node.kernel}"


class Own:
    """The backend."""

    name = "own"
    toolchains: tuple[str, ...] = ()
    options: tuple[str, ...] = ("paint",)
    formats: tuple[str, ...] = ("onnx",)

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:
        return {"Conv": (), "BatchNormalization": (), "Relu": (), "Flatten": (), "Gemm": ()} | (
            {"AveragePool": (no_average,)} if target.name.endswith("cpu") else {"AveragePool": ()}
        )

    def offer(self, job: Job) -> Iterator[Offer]:
        kind = job.target.settings["kind"]
        if kind == "refused":
            raise ModelError("It cannot be compiled.", why="So says its compiler.")
        if kind == "broken":
            raise KeyError("shape")
        ways = [False, True] if kind == "good" else [True, False]
        if job.decided is not None:
            ways = [bool(job.decided.settings["turned"])]
        for turned in ways:
            yield _offer(job, turned=turned and kind == "second")


def _offer(job: Job, *, turned: bool) -> Offer:
    rules = (Rule(method=Method.STATIC_QDQ, parameters=Parameters(percentile=99.0 - turned)),)
    artifact = write_artifact(Made(job.loaded.model.data, 1), rules, job.folder)
    left = tuple(
        LeftOnCpu(node=u.node, operator=u.operator, reason=u.reason) for u in job.unsupported
    )
    placement = Placement(operators=6, offloaded=6 - len(left), left=left)
    return Offer(
        artifact=artifact,
        runtime="own",
        move="turned" if turned else "copied",
        verification=Verification.GRAPH_SIMULATED,
        execution=lambda: _opened(artifact.path, turned=turned),
        origin=(artifact.digest, str(turned)),
        settings={"turned": turned},
        gates=(placement_gate(placement, job.request.min_offload),),
        report=CompileReport(
            compiler="own 1", settings=dict(job.request.options), placement=placement
        ),
        tools={"own": "1"},
    )


@contextmanager
def _opened(path: Path, *, turned: bool) -> Iterator[Execution]:
    session = open_session("onnxruntime", path, SessionOptions())
    try:
        yield _Copy(session, turned=turned)
    finally:
        session.close()


class _Copy:
    def __init__(self, session: Session, *, turned: bool) -> None:
        from hardware.runtimes import runtimes

        info = runtimes()["onnxruntime"].info()
        assert info is not None
        self.info = info
        self._session = session
        self._sign = -1.0 if turned else 1.0

    def run_each(self, feeds: Sequence[Tensors]) -> Sequence[Tensors]:
        return [
            [np.array(output) * np.float32(self._sign) for output in self._session.run(feed)]
            for feed in feeds
        ]
