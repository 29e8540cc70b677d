"""Garbage collection: nothing goes that a kept release refers to, whatever happens meanwhile."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cloud_sync.messages import DesiredModel, Phase, encode
from cloud_sync.release import Layout, Release, digest_of
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import ReleaseError, UserError
from fleet.commands.releases import releases_app
from fleet.db import tables
from fleet.deltas import Deltas
from fleet.services import Caller, Services, collect, desired, releases, reported, trust
from fleet.services.collect import Stored, decide
from fleet.services.deltas import DeltaMaker
from tests.fleet.conftest import Clock, Device, Listening, write_release
from tests.fleet.conftest import reported as running_model

DIGESTS = st.integers(0, 30).map(lambda n: digest_of(bytes([n])))


@given(
    stored=st.dictionaries(
        DIGESTS, st.builds(Stored, st.integers(0, 100), st.floats(0, 1e6, allow_nan=False))
    ),
    refers=st.dictionaries(st.text(max_size=3), st.sets(DIGESTS)),
    grace=st.floats(0, 1e6, allow_nan=False),
)
def test_only_garbage_beyond_its_grace_is_removed_and_all_of_it(
    stored: dict[str, Stored], refers: dict[str, set[str]], grace: float
) -> None:
    found = decide(stored, refers, grace)
    kept = set().union(*refers.values()) if refers else set()
    removed, spared = set(found.remove), set(found.in_grace)
    assert not removed & kept
    assert removed | spared == set(stored) - kept
    assert all(stored[digest].age_s >= grace for digest in removed)
    assert all(stored[digest].age_s < grace for digest in spared)


def publish(services: Services, folder: Path, version: str) -> Release:
    """Push and register a release, without HTTP."""
    release = write_release(folder / version, version, version.encode() * 50)
    layout = Layout.open(folder / version)
    registry = services.registry
    for digest in layout.blobs.all():
        registry.blobs.put_file(layout.blobs.path(digest))
    for variant in release.variants:
        data = layout.blobs.read(variant.digest, 1 << 20)
        kind = "application/vnd.oci.image.manifest.v1+json"
        registry.put_manifest("digits", variant.digest, kind, data)
    for digest in (*layout.evidence_digests(release.digest),):
        data = layout.blobs.read(digest, 1 << 20)
        registry.put_manifest("digits", digest, "application/vnd.oci.image.manifest.v1+json", data)
    data = layout.blobs.read(release.digest, 1 << 20)
    registry.put_manifest("digits", release.digest, "application/vnd.oci.image.index.v1+json", data)
    releases.register(services, Caller("operator"), "digits", release.digest)
    return release


def grow_old(services: Services) -> None:
    """Let all blobs have been out of use for two days."""
    blobs = services.registry.blobs
    for digest in blobs.all():
        with contextlib.suppress(FileNotFoundError):  # it was garbage
            os.utime(blobs.path(digest), (time.time() - 2 * 86400,) * 2)


def wanted_of(release: Release) -> DesiredModel:
    return DesiredModel(
        release=release.digest,
        variant=release.variants[0].digest,
        release_version=release.version,
    )


def gone(services: Services, release: Release) -> bool:
    return not services.registry.blobs.has(release.variants[0].file("model").digest)


def test_what_is_desired_running_or_among_the_newest_stays(
    services: Services,
    enroll: Callable[..., Device],
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    found = []
    for number in range(6):
        clock.now += 1
        found.append(publish(services, tmp_path, f"1.{number}.0"))
    device = enroll(services, tmp_path)
    device.models["digits"] = running_model(
        wanted_of(found[0]), Phase.COMMITTED, wanted_of(found[0])
    )
    reported.hello(services, "cam-1", sign(encode(device.hello()), PayloadType.HELLO, device.key))
    with services.database.write() as session:
        desired.want(session, "cam-1", "digits", wanted_of(found[1]))
    grow_old(services)
    before = set(services.registry.blobs.all())
    told = collect.collect(services, operator, dry_run=True, keep=2)
    assert set(services.registry.blobs.all()) == before
    assert told["dropped_releases"] == ["digits:1.2.0", "digits:1.3.0"]
    done = collect.collect(services, operator, keep=2)
    assert done["removed"] == told["removed"]
    assert [gone(services, release) for release in found] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    for release in (*found[:2], *found[4:]):
        services.registry.release(release.digest)
        [entry] = services.registry.referrers("digits", release.digest)
        assert services.registry.blobs.has(entry.digest)


def test_the_release_that_a_device_goes_back_to_stays(
    services: Services,
    enroll: Callable[..., Device],
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    found = []
    for number in range(3):
        clock.now += 1
        found.append(publish(services, tmp_path, f"1.{number}.0"))
    enroll(services, tmp_path)
    with services.database.write() as session:
        session.add(
            tables.Rollout(
                id="r1", model="digits", release=found[2].digest, policy="", status="halted",
                state="", decision="", created_at=1.0, created_by="x", finished_at=2.0,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            tables.Assignment(
                rollout="r1", device="cam-1", wave=0, variant=found[2].variants[0].digest,
                attempt=1, nonce="", assigned_at=1.0, previous=encode(wanted_of(found[0])).decode(),
                phase="", reason="", phase_at=None, restored_at=None,
            )
        )  # fmt: skip
    grow_old(services)
    collect.collect(services, operator, keep=1)
    assert [gone(services, release) for release in found] == [False, True, False]


def test_a_signed_release_stays_however_old(
    services: Services,
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    first = publish(services, tmp_path, "1.0.0")
    clock.now += 1
    second = publish(services, tmp_path, "1.1.0")
    trust.begin(services, fresh=True)
    assert services.trust.is_initialised
    clock.now += 1
    publish(services, tmp_path, "1.2.0")
    grow_old(services)
    assert collect.collect(services, operator, keep=1)["dropped_releases"] == []
    assert not gone(services, first)
    assert not gone(services, second)


def test_what_was_in_use_lately_stays(
    services: Services,
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    old = publish(services, tmp_path, "1.0.0")
    clock.now += 1
    publish(services, tmp_path, "1.1.0")
    grow_old(services)
    model = old.variants[0].file("model").digest
    assert services.registry.blob(model) is not None  # a device downloads it now
    told = collect.collect(services, operator, keep=1)
    assert not gone(services, old)
    assert told["in_grace"] == 1
    assert services.registry.blob(old.variants[1].file("model").digest) is None


def test_a_release_that_was_dropped_can_be_pushed_again(
    services: Services,
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    old = publish(services, tmp_path, "1.0.0")
    clock.now += 1
    publish(services, tmp_path, "1.1.0")
    grow_old(services)
    collect.collect(services, operator, keep=1)
    with pytest.raises(ReleaseError):
        services.registry.release(old.digest)
    assert publish(services, tmp_path / "again", "1.0.0").digest == old.digest
    services.registry.release(old.digest)


def test_nothing_is_removed_where_a_kept_release_cannot_be_read(
    services: Services, operator: Caller, tmp_path: Path
) -> None:
    release = publish(services, tmp_path, "1.0.0")
    litter = services.registry.blobs.put(b"litter")
    services.registry.blobs.remove(release.variants[0].digest)
    grow_old(services)
    with pytest.raises(ReleaseError, match="Nothing was removed"):
        collect.collect(services, operator)
    assert services.registry.blobs.has(litter)


def test_deltas_go_with_what_they_lead_from(
    services: Services,
    enroll: Callable[..., Device],
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    weights = np.random.default_rng(1).bytes(100_000)
    found = []
    for number in range(2):
        clock.now += 1
        folder = tmp_path / str(number)
        write_release(folder, f"1.{number}.0", weights[: 90_000 + number])
        layout = Layout.open(folder)
        for digest in layout.blobs.all():
            services.registry.blobs.put_file(layout.blobs.path(digest))
        [release] = layout.releases()
        releases.register(services, operator, "digits", release.digest)
        found.append(release)
    device = enroll(services, tmp_path)
    old = wanted_of(found[0])
    device.models["digits"] = running_model(old, Phase.COMMITTED, old)
    reported.hello(services, "cam-1", sign(encode(device.hello()), PayloadType.HELLO, device.key))
    DeltaMaker(services).turn()
    [(pair, made)] = Deltas(services.registry).all().items()
    grow_old(services)
    collect.collect(services, operator, keep=1)
    assert services.registry.blobs.has(made.digest)
    new = wanted_of(found[1])
    device.models["digits"] = running_model(new, Phase.COMMITTED, new)
    reported.hello(services, "cam-1", sign(encode(device.hello()), PayloadType.HELLO, device.key))
    grow_old(services)
    collect.collect(services, operator, keep=1)
    assert not services.registry.blobs.has(pair.base)
    assert not services.registry.blobs.has(made.digest)
    assert Deltas(services.registry).all() == {}


def test_the_newest_release_of_a_model_always_stays(services: Services, operator: Caller) -> None:
    with pytest.raises(UserError):
        collect.collect(services, operator, keep=0)


def test_pushes_and_downloads_that_are_under_way_lose_nothing(
    fleet: Listening, tmp_path: Path
) -> None:
    """A collector runs without end, while releases come that share blobs with garbage."""
    services, operator = fleet.services, Caller("operator")
    stop = threading.Event()
    failures: list[BaseException] = []

    def sweep() -> None:
        while not stop.is_set():
            try:
                collect.collect(services, operator, keep=1, grace_s=60.0)
            except BaseException as error:  # noqa: BLE001 -- told by the test
                failures.append(error)
                return

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(9):
            version = f"1.{number}.0"
            # The fourth has the model of the first, which is garbage by then.
            release = write_release(tmp_path / version, version, b"model %d" % (number % 3))
            fleet.client.push(tmp_path / version)
            grow_old(services)
            fetched = services.registry.release(release.digest)
            assert fetched.digest == release.digest
    finally:
        stop.set()
        sweeper.join()
    assert not failures


def test_the_command_says_what_would_go_and_what_went(fleet: Listening, tmp_path: Path) -> None:
    publish(fleet.services, tmp_path, "1.0.0")
    litter = fleet.services.registry.blobs.put(b"litter")
    grow_old(fleet.services)
    there = ["--fleet", fleet.operators, "--token", fleet.services.keys.operator_token]
    told = CliRunner().invoke(releases_app, ["gc", "--dry-run", *there])
    assert told.exit_code == 0, told.output
    assert "1 blobs, 6 bytes, would go" in told.output
    done = CliRunner().invoke(releases_app, ["gc", "--json", *there])
    assert json.loads(done.output)["removed"] == [litter]
    assert not fleet.services.registry.blobs.has(litter)
