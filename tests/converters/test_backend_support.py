"""What a target runs is a table of constraints, whose docstrings are what people read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.evidence import LeftOnCpu, Placement, Verdict
from converters.backends import backend, target_profiles
from converters.backends.ethos_u import rules
from converters.backends.graph import Node, Tensor, by_name, nodes_of
from converters.backends.pages import pages
from converters.backends.placement import placement_gate
from converters.backends.support import unsupported
from converters.model import load_model
from edgeml.errors import TargetError
from hardware.profiles import select


def convolution(**attributes: object) -> Node:
    shape = (1, 8, 4, 4)
    return Node(
        name="c",
        operator="Conv",
        attributes={"kernel_shape": [3, 3], **attributes},
        inputs=(
            Tensor(name="x", shape=(1, 4, 8, 8)),
            Tensor(name="w", shape=(8, 4, 3, 3), value=np.zeros((8, 4, 3, 3))),
        ),
        outputs=(Tensor(name="y", shape=shape),),
    )


def slicing(*, axis: int, step: int, axes: int = 4) -> Node:
    """Takes every `step`-th value of an axis."""
    told = (("starts", 0), ("ends", 8), ("axes", axis), ("steps", step))
    return Node(
        name="s",
        operator="Slice",
        inputs=(
            Tensor(name="x", shape=(1, *(8,) * (axes - 1))),
            *(Tensor(name=name, shape=(1,), value=np.array([value])) for name, value in told),
        ),
        outputs=(Tensor(name="y", shape=(1, *(4,) * (axes - 1))),),
    )


def test_nodes_have_shapes_constants_and_work(convnet: Path) -> None:
    nodes = by_name(nodes_of(load_model(convnet), {"image": (1, 1, 12, 12)}))
    assert list(nodes) == ["conv", "norm", "relu", "pool", "flat", "dense"]
    assert nodes["conv"].shape == (1, 16, 12, 12)
    assert nodes["conv"].macs == 16 * 12 * 12 * 9
    assert nodes["conv"].inputs[1].is_constant
    assert nodes["dense"].macs == 64 * 4
    assert nodes["relu"].macs == 0
    assert nodes["pool"].kernel == (6, 6)


@pytest.mark.parametrize(
    "node",
    [convolution(strides=[2, 2]), slicing(axis=2, step=2), slicing(axis=3, step=1)],
)
def test_a_node_that_a_target_runs_is_not_told(node: Node) -> None:
    assert unsupported(rules.U55, [node]) == ()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (convolution(kernel_shape=[65, 65]), "A kernel has at most 64 x 64 weights"),
        (convolution(strides=[4, 4], pads=[1, 1, 1, 1]), "Strides above 3 need a dilation of 1"),
        (convolution(kernel_shape=[3, 3, 3]), "Convolutions and pools have one or two axes"),
        (convolution(group=2), "one group, or one for each channel"),
        (slicing(axis=3, step=2), "between the first and the last alone"),
        (slicing(axis=-1, step=2, axes=3), "It has steps of 2 over axis -1 of 3"),
        (slicing(axis=1, step=-1), "never backwards. It has steps of -1"),
        (Node(name="n", operator="LSTM"), "this operator is not among those that it runs"),
    ],
)
def test_a_broken_constraint_is_told_by_its_docstring(node: Node, said: str) -> None:
    [found] = unsupported(rules.U55, [node])
    assert said in found.reason
    assert str(found).startswith(f"{node.name} ({node.operator}): ")


def test_a_stride_that_one_kind_of_npu_lacks_runs_on_the_other() -> None:
    wide = convolution(strides=[4, 4], pads=[1, 1, 1, 1])
    assert unsupported(rules.U55, [wide])
    assert not unsupported(rules.U85, [wide])


@given(
    st.integers(1, 50), st.integers(0, 50), st.integers(0, 10**9), st.integers(0, 10**9),
    st.floats(0, 1),
)  # fmt: skip
def test_a_placement_passes_where_both_shares_reach_the_bound(
    operators: int, offloaded: int, macs: int, offloaded_macs: int, bound: float
) -> None:
    offloaded, offloaded_macs = min(offloaded, operators), min(offloaded_macs, macs)
    placement = Placement(
        operators=operators, offloaded=offloaded, macs=macs, offloaded_macs=offloaded_macs
    )
    by_operator = offloaded / operators >= bound
    by_mac = not macs or offloaded_macs / macs >= bound
    gate = placement_gate(placement, bound)
    assert gate.result is (Verdict.PASS if by_operator and by_mac else Verdict.FAIL)


def test_nodes_on_the_cpu_are_named_in_the_gate() -> None:
    left = tuple(LeftOnCpu(node=f"n{i}", operator="LSTM", reason="no.") for i in range(7))
    gate = placement_gate(Placement(operators=10, offloaded=3, left=left), 0.95)
    assert "on the CPU: n0 (LSTM): no;" in gate.reason
    assert "and 2 more" in gate.reason


def test_every_target_of_a_backend_has_a_page_with_its_constraints() -> None:
    written = pages()
    for profile in target_profiles():
        assert profile.backend
        assert f"# {profile.name}" in written[f"{profile.name}.md"]
        assert profile.name in written["README.md"]
    assert "A softmax is over the last axis." in written["npu-ethos-u55-128.md"]


def test_a_backend_that_nobody_brings_is_an_error() -> None:
    with pytest.raises(TargetError, match="There is no backend nobody"):
        backend("nobody")


def test_the_group_npu_means_every_npu() -> None:
    names = [profile.name for profile in select(["npu"])]
    assert "npu-ethos-u55-128" in names
    assert all(name.startswith("npu-") for name in names)
