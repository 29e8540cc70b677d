"""`edgeml targets --model`: what an FPGA could run a model on, without data and tools."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from onnx import helper
from typer.testing import CliRunner

import converters.cli
from converters.fpga.settings import settings_of
from converters.weighing import table, weigh
from edgeml.errors import ModelError, UserError
from hardware.profiles import profiles

from .onnx_nets import net

INPUTS, HIDDEN = 12, 40


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    constants = {
        "a": rng.normal(size=(INPUTS, HIDDEN)).astype(np.float32),
        "c": rng.normal(size=(HIDDEN, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c"], ["y"]),
    ]
    path = tmp_path / "model.onnx"
    path.write_bytes(net(nodes, constants, (INPUTS,)))
    return path


def test_one_way_is_chosen_and_no_other_that_fits_is_quicker(model: Path) -> None:
    [found] = weigh(["fpga-ecp5-25k"], model, {"architecture": "engine"}, {})
    [chosen] = [each for each in found.alternatives if each.chosen]
    fitting = [each for each in found.alternatives if not each.lacking]
    assert chosen.latency_ms == min(each.latency_ms or 0 for each in fitting)
    assert chosen.best
    lines = table(found.alternatives).splitlines()
    assert [line.startswith("→") for line in lines].count(True) == 1
    assert len(lines) == len(found.alternatives) + 2


def test_a_latency_and_a_share_change_the_choice(model: Path) -> None:
    def chosen(**options: str) -> str:
        given = {"architecture": "engine"} | options
        [found] = weigh(["fpga-ecp5-25k"], model, given, {})
        return next((each.name for each in found.alternatives if each.chosen), "")

    assert chosen(latency_ms="1000") == "engine of 4 lanes"
    assert chosen(lanes="8") == "engine of 8 lanes"
    assert chosen(share="0.36") != chosen()
    assert not chosen(latency_ms="0.000001")
    [late] = weigh(["fpga-ecp5-25k"], model, {"latency_ms": "0.000001"}, {})
    assert "Nothing fits: choose a larger FPGA" in table(late.alternatives)


def test_the_command_prints_every_fpga_or_json(model: Path) -> None:
    app = typer.Typer()
    app.command()(converters.cli.targets)
    said = CliRunner().invoke(app, ["fpga", "--model", str(model)])
    assert said.exit_code == 0
    assert "fpga-ice40-up5k" in said.output
    assert "vitis" not in said.output
    said = CliRunner().invoke(app, ["fpga-ecp5-25k", "--model", str(model), "--json"])
    [found] = json.loads(said.output)["weighed"]
    assert found["target"] == "fpga-ecp5-25k"
    assert {"name", "cycles", "resources", "lacking"} <= set(found["alternatives"][0])


def test_options_that_cannot_be_are_refused_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no option nonsense"):
        weigh(["fpga"], tmp_path / "none.onnx", {"nonsense": "7"}, {})
    with pytest.raises(UserError, match=r"seeds=1\.5 is no whole number"):
        settings_of(profiles()["fpga-ecp5-25k"], {"seeds": "1.5"})
    app = typer.Typer()
    app.command()(converters.cli.targets)
    said = CliRunner().invoke(app, ["fpga-ecp5-25k", "--option", "share=0.5"])
    assert isinstance(said.exception, UserError)
    assert "without --model" in str(said.exception)


def test_what_cannot_be_weighed_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Nothing can be told of a model for cpu"):
        weigh(["cpu"], model, {}, {})
    other = tmp_path / "other.onnx"
    other.write_bytes(net([helper.make_node("Erf", ["x"], ["y"], "bend")], {}, (INPUTS,)))
    with pytest.raises(ModelError, match=r"operator Erf \(bend\)"):
        weigh(["fpga-ecp5-25k"], other, {}, {})


def test_a_clock_may_be_as_fast_as_placements_reach() -> None:
    target = profiles()["fpga-ecp5-25k"]
    settings = settings_of(target, {"clock_mhz": "auto"})
    assert (settings["clock_mhz"], settings["fastest"]) == (50.0, True)
    assert settings_of(target, {"clock_mhz": "75"})["fastest"] is False
    with pytest.raises(UserError, match="clock_mhz=auto is no number"):
        settings_of(profiles()["fpga-amd-vitis"], {"clock_mhz": "auto"})


def test_a_net_that_no_engine_can_address_has_no_figures(tmp_path: Path) -> None:
    weights = np.ones((40_000, 3), np.float32)
    path = tmp_path / "wide.onnx"
    node = helper.make_node("Gemm", ["x", "w"], ["y"])
    path.write_bytes(net([node], {"w": weights}, (len(weights),)))
    [found] = weigh(["fpga-ecp5-25k"], path, {"architecture": "engine"}, {})
    assert all(each.lacking and not each.resources for each in found.alternatives)
    assert {(each.cycles, each.latency_ms, each.share) for each in found.alternatives} == {
        (None, None, None)
    }
    assert "Nothing fits" in table(found.alternatives)
