"""A toolchain's process that is started once and answers one request after the other."""

import os
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.toolchains.definition import Definition
from converters.toolchains.environment import VENV
from converters.toolchains.service import Service
from converters.toolchains.store import Installed
from edgeml.errors import ToolchainError

_RUNNER = """
import os, time

prepared = []

def prepare():
    prepared.append("once")

def answer(request):
    print("a library's chatter")
    if request.get("fail"):
        raise ValueError("no such operator: Frobnicate")
    if request.get("list"):
        return [1]
    time.sleep(request.get("sleep", 0))
    return {"twice": 2 * request.get("number", 0), "pid": os.getpid(), "prepared": len(prepared)}
"""


@pytest.fixture
def toolchain(tmp_path: Path) -> Installed:
    """One without packages."""
    venv.create(tmp_path / VENV, symlinks=True)
    (tmp_path / "runner.py").write_text(_RUNNER)
    definition = Definition(
        name="tiny", description="no package", runner=str(tmp_path / "runner.py")
    )
    return Installed(definition=definition, folder=tmp_path)


@pytest.fixture
def service(toolchain: Installed) -> Iterator[Service]:
    with Service(toolchain) as started:
        yield started


def test_one_process_answers_request_after_request(service: Service) -> None:
    replies = [service.ask({"number": number}) for number in range(3)]
    assert [reply["twice"] for reply in replies] == [0, 2, 4]
    assert len({reply["pid"] for reply in replies}) == 1


def test_an_empty_request_prepares_and_nobody_waits_for_its_reply(service: Service) -> None:
    service.begin({})
    assert service.ask({"number": 4})["prepared"] == 1
    service.begin({})
    service.settle()
    service.settle()
    assert service.ask({"number": 5}) == service.ask({"number": 5})


def test_settling_leaves_the_reply_that_somebody_waits_for(service: Service) -> None:
    service.begin({})
    service.begin({"number": 3})
    service.settle()
    assert service.reply()["twice"] == 6


def test_a_runner_that_fails_is_told_with_its_last_words(service: Service) -> None:
    with pytest.raises(ToolchainError, match="no such operator: Frobnicate") as caught:
        service.ask({"fail": True})
    assert "exit status 1" in caught.value.why
    assert "edgeml toolchain doctor tiny" in caught.value.fix
    with pytest.raises(ToolchainError, match="tiny failed"):
        service.ask({"number": 1})


def test_a_runner_that_hangs_is_not_waited_for(toolchain: Installed) -> None:
    with (
        Service(toolchain, timeout_s=0.5) as service,
        pytest.raises(ToolchainError, match=r"no answer in 0\.5 s"),
    ):
        service.ask({"sleep": 600})


def test_a_reply_that_is_no_object_is_refused(service: Service) -> None:
    with pytest.raises(ToolchainError, match="gave no answer"):
        service.ask({"list": True})


def test_its_end_is_the_end_of_its_process(toolchain: Installed) -> None:
    with Service(toolchain) as service:
        pid = service.ask({"number": 1})["pid"]
        service.begin({"sleep": 600})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_cannot_be_started_is_a_sentence(toolchain: Installed, tmp_path: Path) -> None:
    (tmp_path / VENV / "bin" / "python").unlink()
    with pytest.raises(ToolchainError, match="cannot be started"):
        Service(toolchain)
