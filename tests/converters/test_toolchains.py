"""Toolchains come and go whole, say what is wrong with them, and answer requests."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.toolchains import store
from converters.toolchains.cli import app
from converters.toolchains.definition import Definition, Otherwise, definitions, find
from converters.toolchains.doctor import examine
from converters.toolchains.exchange import ask
from converters.toolchains.interpreters import find_python
from edgeml.errors import ToolchainError

from .locked_tools import named_log

ROOT = Path(__file__).resolve().parents[2]
RUNNER = """
import sys, time, six
def answer(request):
    print("a library's chatter")
    if request.get("fail"):
        raise ValueError("no such operator: Frobnicate")
    if request.get("sleep"):
        time.sleep(request["sleep"])
    if request.get("list"):
        return [1]
    return {"twice": request["number"] * 2, "six": six.__version__, "path": sys.path}
def check():
    return {"one": six.text_type(1)}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_TOOLCHAINS", str(tmp_path / "toolchains"))
    return tmp_path / "toolchains"


def tiny(folder: Path, **changes: object) -> Definition:
    runner = folder / "runner.py"
    runner.write_text(RUNNER)
    fields = {
        "name": "tiny",
        "description": "one small package",
        "python": ">=3.11",
        "packages": ("six==1.17.0",),
        "runner": str(runner),
    }
    return Definition(**(fields | changes))


