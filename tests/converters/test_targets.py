"""`edgeml targets`: what can be made here, how far it is checked, and what one target runs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.targets import listing
from edgeml.cli import app
from edgeml.errors import TargetError
from tests import needs

RUN = CliRunner()


@pytest.fixture
def no_toolchains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_TOOLCHAINS", str(tmp_path / "toolchains"))


@pytest.mark.usefixtures("no_toolchains")
def test_all_toolchains_that_are_missing_are_named_with_one_command() -> None:
    [target] = listing(["npu-ethos-u55-128"])
    assert not target.ready
    assert {tool.name: tool.installed for tool in target.toolchains} == {
        "onnx2tf": False,
        "ai-edge-quantizer": False,
        "ethos-u-vela": False,
    }
    command = "edgeml toolchain install onnx2tf ai-edge-quantizer ethos-u-vela"
    assert target.reason.endswith(command)


@pytest.mark.usefixtures("no_toolchains")
def test_what_is_missing_is_said_once_for_all_targets_that_lack_it() -> None:
    result = RUN.invoke(app, ["targets", "npu"])
    assert result.exit_code == 0
    assert result.stdout.count("edgeml toolchain install qnn") == 1
    assert "npu-qualcomm-htp-v68, npu-qualcomm-htp-v73, npu-qualcomm-htp-v79: " in result.stdout


@pytest.mark.usefixtures("no_toolchains")
def test_an_fpga_is_not_ready_without_what_makes_a_bitstream() -> None:
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")
    [target] = listing(["fpga-ecp5-85k"])
    assert not target.ready
    assert "toolchain install fpga-open (it is not needed with --until rtl)" in target.reason
    assert {tool.name for tool in target.toolchains} == {"fpga-open", "da4ml"}


def test_an_fpga_is_not_ready_without_a_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    [target] = listing(["fpga-ice40-up5k"])
    assert not target.ready
    assert "no program verilator and no program g++" in target.reason
    assert "apt-get install verilator g++" in target.reason


def test_each_target_says_how_far_a_variant_is_checked() -> None:
    body = json.loads(RUN.invoke(app, ["targets", "--json"]).stdout)
    levels = {target["name"]: target["verification"] for target in body["targets"]}
    assert levels["npu-ethos-u55-128"] == "pre-compile-executed"
    assert levels["npu-qualcomm-htp-v73"] == "artifact-executed-emulated"
    assert any(level == "artifact-executed" for level in levels.values())


def test_of_one_target_its_rules_are_shown() -> None:
    text = RUN.invoke(app, ["targets", "npu-ethos-u55-128"]).stdout
    assert "Strides above 3 need a dilation of 1 and no padding." in text
    assert "## On this machine" in text
    body = json.loads(RUN.invoke(app, ["targets", "npu-qualcomm-htp-v73", "--json"]).stdout)
    assert body["constraints"]["*"][0] == "Tensors have at most 5 axes."
    body = json.loads(RUN.invoke(app, ["targets", "fpga-amd-vitis", "--json"]).stdout)
    assert body["options"] == ["clock_mhz", "host"]


def test_a_target_that_is_not_known_is_an_error() -> None:
    with pytest.raises(TargetError, match="There is no target npu-ethos-u55"):
        listing(["npu-ethos-u55"])
