"""Int8 IRs for Intel's NPU, executed on OpenVINO's CPU plug-in.

OpenVINO compiles for the NPU with the driver of the machine that has one: here it is not known
what the NPU makes of the IR. It takes a model whole or refuses to load it; a device's own test
tells which.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cloud_sync.evidence import CompileReport, Verification
from converters.artifact import Made, write_artifact
from converters.backends.interface import Job, Offer, Proof
from converters.backends.support import EVERY, Constraint
from converters.backends.whole import Rules, known_shapes, static, write_quantized
from converters.executor import LocalExecutor, RemoteSession, open_remote
from edgeml.errors import ToolchainError
from hardware.profiles import TargetProfile
from hardware.runtimes.formats import ONNX, OPENVINO_IR
from hardware.runtimes.openvino import NAME, OpenVinoRuntime, ir_of

_EXECUTED_ON = "x86-64 openvino cpu"
_TOLERANCE = 0.05  # an NPU rounds where it pleases
_REMARK = (
    "Executed on the CPU: OpenVINO compiles for the NPU on the device, which loads the model whole "
    "or refuses it."
)
_MOVES = {
    "8-bit activations, extremes": static(activation="uint8"),
    "8-bit activations, 99.99 %": static(activation="uint8", calibration="percentile"),
}


class _Everything(dict[str, Sequence[Constraint]]):
    """A table that names no operators: the NPU's compiler alone knows which it takes."""

    def __contains__(self, operator: object) -> bool:
        return True

    def __missing__(self, operator: str) -> Sequence[Constraint]:
        return ()


class Intel:
    """The backend `intel`."""

    name = "intel"
    toolchains: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    formats: tuple[str, ...] = (ONNX,)
    proof = Proof(
        executes="the OpenVINO file on the CPU plug-in; the NPU's driver compiles it on the device",
        verification=Verification.PRE_COMPILE_EXECUTED,
    )

    def require(self) -> None:
        """Check that OpenVINO is installed.

        Raises:
            ToolchainError: it is not.
        """
        if OpenVinoRuntime().info() is None:
            raise ToolchainError(
                "OpenVINO is not installed.", fix="Run: pip install 'edgeml[openvino]'"
            )

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:  # noqa: ARG002 -- there is one
        """Fixed shapes; which operators run, only the device's driver knows."""
        return _Everything({EVERY: (known_shapes,)})

    def offer(self, job: Job) -> Iterator[Offer]:
        """Activations by their extremes, then without the rarest ones.

        Raises:
            ModelError: OpenVINO cannot read it.
            NotQuantizableError: it cannot be quantized.
        """
        if job.decided is not None:
            yield self._made(job, "as the recipe says", job.decided.rules)
            return
        for move, rules in _MOVES.items():
            yield self._made(job, move, rules)

    def _made(self, job: Job, move: str, rules: Rules) -> Offer:
        source = job.folder / "quantized.onnx"
        nodes = write_quantized(job, rules, source)
        begun = time.perf_counter()
        made = Made(ir_of(source, job.request.name), len(nodes))
        seconds = time.perf_counter() - begun
        artifact = write_artifact(made, rules, job.folder, OPENVINO_IR)
        info = OpenVinoRuntime().info()
        assert info is not None
        return Offer(
            artifact=artifact,
            runtime=NAME,
            move=move,
            verification=Verification.PRE_COMPILE_EXECUTED,
            execution=lambda: _opened(artifact.path),
            origin=(artifact.digest, info.version),
            executed_on=_EXECUTED_ON,
            tolerance=_TOLERANCE,
            report=CompileReport(
                compiler=f"OpenVINO {info.version}",
                seconds=seconds,
                remarks=(_REMARK,),
            ),
            tools={"openvino": info.version},
        )


@contextmanager
def _opened(model: Path) -> Iterator[RemoteSession]:
    session = open_remote(LocalExecutor(name="openvino cpu"), NAME, model)
    try:
        yield session
    finally:
        session.close()
