import datetime as dt
from pathlib import Path

import pytest

from edgeml.errors import TrustError, UserError
from fleet.keys import load_or_create

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_secrets_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    first, again = load_or_create(tmp_path, NOW), load_or_create(tmp_path, NOW)
    assert first.director_id == again.director_id
    assert (first.ca, first.operator_token) == (again.ca, again.operator_token)
    assert (first.challenge_secret, first.session_secret) == (
        again.challenge_secret,
        again.session_secret,
    )
    secrets = [tmp_path / "operator.token", *(tmp_path / "keys").iterdir()]
    private = [path for path in secrets if path.suffix != ".pem"]
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["operator.token", "keys/director.key", "keys/challenge.secret"])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    load_or_create(tmp_path, NOW)
    (tmp_path / name).chmod(0o644)
    with pytest.raises(TrustError, match="can be read by others"):
        load_or_create(tmp_path, NOW)


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    load_or_create(tmp_path, NOW)
    (tmp_path / "operator.token").write_text("")
    with pytest.raises(TrustError, match="is empty"):
        load_or_create(tmp_path, NOW)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        load_or_create(tmp_path / "file" / "data", NOW)


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    keys = load_or_create(tmp_path, NOW)
    assert keys.operator_token not in repr(keys)
