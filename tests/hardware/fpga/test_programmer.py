"""A bitstream goes into an FPGA, or the error says what a person has to type."""

from hashlib import sha256
from pathlib import Path

import pytest

from edgeml.errors import DeviceError
from hardware.fpga.programmer import load_by_cable, load_by_manager
from tests import needs

_BITS = b"\xff\x00Part: LFE5U\x00\xff\xff\xbd\xb3"  # how an ECP5's bitstream begins


def _kept(folder: Path) -> Path:
    return folder / f"{sha256(_BITS).hexdigest()}.bit"


def test_what_the_program_refuses_is_said_and_the_command_is_given(tmp_path: Path) -> None:
    needs.program("openFPGALoader", "openfpgaloader")
    with pytest.raises(DeviceError, match="openFPGALoader cannot load") as raised:
        load_by_cable(_BITS, "no-such-board", folder=tmp_path)
    command = f"openFPGALoader --board no-such-board {_kept(tmp_path)}"
    assert command in raised.value.fix
    assert _kept(tmp_path).read_bytes() == _BITS


def test_where_the_program_is_missing_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="There is no program openFPGALoader") as raised:
        load_by_cable(_BITS, "no-such-board", folder=tmp_path)
    assert "apt-get install openfpgaloader" in raised.value.fix
    assert f"--board no-such-board {_kept(tmp_path)}" in raised.value.fix


def test_a_bitstream_of_gowin_is_named_as_the_program_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bits = b"1111111111111111\n1010010111000011\n"  # text, its preamble first
    with pytest.raises(DeviceError) as raised:
        load_by_cable(bits, "tangnano9k", folder=tmp_path)
    file = tmp_path / f"{sha256(bits).hexdigest()}.fs"
    assert f"--board tangnano9k {file}" in raised.value.fix


def test_a_board_that_the_program_does_not_know_is_loaded_by_hand(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="names no board that openFPGALoader knows") as raised:
        load_by_cable(_BITS, "", folder=tmp_path)
    assert str(_kept(tmp_path)) in raised.value.fix


def test_data_goes_into_the_flash_behind_the_bitstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError) as raised:
        load_by_cable(b"weights", "ice40_generic", flash_offset=1 << 20, folder=tmp_path)
    file = tmp_path / f"{sha256(b'weights').hexdigest()}.bin"
    assert f"--write-flash --offset 1048576 {file}" in raised.value.fix


@pytest.mark.parametrize("state", ["operating", "write init error"])
def test_the_manager_says_whether_a_bitstream_is_loaded(tmp_path: Path, state: str) -> None:
    (tmp_path / "state").write_text(f"{state}\n")
    if state == "operating":
        load_by_manager(b"bits", tmp_path, tmp_path)
        assert (tmp_path / (tmp_path / "firmware").read_text()).read_bytes() == b"bits"
    else:
        with pytest.raises(DeviceError, match="write init error"):
            load_by_manager(b"bits", tmp_path, tmp_path)
