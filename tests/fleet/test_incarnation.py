from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.errors import TrustError
from fleet.incarnation import Head, HeadFile


def test_what_was_written_is_read_and_may_be_changed_in_part(tmp_path: Path) -> None:
    file = HeadFile(tmp_path / "head.json")
    assert file.read() is None
    file.change(epoch=7)
    assert file.read() is None
    file.write(Head(incarnation="a"))
    file.change(epoch=7)
    assert file.read() == Head(incarnation="a", epoch=7)
    assert (tmp_path / "head.json").stat().st_mode & 0o777 == 0o600


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=60))
def test_a_damaged_file_is_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("head") / "head.json"
    path.write_bytes(data)
    with pytest.raises(TrustError, match="is damaged"):
        HeadFile(path).read()
