"""The demo's own parts; the demo itself runs as `make demo ARGS=--once`."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeml.cli import run
from edgeml.demo import fpga
from edgeml.demo.children import Children
from edgeml.demo.console import Console, open_window
from edgeml.demo.narrator import Narrator
from edgeml.demo.promises import Ledger
from edgeml.demo.setting import prepare_folder
from edgeml.demo.truth import readings
from edgeml.errors import ExitCode, ToolchainError, UserError
from tests.e2e.loop import _free_port, until


def test_readings_are_judged_by_the_belts_truth_release_by_release(tmp_path: Path) -> None:
    truth = tmp_path / "belt.json"
    truth.write_text(json.dumps({"frames": [None, 3, 3, 7]}))
    lines = [
        {"source": "belt", "state": "stalled", "reason": "No frame for 1.0 s."},
        {"frame": 0, "label": "1", "confident": True, "release_version": "1"},
        {"frame": 1, "label": "3", "confident": True, "release_version": "1"},
        {"frame": 2, "empty": True, "release_version": "1"},
        {"frame": 3, "label": "1", "confident": False, "release_version": "2"},
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("\n".join(map(json.dumps, lines)) + '\n{"frame": 3, "lab')
    found = readings(results, truth)
    assert (found["1"].read, found["1"].right, found["1"].accuracy) == (1, 1, 1.0)
    assert (found["2"].read, found["2"].right, found["2"].confident) == (1, 0, 0)


def test_a_promise_that_did_not_hold_is_said_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(Narrator())
    assert not ledger.all_held
    ledger.note("one", held=True, numbers="1 of 1")
    assert ledger.all_held
    ledger.note("two", held=False, numbers="0 of 1")
    ledger.write(tmp_path / "summary.json", seconds=1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["held"] is False
    assert [p["held"] for p in summary["promises"]] == [True, False]
    assert "NO two: 0 of 1" in capsys.readouterr().out


def test_each_step_names_its_page_and_the_end_recalls_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    links = iter(("http://fleet/?token=1", "http://fleet/?token=2"))
    console = Console("http://fleet", Narrator(), opens=False)
    console.invite(lambda: next(links))
    console.rollout("digits", "1.1.0", "digits-1.1.0-ab")
    console.halted("digits-1.1.0-ab", "cam-1")
    told = capsys.readouterr().out
    assert "http://fleet/?token=1" in told
    assert told.count("http://fleet/console/rollouts/digits-1.1.0-ab") == 2
    console.recall(lambda: next(links))
    recalled = capsys.readouterr().out
    assert "http://fleet/?token=2" in recalled
    assert recalled.count("http://fleet/console/rollouts/digits-1.1.0-ab") == 1
    assert "http://fleet/console/devices/cam-1?tab=history" in recalled


def _proved(**said: Any) -> dict[str, Any]:
    """What fpga-1 sends of its golden replay, as the fleet's API has it."""
    golden = {"samples": 32, "max_difference": 0.0, "tolerance": 0.0}
    evidence = {
        "target": fpga.TARGET,
        "verification": "rtl-simulated",
        "golden": golden,
        "placement": {"simulated FPGA": 6},
        **said,
    }
    return {"device": "fpga-1", "stage": "test", "evidence": evidence}


def test_what_the_simulated_fpga_ran_goes_into_the_summary(tmp_path: Path) -> None:
    cycles = {"name": "cycles", "value": 239685.0, "unit": "cycles", "source": "Verilator"}
    variants: list[dict[str, Any]] = [
        {"target": "cpu-x86-64", "compiled": None},
        {"target": fpga.TARGET, "compiled": {"estimates": [cycles]}},
    ]
    others = [{**_proved(), "device": "cam-1"}, {**_proved(), "stage": "trial"}]
    found = fpga.ran("1.0.0", variants, [*others, _proved()])
    assert found is not None
    ledger = Ledger(Narrator())
    ledger.write(tmp_path / "summary.json", simulated_fpga=fpga.summary([found], ""))
    told = json.loads((tmp_path / "summary.json").read_text())["simulated_fpga"]
    assert told == {
        "ran": [
            {
                "release_version": "1.0.0",
                "device": "fpga-1",
                "kind": "simulated FPGA",
                "target": "fpga-ecp5-25k",
                "verification": "rtl-simulated",
                "cycles": 239685,
                "golden_samples": 32,
                "max_difference": 0.0,
                "bit_exact": True,
            }
        ]
    }
    inexact = {"samples": 32, "max_difference": 1e-6, "tolerance": 0.1}
    other = fpga.ran("1.0.0", variants, [_proved(golden=inexact)])
    assert other is not None
    assert not other.bit_exact
    assert fpga.ran("1.0.0", variants, others) is None
    assert fpga.ran("1.0.0", variants, [_proved(target="cpu-x86-64")]) is None


