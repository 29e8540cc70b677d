"""Files for Intel's NPU, executed on OpenVINO's CPU plug-in: its driver alone compiles them."""

from pathlib import Path
from typing import Any

from cloud_sync.evidence import Verdict, Verification
from cloud_sync.release import Layout, resolve
from converters.conversion import convert
from converters.result import ConversionResult
from hardware.capabilities import Accelerator, Capabilities, RuntimeInfo
from hardware.runtimes.formats import OPENVINO_IR
from tests import needs

TARGET = "npu-intel"


def run(model: Path, data: tuple[Path, Path], out: Path, **options: Any) -> ConversionResult:
    needs.module("openvino")
    return convert(
        model,
        calibration=data[0],
        evaluation=data[1],
        out=out,
        name="quarters",
        version="1",
        max_drop=0.05,
        **options,
    )


def test_a_model_is_quantized_judged_on_the_cpu_and_replayed(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(convnet, quarters_data, tmp_path / "out", targets=(TARGET,))
    [variant] = result.variants
    assert (variant.runtime, variant.format, variant.precision) == ("openvino", OPENVINO_IR, "int8")
    layout = Layout.open(tmp_path / "out")
    release = layout.release()
    [record] = layout.evidence(release.digest)
    assert record.verification is Verification.PRE_COMPILE_EXECUTED
    gates = {gate.name: gate.result for gate in record.gates}
    assert gates == {"accuracy": Verdict.PASS}  # where it runs, only the NPU's driver knows
    assert (record.latency, record.memory_bytes, record.placement) == (None, None, {})
    assert record.compiled is not None
    assert "Executed on the CPU" in record.compiled.remarks[0]

    again = run(convnet, quarters_data, tmp_path / "again", recipe=variant.recipe)
    assert again.release == result.release

    runtimes = (RuntimeInfo(name="openvino", version="2026.4.0", providers=("CPU", "NPU")),)
    without = Capabilities(runtimes=runtimes)
    assert resolve(release, without).variant is None
    having = Capabilities(
        runtimes=runtimes, accelerators=(Accelerator(kind="npu", part="intel-npu"),)
    )
    assert resolve(release, having).variant is not None
