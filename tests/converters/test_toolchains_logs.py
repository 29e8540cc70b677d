"""What a toolchain writes is kept where it fails, refuses or is killed, and bounded."""

import os
import re
import tempfile
import venv
from pathlib import Path
from typing import Any

import pytest

from converters.toolchains import logs
from converters.toolchains.command import run_command
from converters.toolchains.definition import Definition
from converters.toolchains.environment import VENV
from converters.toolchains.exchange import ask
from converters.toolchains.logs import Log
from converters.toolchains.service import Service
from converters.toolchains.store import Installed
from edgeml.errors import ToolchainError, UserError

from .locked_tools import named_log

_RUNNER = """
import ctypes, time

def answer(request):
    print("from Python")
    ctypes.CDLL(None).puts(b"from C")
    time.sleep(request.get("sleep", 0))
    if request.get("fail"):
        raise ValueError("no such operator: Frobnicate")
    return {"refused": "it is too large"} if request.get("refuse") else {"done": True}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_LOGS", str(tmp_path / "logs"))
    return tmp_path / "logs"


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """One without packages."""
    folder = tmp_path_factory.mktemp("toolchain")
    venv.create(folder / VENV, symlinks=True)
    (folder / "runner.py").write_text(_RUNNER)
    definition = Definition(name="tiny", description="none", runner=str(folder / "runner.py"))
    return Installed(definition=definition, folder=folder)


def answered(toolchain: Installed, request: dict[str, Any], *, is_service: bool) -> dict[str, Any]:
    if not is_service:
        return ask(toolchain, request)
    with Service(toolchain) as service:
        return service.ask(request)


def test_of_what_succeeds_the_log_goes_to_whoever_asked_and_nothing_stays(
    toolchain: Installed, home: Path, tmp_path: Path
) -> None:
    ask(toolchain, {"number": 1}, log=tmp_path / "one.log")
    text = (tmp_path / "one.log").read_text()
    assert "from Python" in text
    assert "from C" in text
    assert '{"number":1}' in text  # what was asked for
    with Service(toolchain) as service:
        service.ask({"number": 2})
        assert b"from Python" in service.log()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("is_service", [False, True])
def test_the_error_of_what_fails_names_its_log(toolchain: Installed, *, is_service: bool) -> None:
    with pytest.raises(ToolchainError, match="Frobnicate") as failed:
        answered(toolchain, {"fail": True}, is_service=is_service)
    text = named_log(failed.value.why)
    assert "from C" in text
    assert "Traceback" in text
    assert text.endswith("It ended with exit status 1.\n")


@pytest.mark.parametrize("is_service", [False, True])
def test_a_refusal_says_where_its_log_is(toolchain: Installed, *, is_service: bool) -> None:
    reply = answered(toolchain, {"refuse": True}, is_service=is_service)
    text = named_log(reply["log"])
    assert "from Python" in text
    assert text.endswith("It refused: it is too large\n")


@pytest.mark.parametrize("is_service", [False, True])
def test_what_is_killed_at_its_timeout_leaves_what_it_had_written(
    toolchain: Installed, monkeypatch: pytest.MonkeyPatch, *, is_service: bool
) -> None:
    for seconds in ("1", "5", "25"):  # until it has come so far, however busy the machine
        monkeypatch.setenv("EDGEML_TOOLCHAIN_TIMEOUT", seconds)
        with pytest.raises(ToolchainError, match=f" in {seconds} s and was killed") as failed:
            answered(toolchain, {"sleep": 3600}, is_service=is_service)
        assert f"EDGEML_TOOLCHAIN_TIMEOUT={3 * int(seconds)}" in failed.value.fix
        text = named_log(failed.value.why)
        assert text.endswith(f" in {seconds} s and was killed.\n")
        if "from C" in text:
            break
    assert "from Python" in text
    assert "from C" in text


@pytest.mark.parametrize("said", ["soon", "0", "-3", "inf", "nan"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(
    toolchain: Installed, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("EDGEML_TOOLCHAIN_TIMEOUT", said)
    with pytest.raises(UserError, match="no number of seconds"):
        ask(toolchain, {})


def test_a_long_log_keeps_its_beginning_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_BYTES", 100)
    script = "import sys; sys.stderr.write('A' * 70 + 'b' * 1000 + 'Z' * 70); sys.exit(3)"
    with pytest.raises(ToolchainError) as failed:
        run_command(["python3", "-I", "-c", script], "It failed.", timeout_s=60)
    content = named_log(failed.value.why)
    assert content.startswith("python3 -I -c")
    assert re.search(r"\n\[\d+ bytes are left out here\]\nZ{50}", content)
    assert content.endswith("It ended with exit status 3.\n")
    assert len(content) < 250


def test_the_oldest_logs_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_LOGS", 3)
    kept = []
    for number in range(5):
        log = Log(f"number{number}")
        log.keep("It ended.")
        log.close()
        os.utime(log.path, (number, number))
        kept.append(log.path)
    assert {path for path in kept if path.exists()} == set(kept[1:])  # the newest and those before


def test_a_full_disk_under_a_log_stops_no_toolchain() -> None:
    log, full = Log("full"), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, log.fileno())
    os.close(full)
    assert run_command(["echo", "done"], "It failed.", timeout_s=60, log=log) == b"done\n"
    log.say("It is asked.")
    assert "Its log is" in log.keep("It ended.")
    log.close()


def test_where_logs_cannot_be_kept_they_go_to_the_temporary_folder(
    toolchain: Installed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEML_LOGS", str(tmp_path / "file" / "logs"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ToolchainError) as failed:
        ask(toolchain, {"fail": True})
    assert "Frobnicate" in named_log(failed.value.why)
