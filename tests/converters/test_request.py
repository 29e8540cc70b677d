"""A request that cannot be fulfilled is refused before any work, with its reason."""

from pathlib import Path
from typing import Any

import pytest

from converters.request import Request, check
from edgeml.errors import ExitCode, UserError, exit_code_of

GOOD: dict[str, Any] = {
    "model": Path("m.onnx"),
    "calibration": Path("c.npz"),
    "evaluation": Path("e.npz"),
    "name": "digits",
    "version": "1.0.0",
    "out": Path("out"),
    "targets": ("cpu",),
}


def test_a_request_with_usual_values_is_accepted() -> None:
    check(Request(**GOOD))
    check(Request(**(GOOD | {"targets": (), "recipe": Path("r.json")})))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "'' cannot be a model's name"),
        ({"name": "Digits"}, "'Digits' cannot be"),
        ({"name": "../digits"}, "'../digits' cannot be"),
        ({"name": "a" * 200}, "model's name"),
        ({"version": ""}, "'' cannot be a version"),
        ({"version": "1/0"}, "'1/0' cannot be"),
        ({"version": "-1"}, "'-1' cannot be"),
        ({"executor": "cloud"}, "local, ray"),
        ({"max_drop": 0.0}, "maximal drop"),
        ({"max_drop": 1.0}, "maximal drop"),
        ({"max_drop": float("nan")}, "maximal drop"),
        ({"confidence": 1.0}, "confidence of 1"),
        ({"confidence": 0.2}, "confidence of 0.2"),
        ({"min_speedup": -1.0}, "speed-up of -1"),
        ({"min_speedup": float("inf")}, "speed-up of inf"),
        ({"accept_undecided": "  "}, "reason of --accept-undecided is blank"),
        ({"targets": ()}, "No target"),
        ({"recipe": Path("r.json")}, "beside a recipe"),
        ({"dims": {"height": 0}}, "axis height cannot have the size 0"),
        ({"fuse": True}, "nothing to fuse"),
        ({"targets": (), "recipe": Path("r.json"), "fuse": True}, "fusing were asked for beside"),
        ({"targets": (), "recipe": Path("r.json"), "dims": {"h": 1}}, "Leave out --dim"),
    ],
)
def test_what_is_out_of_its_range_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check(Request(**(GOOD | change)))
    assert words in str(caught.value)
    assert exit_code_of(caught.value) is ExitCode.USAGE
