"""The runtime `fpga` is there where somebody said what leads to an FPGA, and nowhere else."""

from pathlib import Path

import pytest

from edgeml.errors import DeviceError, ModelError, TargetError
from hardware.fpga.artifact import MAGIC
from hardware.fpga.board import find
from hardware.fpga.mapped import MappedTransport
from hardware.fpga.programmer import load_by_manager
from hardware.probes.accelerators import accelerators
from hardware.runtimes import open_session
from hardware.runtimes.formats import FPGA, format_of
from hardware.runtimes.fpga import FpgaRuntime
from hardware.runtimes.interface import SessionOptions


def test_nothing_is_offered_where_nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEML_FPGA", raising=False)
    assert FpgaRuntime().info() is None
    with pytest.raises(DeviceError, match="EDGEML_FPGA does not name the way"):
        open_session("fpga", Path("any.fpga"))


def test_a_device_says_its_way_and_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_FPGA", "serial:/dev/ttyUSB0")
    monkeypatch.setenv("EDGEML_FPGA_PART", "LFE5U-25F")
    info = FpgaRuntime().info()
    assert info is not None
    assert info.providers == ("serial:/dev/ttyUSB0",)
    found = [a for a in accelerators() if a.driver == "serial:/dev/ttyUSB0"]
    assert [(a.kind, a.part) for a in found] == [("fpga", "LFE5U-25F")]


def test_a_file_is_known_by_its_first_bytes_and_refused_when_damaged(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(MAGIC + b"\xc1damaged")
    assert format_of(path) == FPGA
    with pytest.raises(ModelError, match="is damaged"):
        FpgaRuntime().load(path, SessionOptions(provider="simulated FPGA"))


def test_a_bus_that_cannot_be_mapped_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be mapped"):
        MappedTransport(str(tmp_path / "uio0"))


@pytest.mark.parametrize("state", ["operating", "write init error"])
def test_the_manager_says_whether_a_bitstream_is_loaded(tmp_path: Path, state: str) -> None:
    (tmp_path / "state").write_text(f"{state}\n")
    if state == "operating":
        load_by_manager(b"bits", tmp_path, tmp_path)
        assert (tmp_path / (tmp_path / "firmware").read_text()).read_bytes() == b"bits"
    else:
        with pytest.raises(DeviceError, match="write init error"):
            load_by_manager(b"bits", tmp_path, tmp_path)


def test_a_board_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("name = 'own'")
    with pytest.raises(TargetError, match="does not describe a board"):
        find(str(path))
    with pytest.raises(TargetError, match="There is no board other"):
        find("other")
