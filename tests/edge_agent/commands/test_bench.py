"""`edgeml agent bench`: what is measured, written, signed and sent."""

import json
from pathlib import Path

import pytest

from cloud_sync.evidence import Evidence, Verdict, Verification
from cloud_sync.messages import Batch, decode
from cloud_sync.trust import PayloadType, key_id, open_envelope
from edge_agent.trust.identity import load_identity
from edgeml.cli import run
from tests.cloud_sync.releases import make_release
from tests.edge_agent.scene import Scene


def test_every_way_is_raced_and_the_quickest_named(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evidence.json"
    assert run(["agent", "bench", str(release), "--out", str(out), "--minutes", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "toy:1.2.0, cpu-test, on " in text
    assert "* cpu-test float32  onnxruntime" in text
    assert "as proven" in text
    assert "after 1 s" in text or "after 0 s" in text
    report = json.loads(out.read_text())
    assert report["signed"] == ""
    evidence = report["evidence"]
    assert evidence["stage"] == "bench"
    assert evidence["verification"] == Verification.DEVICE_EXECUTED
    assert [way["chosen"] for way in evidence["race"]].count(True) == 1
    assert all(way["result"] == Verdict.PASS for way in evidence["race"])
    assert evidence["latency"]["n"] >= 40
    assert evidence["memory_bytes"] > 10 << 20
    assert report["soak"][0]["inferences"] > 10
    assert report["capabilities"]["cpu"]["model"] == evidence["conditions"]["cpu"]


def test_one_way_can_be_asked_for(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--runtime", "onnxruntime", "--threads", "1", "--out", str(tmp_path / "e.json")]
    assert run(["agent", "bench", str(release), *asked, "--json"]) == 0
    [way] = json.loads(capsys.readouterr().out)["evidence"]["race"]
    assert (way["runtime"], way["threads"]) == ("onnxruntime", 1)


def test_a_release_that_computes_otherwise_here_is_shown_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, _ = make_release(tmp_path / "spoilt", spoil_recording=True)
    out = ["--out", str(tmp_path / "e.json"), "--threads", "1"]
    assert run(["agent", "bench", str(layout.folder), *out]) == 0
    assert "fail: the largest difference" in capsys.readouterr().out


def test_an_enrolled_device_signs_and_sends(
    scene: Scene, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evidence.json"
    asked = ["--config", str(scene.config), "--out", str(out), "--threads", "1", "--send"]
    assert run(["agent", "bench", str(release), *asked]) == 0
    assert "evidence (signed)" in capsys.readouterr().out
    [sent] = scene.device.evidence()
    assert isinstance(sent, Evidence)
    assert (sent.stage, sent.device) == ("bench", "cam-1")
    identity = load_identity(scene.config)
    public = identity.key.public_key()
    signed = json.loads(out.read_text())["signed"].encode()
    batch = decode(open_envelope(signed, {key_id(public): public}, PayloadType.BATCH), Batch)
    assert batch.device == "cam-1"
    assert batch.stream.startswith("bench-")


def test_what_nobody_signed_is_not_sent(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "bench", str(release), "--send"]) == 2
    assert "Only an enrolled device can sign it." in capsys.readouterr().err


def test_every_variant_that_fits_is_measured(
    two_variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evidence.json"
    asked = ["--threads", "1", "--out", str(out), "--json"]
    assert run(["agent", "bench", str(two_variants), *asked]) == 0
    report = json.loads(capsys.readouterr().out)
    ways = [(way["variant"], way["raced"]["runtime"]) for way in report["measured"]]
    assert ways == [("cpu-test float32", "onnxruntime"), ("cpu-test float32", "openvino")]
    assert {way["raced"]["result"] for way in report["measured"]} == {Verdict.PASS}
    [chosen] = [way["raced"] for way in report["measured"] if way["raced"]["chosen"]]
    assert report["evidence"]["race"] == [chosen]  # the evidence is of that variant alone
    assert report["evidence"]["runtime"] == chosen["runtime"]
    assert run(["agent", "bench", str(two_variants), *asked, "--runtime", "openvino"]) == 0
    [way] = json.loads(capsys.readouterr().out)["measured"]
    assert way["raced"]["runtime"] == "openvino"


def test_a_runtime_of_no_variant_is_refused_with_those_there_are(
    two_variants: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agent", "bench", str(two_variants), "--runtime", "litert"]) == 9
    assert "they run on onnxruntime, openvino." in capsys.readouterr().err
