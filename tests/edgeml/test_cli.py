"""The front door: errors are sentences with the right exit code, help teaches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgeml
from edgeml.cli import run
from edgeml.errors import (
    DeviceError,
    EdgemlError,
    ExitCode,
    GateFailed,
    ModelError,
    ReleaseError,
    RemoteError,
    TargetError,
    ToolchainError,
    TrustError,
    UserError,
    exit_code_of,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), 2),
        (TargetError("x"), 2),
        (GateFailed("x"), 3),
        (GateFailed("x", undecided=True), 4),
        (ToolchainError("x"), 5),
        (ModelError("x"), 6),
        (ReleaseError("x"), 6),
        (TrustError("x"), 7),
        (RemoteError("x"), 8),
        (DeviceError("x"), 9),
    ],
)
def test_each_error_has_its_exit_code(error: EdgemlError, code: int) -> None:
    assert exit_code_of(error) == code


def test_an_error_says_what_why_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "run", "--config", "/no/such/agent.toml"]) == ExitCode.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: There is no /no/such/agent.toml")
    assert lines[-1].startswith("  fix: Enrol it: edgeml agent enroll")


def test_with_json_an_error_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["agent", "status", "--config", "/no/such/agent.toml", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == code == ExitCode.USAGE
    assert error["fix"]


def test_a_fleet_that_is_not_there_is_a_remote_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = run(["devices", "list", "--fleet", "http://127.0.0.1:9", "--token", "x"])
    assert code == ExitCode.REMOTE
    assert "edgeml fleet up" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["convert"],
        ["inspect"],
        ["demo"],
        ["agent", "enroll"],
        ["agent", "run"],
        ["fleet", "up"],
        ["fleet", "enroll"],
        ["releases", "push"],
        ["rollout", "create"],
        ["rollout", "explain"],
        ["devices", "configure"],
    ],
)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    assert "Usage: edgeml" in capsys.readouterr().out


def test_an_unknown_option_is_a_usage_error() -> None:
    assert run(["convert", "--no-such-option"]) == ExitCode.USAGE


def test_importing_edgeml_imports_nothing_else() -> None:
    code = (
        "import sys, typing, importlib; before = set(sys.modules); import edgeml; "
        "print([m for m in set(sys.modules) - before if m != 'edgeml'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_loads_no_heavy_package_for_its_help() -> None:
    code = (
        "import sys; import edgeml.cli; "
        "print([m for m in ('onnxruntime', 'cv2', 'fastapi', 'sqlalchemy', 'nicegui', 'onnx')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_loaded() -> None:
    for name in edgeml.__all__:
        assert getattr(edgeml, name) is not None
    with pytest.raises(AttributeError):
        edgeml.nothing_such  # noqa: B018
