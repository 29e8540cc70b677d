"""Deltas of a real fleet on a real device: killed while one is applied, and given a wrong one."""

import os
import signal
from pathlib import Path

import msgspec
import pytest

from cloud_sync.delta_making import make
from cloud_sync.messages import Cause
from cloud_sync.release import Blobs
from edge_agent.failpoints import DELTA_NAMES
from fleet.deltas import Made
from tests.e2e.loop import until
from tests.faults.site import DEVICE, MODEL, PATIENCE_S, Site, Update

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
BALLAST = 600_000
# Room for a delta and the release's documents, and not for the whole model.
TIGHT = "\n[limits]\ndata_budget_mb = 0.3\n"
OFTEN = "delta-piece"


@pytest.fixture
def large(site: Site) -> Site:
    """The site, with a model that is large enough for deltas on the device."""
    site.settled(site.update(BALLAST))
    return site


def model_of(site: Site, version: str) -> str:
    return site.releases[version].variants[0].file("model").digest


def made(site: Site, base: str, target: str) -> Path:
    """Wait for the fleet to make the delta between two versions; its note of that."""
    digests = [model_of(site, version) for version in (target, base)]
    parts = [digest.removeprefix("sha256:") for digest in digests]
    note = site.folder.joinpath("fleet", "registry", "deltas", *parts)
    until(f"the delta from {base} to {target}", note.exists, PATIENCE_S)
    return note


def spent(site: Site, update: Update) -> dict[str, int]:
    """What the fleet was told that the update cost, by cause, as soon as that is complete."""

    def told() -> dict[str, int]:
        lines = site.client.ledger(DEVICE, rollout=update.found["id"])["lines"]
        return {str(line["cause"]): int(line["received"]) for line in lines}

    until("the ledger", lambda: str(Cause.DELTA) in told(), PATIENCE_S)
    return told()


@pytest.mark.parametrize(
    "failpoint",
    [
        OFTEN,
        *(pytest.param(n, marks=pytest.mark.nightly) for n in DELTA_NAMES if n != OFTEN),
    ],
)
def test_kill_9_of_the_device_while_it_applies_a_delta_at(large: Site, failpoint: str) -> None:
    before, version = large.version, large.push(BALLAST)
    made(large, before, version)
    large.kill(DEVICE)
    large.environment = {**os.environ, "EDGEML_FAILPOINT": f"{failpoint}:kill"}
    large.start_agent()
    large.environment = None
    update = Update(large, version, large.roll_out(version, TIGHT))
    until("the kill", lambda: large.status(DEVICE) == -signal.SIGKILL, PATIENCE_S)
    large.start_agent()
    large.settled(update)
    assert sum(spent(large, update).values()) < BALLAST / 2


def test_a_wrong_delta_becomes_a_full_download_only_where_the_budget_has_room(large: Site) -> None:
    before, version = large.version, large.push(BALLAST)
    note = made(large, before, version)
    mislead(large, before, note)
    update = Update(large, version, large.roll_out(version, TIGHT))

    def reason() -> str:
        reported = large.client.device(DEVICE)["reported"] or {}
        return str(reported["models"][MODEL]["reason"])

    until("the wait", lambda: "budget:" in reason(), PATIENCE_S)
    assert "MB are needed" in reason()
    large.goes_on(before)
    assert Blobs(large.data / "releases").has(model_of(large, before))
    assert not Blobs(large.data / "releases").has(model_of(large, version))
    large.configure(data_budget={"rollout_bytes": 10_000_000})
    try:
        large.settled(update)
        cost = spent(large, update)
        assert cost[Cause.FULL] > BALLAST, cost
    finally:
        large.configure()


def mislead(site: Site, base: str, note: Path) -> None:
    """Have the fleet offer a sound delta that leads to something else."""
    blobs = Blobs(site.folder / "fleet" / "registry")
    old = blobs.path(model_of(site, base))
    other, delta = site.folder / "other", site.folder / "delta"
    other.write_bytes(bytes(5000) + old.read_bytes()[5000:])
    make(old, other, delta)
    digest = blobs.put(delta.read_bytes())
    size = delta.stat().st_size
    note.write_bytes(
        msgspec.json.encode(Made(digest=digest, size=size, full=len(other.read_bytes())))
    )
