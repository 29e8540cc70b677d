"""What the agent of today says as evidence can be read by fleets of released versions."""

import json
from typing import Any

import pytest

from cloud_sync.evidence import LiveResult
from cloud_sync.messages import DesiredModel, encode
from cloud_sync.release import Variant
from cloud_sync.trust import PayloadType
from edge_agent.execution import Execution
from edge_agent.testing import TestResult
from edge_agent.update.evidence import Subject, of_test, of_trial
from hardware.capabilities import Capabilities, Cpu
from hardware.requirements import Requirements
from tests.recorded import Recording, versions


def subject() -> Subject:
    digest = "sha256:" + "a" * 64
    return Subject(
        model="toy",
        desired=DesiredModel(release=digest, variant=digest, release_version="1.0.0"),
        variant=Variant(
            digest=digest, size=1, target="cpu-test", rank=0, requires=Requirements(),
            format="onnx", precision="int8", quantization="", verification="artifact-executed",
            files=(),
        ),
        execution=Execution(runtime="onnxruntime"),
        device="cam-1",
        capabilities=Capabilities(hardware_class="test", cpu=Cpu(model="test", cores=1)),
        version=(1, 1),
    )  # fmt: skip


TODAY = {
    "test": of_test(subject(), TestResult(memory_bytes=1), ()),
    "trial": of_trial(subject(), LiveResult(seconds=1.0, inferred=1), (), {}),
}


@pytest.mark.parametrize("version", versions())
def test_what_was_always_a_value_is_never_null(version: str) -> None:
    recording = Recording(version)
    records: list[Any] = []
    for payload in recording.on("up/evidence"):
        records += recording.said(payload, PayloadType.BATCH)["records"]
    stages = {record["body"]["stage"]: record["body"] for record in records}
    assert stages.keys() == TODAY.keys()
    # What was an object may be one that there is not now; a number or text may not.
    for stage, then in stages.items():
        now = json.loads(encode(TODAY[stage]))
        values = {name for name, value in then.items() if isinstance(value, int | float | str)}
        assert {name for name in values if now.get(name) is None} == set()
