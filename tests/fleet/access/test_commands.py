"""`edgeml login`, `users`, `tokens` and `audit`, as typed."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeml.cli import run as edgeml
from edgeml.errors import UserError
from fleet import logins
from fleet.commands.connection import connect, show
from tests.fleet.conftest import Listening

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder of their own, without a data folder of a fleet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("EDGEML_TOKEN", "EDGEML_FLEET_DATA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(
    shared_fleet: Listening, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command with --json and returns what it prints; with `code`, that it fails so."""
    monkeypatch.setenv("EDGEML_FLEET", shared_fleet.operators)

    def typed(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert edgeml([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return typed


def as_owner(shared_fleet: Listening) -> tuple[str, str]:
    return "--token", shared_fleet.services.keys.operator_token


def password(home: Path, text: str) -> str:
    path = home / f"{text[:4]}.txt"
    path.write_text(f"{text}\n")
    return str(path)


def test_a_user_logs_in_works_and_logs_out(run: Run, shared_fleet: Listening, home: Path) -> None:
    owner = as_owner(shared_fleet)
    made = run("users", "add", "dora", "--role", "operator", "--scope", "site=north", *owner)
    first, second = password(home, made["password"]), password(home, "and other four words")
    log_in = ("login", "--user", "dora", "--password-file")
    assert run(*log_in, first, "--new-password-file", second)["role"] == "operator"
    assert stat.S_IMODE(logins.path().stat().st_mode) == 0o600
    assert run("whoami") | {"expires_at": None} == {
        "actor": "dora",
        "user": "dora",
        "role": "operator",
        "scope": "site=north",
        "kind": "session",
        "expires_at": None,
        "must_change_password": False,
    }
    assert run("devices", "list") == []
    refused = run("users", "list", code=7)["error"]
    assert "you are operator" in refused["why"].lower()
    token = run("tokens", "create", "ci", "--role", "viewer", "--days", "1")
    assert run("whoami", "--token", token["token"])["actor"] == "dora/ci"
    assert [one["name"] for one in run("tokens", "list")] == ["ci"]
    assert run("tokens", "revoke", token["id"])["revoked_at"]
    assert run("whoami", "--token", token["token"], code=7)["error"]["fix"].startswith("Log in")
    assert run("logout") == {"user": "dora"}
    assert "not logged in" in run("whoami", code=2)["error"]["what"]
    run("login", "--user", "dora", "--password-file", first, code=7)


def test_an_admin_looks_after_users(run: Run, shared_fleet: Listening, home: Path) -> None:
    owner = as_owner(shared_fleet)
    given = password(home, "four words of nobody")
    assert run("users", "add", "emil", "--password-file", given, *owner)["password"] == ""
    assert run("users", "set-role", "emil", "approver", *owner)["role"] == "approver"
    assert run("users", "set-scope", "emil", "site=south", *owner)["scope"] == "site=south"
    assert run("users", "passwd", "emil", "--why", "forgotten", *owner)["password"]
    assert run("users", "disable", "emil", *owner)["disabled_at"]
    assert run("users", "enable", "emil", *owner)["disabled_at"] is None
    assert "emil" in {user["name"] for user in run("users", "list", *owner)}
    [entry] = [e for e in run("audit", "list", *owner) if e["reason"] == "forgotten"]
    assert (entry["actor"], entry["action"], entry["subject"]) == (
        "operator",
        "user.password",
        "emil",
    )
    assert run("audit", "verify", *owner)["entries"] > 6


def test_the_audit_log_is_listed_by_who(run: Run, shared_fleet: Listening) -> None:
    owner = as_owner(shared_fleet)
    run("users", "add", "finn", *owner)
    found = run("audit", "list", "--who", "operator", "--limit", "1", *owner)
    assert [(e["action"], e["subject"]) for e in found] == [("user.create", "finn")]
    assert run("audit", "list", "--who", "nobody", *owner) == []


def test_people_read_sentences(
    shared_fleet: Listening, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_FLEET", shared_fleet.operators)
    monkeypatch.setenv("EDGEML_TOKEN", shared_fleet.services.keys.operator_token)
    for words, said in (
        (("users", "add", "gina"), "not shown again"),
        (("users", "list"), "must change the password"),
        (("tokens", "create", "paper"), "edgeml_"),
        (("tokens", "list"), "operator/paper"),
        (("audit", "list"), "user.create"),
        (("audit", "verify"), "The audit log holds"),
        (("whoami",), "operator, admin, sees the whole fleet"),
    ):
        assert edgeml(list(words)) == 0
        assert said in capsys.readouterr().out


def test_a_login_without_a_terminal_wants_files(run: Run) -> None:
    assert "--password-file" in run("login", "--user", "x", code=2)["error"]["fix"]


def test_a_damaged_file_of_logins_is_no_login(home: Path) -> None:
    logins.path().parent.mkdir(parents=True)
    for text in ("", "[]", '{"http://a": 1}', '{"http://a": {"token": "t"}}', "\0"):
        logins.path().write_text(text)
        assert logins.find("http://a") is None


def test_a_login_that_is_over_is_forgotten(home: Path) -> None:
    logins.save("http://a/", {"token": "t", "user": "x", "expires_at": 1.0})
    logins.save("http://b", {"token": "t", "user": "x", "expires_at": 9e9})
    assert logins.find("http://a") is None
    assert logins.find("http://b/") is not None
    logins.save("http://b", None)
    assert json.loads(logins.path().read_text()) == {}


def test_the_owners_token_is_sent_to_no_other_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "fleet"
    folder.mkdir()
    (folder / "operator.token").write_text("the key of the house")
    monkeypatch.setattr("fleet.commands.connection.DATA", folder)
    with pytest.raises(UserError, match="not logged in at"):
        connect("https://elsewhere.example", "", folder)
    connect("http://127.0.0.1:8080", "", folder).close()


def test_what_others_wrote_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show({}, "cam-1  refused: \x1b[1A\x1b[2Kcam-1  fine\u202e\n\ttwo", as_json=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert printed.endswith("\n\ttwo\n")
