"""What a device does with a release that was converted here: the agent's own test of a variant."""

from pathlib import Path

from cloud_sync.golden import decode_recorded
from cloud_sync.release import Layout, Variant
from edge_agent.execution import Execution
from edge_agent.testing import TestRequest, TestResult, run
from hardware.runtimes import runtimes


def path_of(release: Path, variant: Variant, role: str) -> Path:
    return Layout.open(release).blobs.path(variant.file(role).digest)


def read(release: Path, variant: Variant, role: str) -> bytes:
    return path_of(release, variant, role).read_bytes()


def replay(release: Path, variant: Variant, *, with_pipeline: bool) -> TestResult:
    """Replay the golden set on the runtime that it was recorded with."""
    recorded = decode_recorded(read(release, variant, "recorded"))[0]
    info = runtimes()[recorded.runtime].info()
    assert info is not None
    return run(
        TestRequest(
            execution=Execution(runtime=recorded.runtime, version=info.version),
            model=str(path_of(release, variant, "model")),
            pipeline=str(path_of(release, variant, "pipeline")) if with_pipeline else "",
            golden=str(path_of(release, variant, "golden")),
            recorded=str(path_of(release, variant, "recorded")),
        )
    )
