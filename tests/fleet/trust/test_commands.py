"""`edgeml trust` as it is typed: keys in separate folders, signatures over USB sticks."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeml.cli import app
from edgeml.errors import EdgemlError, TrustError, UserError
from fleet.trust import changes
from fleet.trust.changes import RoleKeys

Run = Callable[..., str]


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    """Run a command where the fleet can be reached; returns what it printed."""

    def make(*arguments: object, stdin: str = "", **environment: str) -> str:
        env = {
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_FLEET_DATA": str(tmp_path / "fleet"),
            **environment,
        }
        done = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, env=env)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return make


@pytest.fixture
def away() -> Run:
    """Run a command in a process of its own, with no fleet, no network and no server installed."""

    def make(*arguments: object, stdin: str = "", **environment: str) -> str:
        code = (
            "import sys\n"
            "for name in ('httpx', 'fastapi', 'sqlalchemy', 'starlette', 'nicegui',"
            " 'socketserver'):\n"
            "    sys.modules[name] = None\n"
            "from fleet.commands.trust import trust_app\n"
            "trust_app()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *(str(a) for a in arguments)],
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            env={**os.environ, "EDGEML_FLEET": "http://127.0.0.1:1", **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return make


@pytest.fixture
def owners(tmp_path: Path, run: Run) -> dict[str, Path]:
    """Three people, each with a key in a folder of his own."""
    keys = {name: tmp_path / f"home-{name}" / f"{name}.key" for name in ("alice", "bob", "carol")}
    for key in keys.values():
        run("trust", "make-key", key)
    return keys


def public(key: Path) -> Path:
    return key.with_suffix(".pub")


def test_root_and_targets_go_offline_over_usb_sticks(
    fleet: Any,
    run: Run,
    away: Run,
    owners: dict[str, Path],
    tmp_path: Path,
    release_folder: Path,
    kit: Any,
) -> None:
    alice, bob, carol = owners.values()
    run("trust", "init")
    assert "not for production" in run("trust", "show")
    run("releases", "push", release_folder)
    both = ("--to", public(alice), "--to", public(bob), "--threshold", "2")
    waiting = run("trust", "rotate", "root", *both, "--why", "production")
    assert "waits: root v2, 2 signature(s) missing; may sign: alice" in waiting
    run("trust", "rotate", "targets", "--to", public(carol))

    stick = tmp_path / "stick"
    assert "root, targets wait" in run("trust", "export", stick)
    stick_of = {}
    for name in owners:
        stick_of[name] = tmp_path / f"stick-{name}"
        shutil.copytree(stick, stick_of[name])
    assert not [path for path in stick.rglob("*") if "PRIVATE" in _text(path)]

    shown = away("sign", stick_of["alice"], "--key", alice, stdin="y\n")
    assert "root is signed by 2 of alice" in shown
    assert "all of it is listed" in shown
    assert "root is signed; 1 more must sign" in shown
    away("sign", stick_of["bob"], "--key", bob, "--yes")
    shown = away("sign", stick_of["carol"], "--key", carol, "--yes")
    assert "digits:1.0.0 is sha256:" in shown

    assert "waits: root v2, 1 signature(s) missing" in run("trust", "publish", stick_of["alice"])
    run("trust", "publish", stick_of["carol"])
    assert "keys that the fleet does not hold" in run("trust", "publish", stick_of["bob"])
    assert json.loads(run("trust", "show", "--json"))["waiting"] == []

    # From now on a release waits for carol, who is shown what is new since she last signed.
    kit.write_release(tmp_path / "two", "2.0.0", b"better")
    run("releases", "push", tmp_path / "two")
    with pytest.raises(TrustError, match="Nobody who may sign it has"):
        fleet.client.create_rollout("digits", "2.0.0")
    run("trust", "export", tmp_path / "second")
    shown = away("sign", tmp_path / "second", "--key", carol, "--yes")
    assert "which this key signed" in shown
    assert "+ digits:2.0.0 is sha256:" in shown
    assert "digits:1.0.0" not in shown
    run("trust", "publish", tmp_path / "second", "--why", "2.0.0 is good")
    fleet.client.create_rollout("digits", "2.0.0")
    entries = fleet.client.audit()
    assert ("trust.sign", "targets", "2.0.0 is good") in [
        (entry["action"], entry["subject"], entry["reason"]) for entry in entries
    ]


def test_signing_in_turn_in_one_folder(
    run: Run, away: Run, owners: dict[str, Path], tmp_path: Path
) -> None:
    alice, bob, carol = owners.values()
    run(
        "trust", "init", "--root", public(alice), "--root", public(bob), "--root-threshold", "2",
        "--targets", public(carol),
    )  # fmt: skip
    assert "not signed yet" in run("trust", "show")
    run("trust", "export", tmp_path / "stick")
    for key in (alice, bob, carol):
        away("sign", tmp_path / "stick", "--key", key, "--yes")
    assert "signed all of it before" in away("sign", tmp_path / "stick", "--key", bob, "--yes")
    told = json.loads(run("trust", "publish", tmp_path / "stick", "--json"))
    assert (told["state"], told["waiting"]) == ("offline", [])


def test_a_team_signs_its_own_models(
    run: Run, away: Run, owners: dict[str, Path], tmp_path: Path, release_folder: Path
) -> None:
    alice, *_ = owners.values()
    run("trust", "init")
    shown = run("trust", "delegate", "vision", "--model", "digits", "--to", public(alice))
    assert "vision v1, 1 signature(s) missing" in shown
    run("trust", "export", tmp_path / "one")
    away("sign", tmp_path / "one", "--key", alice, "--yes")
    assert "signs digits" in run("trust", "publish", tmp_path / "one")
    assert "waits for signatures" in run("releases", "push", release_folder)
    run("trust", "export", tmp_path / "two")
    away("sign", tmp_path / "two", "--key", alice, "--yes")
    run("trust", "publish", tmp_path / "two")
    assert "signed" in run("releases", "list")


def test_whoever_pushes_with_the_key_signs_what_was_pushed(
    fleet: Any, run: Run, owners: dict[str, Path], tmp_path: Path, release_folder: Path, kit: Any
) -> None:
    alice, bob, _ = owners.values()
    run("trust", "init", "--targets", public(alice))
    push = ("releases", "push", release_folder, "--sign-key", alice)
    # Never signed by this key before, all that it says is shown, and asked about.
    run(*push, stdin="n\n")
    assert fleet.client.trust()["state"] == "waiting"
    run(*push, stdin="y\n")
    assert fleet.client.release("digits", "1.0.0")["trust"] == "signed"
    kit.write_release(tmp_path / "two", "2.0.0", b"better")
    assert "signed" in run("releases", "push", tmp_path / "two", "--sign-key", alice)
    fleet.client.create_rollout("digits", "2.0.0")
    # What somebody else had staged is not signed along with it unseen.
    changes.add_release(fleet.services.trust, "digits/6.6.6", "sha256:" + "e" * 64, 5)
    kit.write_release(tmp_path / "three", "3.0.0", b"best")
    run("releases", "push", tmp_path / "three", "--sign-key", alice, stdin="n\n")
    assert fleet.client.release("digits", "3.0.0")["trust"] == "waits for signatures"
    with pytest.raises(TrustError, match="signs nothing"):
        run("releases", "push", tmp_path / "three", "--sign-key", bob)


def test_a_key_can_be_locked(away: Run, run: Run, tmp_path: Path) -> None:
    key = tmp_path / "dora.key"
    away("make-key", key, "--passphrase", EDGEML_TRUST_PASSPHRASE="a long one")
    assert "ENCRYPTED" in key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    run("trust", "init", "--targets", public(key))
    run("trust", "export", tmp_path / "stick")
    with pytest.raises(TrustError, match=r"cannot be opened"):
        run("trust", "sign", tmp_path / "stick", "--key", key, EDGEML_TRUST_PASSPHRASE="wrong")
    run(
        "trust", "sign", tmp_path / "stick", "--key", key, "--yes",
        EDGEML_TRUST_PASSPHRASE="a long one",
    )  # fmt: skip


def test_who_says_no_signs_nothing(run: Run, owners: dict[str, Path], tmp_path: Path) -> None:
    alice, *_ = owners.values()
    run("trust", "init", "--targets", public(alice))
    run("trust", "export", tmp_path / "stick")
    before = (tmp_path / "stick" / "staged" / "targets.json").read_bytes()
    shown = run("trust", "sign", tmp_path / "stick", "--key", alice, stdin="n\n")
    assert "Nothing was signed." in shown
    assert (tmp_path / "stick" / "staged" / "targets.json").read_bytes() == before


def test_what_was_changed_on_the_stick_is_not_taken(
    run: Run, owners: dict[str, Path], tmp_path: Path
) -> None:
    alice, *_ = owners.values()
    run("trust", "init", "--targets", public(alice))
    run("trust", "export", tmp_path / "stick")
    staged = tmp_path / "stick" / "staged" / "targets.json"
    document = json.loads(staged.read_bytes())
    evil = {"length": 1, "hashes": {"sha256": "e" * 64}}
    document["signed"]["targets"]["digits/9.9.9"] = evil
    staged.write_text(json.dumps(document))
    run("trust", "sign", tmp_path / "stick", "--key", alice, "--yes")
    with pytest.raises(TrustError, match="export it and sign it again"):
        run("trust", "publish", tmp_path / "stick")


def test_mistakes_are_explained(
    run: Run, owners: dict[str, Path], tmp_path: Path, fleet: Any
) -> None:
    alice, bob, _ = owners.values()
    with pytest.raises(TrustError, match="edgeml trust init"):
        run("trust", "export", tmp_path / "stick")
    run("trust", "init")
    with pytest.raises(UserError, match="Nothing waits"):
        run("trust", "export", tmp_path / "stick")
    with pytest.raises(TrustError, match=r"Give its public half: .*alice\.pub"):
        run("trust", "rotate", "root", "--to", alice)
    with pytest.raises(UserError, match="already"):
        run("trust", "make-key", alice)
    fleet.client.trust_rotate("root", RoleKeys(keys={"alice": public(alice).read_text()}))
    run("trust", "export", tmp_path / "stick")
    with pytest.raises(UserError, match="not empty"):
        run("trust", "export", tmp_path / "stick")
    with pytest.raises(TrustError, match="signs nothing of what waits here"):
        run("trust", "sign", tmp_path / "stick", "--key", bob)
    with pytest.raises(UserError, match="nothing to sign"):
        run("trust", "sign", tmp_path, "--key", bob)
    (tmp_path / "stick" / "staged" / "root.json").write_text("{")
    with pytest.raises(TrustError, match="Export it again"):
        run("trust", "sign", tmp_path / "stick", "--key", alice)
    alice.chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        run("trust", "sign", tmp_path / "stick", "--key", alice)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