def test_without_verilator_the_demo_says_so_and_ci_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g++").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    assert fpga.left_out() == "verilator is not installed"
    assert fpga.summary([], fpga.left_out()) == {"left_out": "verilator is not installed"}
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ToolchainError, match="cannot be left out"):
        fpga.left_out()


def test_a_browser_in_the_terminal_does_not_take_the_place_of_the_story(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not open_window("http://127.0.0.1:1/")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(UserError, match="not empty"):
        prepare_folder(tmp_path)
    assert (tmp_path / "precious").exists()


def test_the_demos_own_folder_is_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    prepare_folder(folder)
    (folder / "old").touch()
    prepare_folder(folder)
    assert not (folder / "old").exists()


def test_kill_9_of_the_demo_leaves_no_child_behind(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time; from pathlib import Path; "
        "from edgeml.demo import children as c; "
        "c.command = lambda a: [sys.executable, '-c', 'import time; time.sleep(60)']; "
        "s = c.Children(Path(sys.argv[1]), {}); s.__enter__(); "
        "print(s.start('sleeper', []).pid, flush=True); time.sleep(0.2); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    child = int(done.stdout)
    until("the child to end", lambda: not _alive(child), 10)


def test_a_ctrl_c_that_python_drops_while_it_forks_is_not_lost(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from edgeml.demo import children as c; "
        "c.command = lambda a: [sys.executable, '-c', 'pass']; "
        "once = [signal.SIGINT]; "
        "os.register_at_fork("
        "after_in_parent=lambda: once and os.kill(os.getpid(), once.pop())); "
        "sys.unraisablehook = lambda unraisable: print('dropped', flush=True); "
        "s = c.Children(Path(sys.argv[1]), {}); s.__enter__(); "
        "s.run([], timeout_s=30); print('went on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "dropped\n"
    assert "KeyboardInterrupt" in done.stderr


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_the_children_end_with_the_block(tmp_path: Path) -> None:
    ports = [str(_free_port()) for _ in range(3)]
    options = [*zip(("--port", "--device-port", "--mqtt-port"), ports, strict=True)]
    fleet = ["fleet", "up", "--data", str(tmp_path / "fleet"), *(w for o in options for w in o)]
    with Children(tmp_path, {}) as children:
        child = children.start("fleet", fleet)
        done = children.run(["--version"], timeout_s=60)
        assert child.poll() is None
    assert done.stdout.startswith("edgeml ")
    assert child.poll() is not None


def test_a_port_in_use_is_found_out_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code = run(["demo", "--once", "--dir", str(tmp_path / "demo"), "--mqtt-port", port])
    assert code == ExitCode.USAGE
    error = capsys.readouterr().err
    assert f"port {port}" in error
    assert "--mqtt-port" in error
    assert not (tmp_path / "demo").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("moment", ["data", "fleet/fleet.db", "cam-1/agent.toml"])
def test_ctrl_c_anywhere_leaves_nothing_running(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "demo"
    ports = [str(_free_port()) for _ in range(3)]
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "edgeml.cli", "demo", "--dir", str(folder)),
            *("--port", ports[0], "--device-port", ports[1], "--mqtt-port", ports[2]),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as demo:
        try:
            until(moment, (folder / moment).exists, 480)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == ExitCode.INTERRUPTED
        finally:
            demo.kill()
    until("everything to end", lambda: not _mentioning(str(folder)), 15)


def _mentioning(text: str) -> list[str]:
    """The command lines of processes that name a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found