@pytest.fixture
def definition(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Definition:
    made = tiny(tmp_path)
    monkeypatch.setitem(definitions(), "tiny", made)
    return made


@pytest.fixture(scope="module")
def installed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of toolchains that holds the tiny one, made once."""
    folder = tmp_path_factory.mktemp("toolchains")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_TOOLCHAINS", str(folder))
        patch.setitem(definitions(), "tiny", tiny(folder))
        store.install("tiny")
    return folder


@pytest.fixture
def toolchain(installed_once: Path, monkeypatch: pytest.MonkeyPatch) -> store.Installed:
    monkeypatch.setenv("EDGEML_TOOLCHAINS", str(installed_once))
    monkeypatch.setitem(definitions(), "tiny", tiny(installed_once))
    return store.require("tiny")


def test_a_toolchain_answers_with_its_own_packages_alone(toolchain: store.Installed) -> None:
    reply = ask(toolchain, {"number": 21})
    assert reply["twice"] == 42
    assert reply["six"] == "1.17.0"
    own = str(toolchain.folder)
    assert [p for p in reply["path"] if "site-packages" in p and not p.startswith(own)] == []


def test_a_runner_that_fails_is_told_with_its_last_words(toolchain: store.Installed) -> None:
    with pytest.raises(ToolchainError, match="no such operator: Frobnicate") as caught:
        ask(toolchain, {"fail": True})
    assert "exit status 1" in caught.value.why
    assert "edgeml toolchain doctor tiny" in caught.value.fix


def test_a_runner_that_hangs_is_stopped(toolchain: store.Installed) -> None:
    begun = time.monotonic()
    with pytest.raises(ToolchainError, match=r"did not come to an end in 1 s"):
        ask(toolchain, {"sleep": 60}, timeout_s=1)
    assert time.monotonic() - begun < 10


def test_a_reply_that_is_no_object_is_refused(toolchain: store.Installed) -> None:
    with pytest.raises(ToolchainError, match="gave no answer"):
        ask(toolchain, {"list": True})


def test_a_whole_toolchain_is_healthy_and_installed_once(toolchain: store.Installed) -> None:
    assert examine("tiny").checked == {"one": "1"}
    assert examine("tiny").healthy
    before = toolchain.folder.stat().st_mtime_ns
    assert store.install("tiny").folder.stat().st_mtime_ns == before


def test_the_doctor_names_a_changed_and_a_missing_file(definition: Definition) -> None:
    folder = store.install("tiny").folder
    (module,) = folder.glob("venv/lib/*/site-packages/six.py")
    module.write_text(module.read_text() + "\n")
    (metadata,) = folder.glob("venv/lib/*/site-packages/six-*/METADATA")
    metadata.unlink()
    diagnosis = examine("tiny")
    assert not diagnosis.healthy
    assert any(re.search(r"six\.py is not what was installed", p) for p in diagnosis.problems)
    assert any(re.search(r"METADATA is missing", p) for p in diagnosis.problems)


def test_the_doctor_tells_what_an_interpreter_without_its_package_said(
    definition: Definition,
) -> None:
    (module,) = store.install("tiny").folder.glob("venv/lib/*/site-packages/six.py")
    module.unlink()
    assert any("No module named 'six'" in problem for problem in examine("tiny").problems)


def test_a_damaged_record_is_told_with_its_remedy(definition: Definition) -> None:
    folder = store.install("tiny").folder
    (folder / "toolchain.json").write_text("{")
    (problem,) = examine("tiny").problems
    assert "toolchain.json cannot be read" in problem
    assert "edgeml toolchain remove tiny" in problem
    (row,) = (row for row in store.listing() if row.name == "tiny")
    assert row.installed
    assert row.bytes == 0


def test_an_installation_that_is_killed_leaves_nothing_that_counts(
    definition: Definition, home: Path, tmp_path: Path
) -> None:
    program = textwrap.dedent(f"""
        from converters.toolchains import store
        from converters.toolchains.definition import Definition, definitions
        definitions()["tiny"] = Definition(
            name="tiny", description="one small package", python=">=3.11",
            packages=("six==1.17.0",), runner={definition.runner!r})
        store.install("tiny", print)
    """)
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not list(home.glob("tiny/.making-*/venv/pyvenv.cfg")):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.005)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert store.installed("tiny") is None
    assert not examine("tiny").installed
    assert list(home.glob("tiny/.making-*"))
    store.install("tiny")
    assert examine("tiny").healthy
    assert not list(home.glob("tiny/.making-*"))


def test_a_package_that_does_not_exist_leaves_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = tiny(tmp_path, packages=("six==0.0.1",))
    monkeypatch.setitem(definitions(), "tiny", lacking)
    with pytest.raises(ToolchainError, match=r"six==0\.0\.1") as caught:
        store.install("tiny")
    assert "six==0.0.1" in named_log(caught.value.why)
    assert [entry.name for entry in (home / "tiny").iterdir()] == [".lock"]


def test_what_is_not_found_is_installed_otherwise_after_a_word_about_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Otherwise(
        instead_of="six==0.0.1", packages=("six==1.17.0",), says="It is larger: 11 kB."
    )
    lacking = tiny(tmp_path, packages=("six==0.0.1",), otherwise=other)
    monkeypatch.setitem(definitions(), "tiny", lacking)
    said: list[str] = []
    made = store.install("tiny", said.append)
    assert said[-1] == "six==0.0.1 is not found. It is larger: 11 kB."
    assert made.manifest().packages == ("six==1.17.0",)
    assert ask(made, {"number": 1})["six"] == "1.17.0"


def test_what_else_is_not_found_is_said_and_nothing_is_installed_otherwise(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Otherwise(instead_of="six==1.17.0", packages=("six==1.16.0",), says="It is larger.")
    lacking = tiny(tmp_path, packages=("six==1.17.0", "idna==0.0.1"), otherwise=other)
    monkeypatch.setitem(definitions(), "tiny", lacking)
    said: list[str] = []
    with pytest.raises(ToolchainError, match=r"idna==0\.0\.1"):
        store.install("tiny", said.append)
    assert not any("larger" in each for each in said)


def test_another_definition_is_another_version(definition: Definition, tmp_path: Path) -> None:
    other = tiny(tmp_path, packages=("six==1.16.0",))
    assert other.version != definition.version
    assert tiny(tmp_path).version == definition.version


def test_remove_removes_every_version(definition: Definition, home: Path) -> None:
    store.install("tiny")
    (home / "tiny" / "an-older-version").mkdir()
    assert store.remove("tiny")
    assert store.installed("tiny") is None
    assert [entry.name for entry in (home / "tiny").iterdir()] == [".lock"]
    assert not store.remove("tiny")


def test_a_python_that_is_nowhere_is_asked_for_by_version() -> None:
    with pytest.raises(ToolchainError, match=r"needs Python >=3\.99, and there is none"):
        find_python(">=3.99", "tiny")


def test_this_python_comes_first() -> None:
    assert find_python(">=3.11", "tiny").version == "{}.{}.{}".format(*sys.version_info[:3])


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(ToolchainError, match="Did you mean onnx2tf"):
        find("onnx-2tf")


def test_a_toolchain_for_other_machines_is_refused(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(definitions(), "tiny", tiny(tmp_path, hosts=("pdp11",)))
    with pytest.raises(ToolchainError, match="It is for pdp11"):
        store.install("tiny")


@pytest.mark.parametrize("name", sorted(definitions()))
def test_every_package_of_a_definition_is_pinned(name: str) -> None:
    found = find(name)
    assert found.runner_path.is_file()
    other = found.otherwise
    packages = (*found.packages, *(other.packages if other else ()))
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", package) for package in packages)
    assert other is None or other.instead_of in found.packages


def test_the_emulated_packages_are_those_that_edgeml_is_tested_with() -> None:
    pinned = set((ROOT / "constraints.txt").read_text().lower().split())
    assert set(find("emulate-arm64").packages) <= pinned


def test_the_commands_say_what_is_installed(definition: Definition, home: Path) -> None:
    run = CliRunner()
    body = json.loads(run.invoke(app, ["list", "--json"]).stdout)
    assert body["home"] == str(home)
    assert not any(row["installed"] for row in body["toolchains"])
    result = run.invoke(app, ["doctor", "tiny", "--json"])
    assert result.exit_code == 5
    assert json.loads(result.stdout)["toolchains"][0]["installed"] is False
    made = json.loads(run.invoke(app, ["install", "tiny", "--json"]).stdout)
    assert [Path(each["path"]).is_dir() for each in made["toolchains"]] == [True]
    assert "tiny: works" in run.invoke(app, ["doctor"]).stdout
    assert json.loads(run.invoke(app, ["remove", "tiny", "--json"]).stdout)["removed"]
    assert "not installed" in run.invoke(app, ["remove", "tiny"]).stdout
