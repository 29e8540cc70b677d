"""What the doctor finds on healthy and on broken devices."""

import json
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from edge_agent.commands.doctor import Finding, Grade, Patient, examine
from edge_agent.trust.identity import load_config
from edgeml.cli import run
from hardware.capabilities import Accelerator
from hardware.probes import probe
from tests.edge_agent.scene import Scene

TREES = Path(__file__).parents[2] / "hardware/trees"


def examined(patient: Patient) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(patient)}


@pytest.fixture
def patient(scene: Scene) -> Patient:
    return Patient(
        capabilities=probe(),
        config=scene.config,
        agent=load_config(scene.config),
        sources=((scene.folder / "images").as_uri().replace("file:", "images:"),),
    )


def test_a_healthy_device_is_good_throughout(patient: Patient) -> None:
    found = examined(msgspec.structs.replace(patient, root=TREES / "pi5"))
    graded = {name: finding.grade for name, finding in found.items()}
    [source] = [name for name in found if name.startswith("source ")]
    assert found[source].said.endswith("gives frames of 24 x 24")
    graded.pop("broker", None)  # the simulated fleet has none
    assert set(graded.values()) == {Grade.GOOD}, found
    assert "53 \N{DEGREE SIGN}C (cpu-thermal), the limit is 110" in found["heat"].said


def test_a_key_that_others_can_read_is_bad(scene: Scene, patient: Patient) -> None:
    (scene.data / "identity/device.key").chmod(0o644)
    found = examined(patient)["identity"]
    assert found.grade is Grade.BAD
    assert "device.key" in found.said


def test_a_director_key_that_others_can_replace_is_bad(scene: Scene, patient: Patient) -> None:
    (scene.data / "identity/director.pem").chmod(0o666)
    found = examined(patient)["trust files"]
    assert found.grade is Grade.BAD
    assert found.fix == f"Run: chmod go-w {scene.data / 'identity/director.pem'}"


def test_a_source_that_gives_nothing_is_bad_and_says_why(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    uris = ((tmp_path / "broken.mp4").as_uri(), "images:///nowhere", "gopher://x/y")
    found = examine(msgspec.structs.replace(patient, sources=uris))
    bad = [f for f in found if f.check.startswith("source ")]
    assert [f.grade for f in bad] == [Grade.BAD] * 3
    assert all(f.said for f in bad)


def test_a_camera_s_password_is_not_printed(patient: Patient) -> None:
    uris = ("rtsp://viewer:secret@127.0.0.1:9/1",)
    found = examine(msgspec.structs.replace(patient, sources=uris))
    [source] = [f for f in found if f.check.startswith("source ")]
    assert source.check == "source rtsp://127.0.0.1:9/1"
    assert "secret" not in f"{found}"


def test_a_fleet_that_is_away_is_a_warning(scene: Scene, patient: Patient) -> None:
    scene.fleet.stop()
    found = examined(patient)["fleet"]
    assert found.grade is Grade.WARNING
    assert "runs on without it" in found.fix


def test_heat_and_a_clock_that_is_held_back_are_seen(patient: Patient, tmp_path: Path) -> None:
    shutil.copytree(TREES / "pi4", tmp_path / "hot")
    (tmp_path / "hot/sys/class/thermal/thermal_zone0/temp").write_text("104000")
    found = examined(msgspec.structs.replace(patient, root=tmp_path / "hot"))
    assert found["heat"].grade is Grade.BAD
    assert found["clock rate"].said == "the processor is held back to 40% of its clock"


def test_little_memory_is_bad(patient: Patient, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 500000 kB\nMemAvailable: 9000 kB\n")
    assert examined(msgspec.structs.replace(patient, root=tmp_path))["memory"].grade is Grade.BAD


def test_a_clock_that_was_never_set_is_a_warning(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    found = examined(patient)["clock"]
    assert found.grade is Grade.WARNING
    assert "it says 1970-01-02, so it was never set" in found.said


def test_an_accelerator_that_may_not_be_opened_is_named(patient: Patient) -> None:
    part = Accelerator(kind="npu", part="ethos-u65-256", path="/dev/does-not-exist")
    has = msgspec.structs.replace(patient.capabilities, accelerators=(part,), runtimes=())
    found = examined(msgspec.structs.replace(patient, capabilities=has))
    assert found["accelerator"].grade is Grade.WARNING
    assert found["runtime"].fix == "Run: pip install 'edgeml[agent]'"


def test_the_exit_code_says_whether_something_is_bad(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = str(scene.folder / "images")
    command = ["agent", "doctor", "--config", str(scene.config), "--json", "--source"]
    assert run([*command, pictures]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["healthy"]
    (scene.data / "identity/device.key").chmod(0o644)
    assert run([*command, pictures]) == 9
    assert not json.loads(capsys.readouterr().out)["healthy"]


def test_without_an_enrolment_the_machine_is_examined(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "doctor"]) in {0, 9}
    said = capsys.readouterr().out
    assert "this device is not enrolled" in said
    assert "-> See: edgeml agent enroll --help" in said
