"""The journal: whole or not at all, and readable whatever the disk did."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.update.journal import DeviceState, Journal, read_state
from edgeml.errors import DeviceError


def test_before_the_first_write_there_is_an_empty_state(tmp_path: Path) -> None:
    assert Journal(tmp_path / "state.json").state == DeviceState()


def test_what_was_written_is_what_the_next_start_reads(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    Journal(path).write(DeviceState(epoch=1, counter=7))
    assert Journal(path).state == DeviceState(epoch=1, counter=7)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_state_before(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    journal = Journal(folder / "state.json")
    journal.write(DeviceState(counter=1))
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DeviceError, match="cannot be written"):
        journal.write(DeviceState(counter=2))
    assert journal.state.counter == 1
    assert read_state(tmp_path / "elsewhere" / "state.json").counter == 1


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".state.json.x1y2").write_text("{half")
    Journal(tmp_path / "state.json")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    journal = Journal(path)
    for counter in (1, 2):
        journal.write(DeviceState(counter=counter))
    path.write_bytes(path.read_bytes()[:20])
    assert Journal(path).state.counter == 1


@given(data=st.binary(max_size=200), old=st.binary(max_size=200))
def test_no_bytes_on_the_disk_end_in_anything_but_a_state_or_a_sentence(
    data: bytes, old: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "state.json"
    path.write_bytes(data)
    path.with_name("state.json.old").write_bytes(old)
    try:
        state = read_state(path)
    except DeviceError:
        return
    assert msgspec.json.decode(msgspec.json.encode(state), type=DeviceState) == state
