"""Targets whose compilers cannot be had are refused with the reason."""

import pytest

from converters.backends.elsewhere import refuse_elsewhere
from edgeml.errors import TargetError
from hardware.profiles import profiles


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("npu-coral-edgetpu", "edgetpu-compiler"),
        ("npu-mediatek-mt8195", "downloads the SDK"),
        ("npu-sophgo-bm1684x", "tpu-mlir"),
        ("npu-kendryte-k230", "nncase"),
    ],
)
def test_a_compiler_that_cannot_be_had_is_named(name: str, why: str) -> None:
    with pytest.raises(TargetError, match=f"cannot compile for {name}") as error:
        refuse_elsewhere(["cpu-x86-64", name])
    assert why in error.value.why
    assert "docs/targets.md" in error.value.fix


def test_what_there_is_is_not_refused() -> None:
    refuse_elsewhere([*profiles(), "npu", "cpu", "npu-of-nobody"])
