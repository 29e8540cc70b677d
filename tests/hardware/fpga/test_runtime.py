"""The runtime `fpga` is there where somebody said what leads to an FPGA, and nowhere else."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError, ModelError, TargetError
from hardware.fpga import registers as at
from hardware.fpga.artifact import MAGIC
from hardware.fpga.board import boards, find
from hardware.fpga.litex import add_engine
from hardware.fpga.mapped import BYTES, MappedTransport
from hardware.fpga.way import open_way
from hardware.probes import probe
from hardware.probes.accelerators import accelerators
from hardware.runtimes import open_session
from hardware.runtimes.formats import FPGA, format_of
from hardware.runtimes.fpga import FpgaRuntime
from hardware.runtimes.interface import SessionOptions
from tests.hardware.fpga.networks import SIZE


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


@pytest.mark.parametrize(
    ("way", "end"),
    [("serial:/dev/ttyUSB0", "c-LFE5U-25F"), ("simulated FPGA", "c-LFE5U-25F-simulated")],
)
def test_an_fpga_and_a_simulated_one_are_hardware_classes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, way: str, end: str
) -> None:
    monkeypatch.setenv("EDGEML_FPGA", way)
    monkeypatch.setenv("EDGEML_FPGA_PART", "LFE5U-25F")
    assert probe().hardware_class.endswith(end)


def test_a_file_is_known_by_its_first_bytes_and_refused_when_damaged(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(MAGIC + b"\xc1damaged")
    assert format_of(path) == FPGA
    with pytest.raises(ModelError, match="is damaged"):
        FpgaRuntime().load(path, SessionOptions(provider="simulated FPGA"))


def test_a_bus_that_cannot_be_mapped_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be mapped"):
        MappedTransport(str(tmp_path / "uio0"))


def test_a_file_that_is_no_spi_device_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "spidev0.0").touch()
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_way(f"spi:{tmp_path / 'spidev0.0'}")


def test_a_mapped_bus_is_accessed_by_words(tmp_path: Path) -> None:
    path = tmp_path / "uio0"
    path.write_bytes(bytes(BYTES))
    bus = open_way(f"uio:{path}")
    bus.write(at.ACTIVATIONS, np.array([0x11223344, 5], np.uint32))
    assert bus.read(at.ACTIVATIONS, 2).tolist() == [0x11223344, 5]
    bus.close()
    assert path.read_bytes()[4 * at.ACTIVATIONS :][:4] == bytes.fromhex("44332211")


def test_a_boards_flash_has_four_pins_of_its_own() -> None:
    with_flash = [board for board in boards().values() if board.flash]
    assert with_flash
    for board in with_flash:
        assert set(board.flash) == {"sck", "cs_n", "mosi", "miso"}
        assert not set(board.flash.values()) & set(board.pins.values())


def test_an_engine_is_added_where_litex_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "migen", None)  # as where it is not installed
    with pytest.raises(DeviceError, match="cannot be added to a LiteX SoC here"):
        add_engine(object(), SIZE, origin=0x30000000)


def test_a_board_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("name = 'own'")
    with pytest.raises(TargetError, match="does not describe a board"):
        find(str(path))
    with pytest.raises(TargetError, match="There is no board other"):
        find("other")
