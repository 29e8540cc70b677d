"""Fleets that one can think of, written into a database."""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import insert

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Window
from cloud_sync.release import Release
from cloud_sync.sketch import Sketch
from fleet.db import tables
from fleet.rollouts import Decision, Policy, RolloutState, RolloutStatus
from fleet.rollouts.policy import Wave
from fleet.services import Caller, Services, releases
from fleet.services.rollups import DAY, HOUR, MINUTE
from fleet.sums import Sums
from tests.fleet.conftest import VNNI, write_release

CLASSES = ("x86_64-avx512_vnni-2c", "aarch64-asimddp-4c", "cortex-m55-u55", "x86_64-avx2-4c")
CAPABILITIES = msgspec.json.encode(VNNI).decode()
SITES = ("north", "south", "east")
OPERATOR = Caller("operator", "a seed")
SENTENCE = (
    "In wave 2 of 3 (25 %) all 7 gates hold on 14 of 15 devices; it soaks for 41 of 60 s more."
)
HALTED = (
    "digits:1.1.0 was halted in wave 1 of 3 (1 device): 3% of 60 results were confident (95 % "
    "interval 1% to 11%), the release before had 96% of 412; at least 77% is wanted."
)
SEEDS: dict[str, Callable[..., None]] = {}


def seed(fill: Callable[..., None]) -> Callable[..., None]:
    """Register what `serve` calls by its name."""
    SEEDS[fill.__name__] = fill
    return fill


def release(services: Services, version: str) -> Release:
    """A registered release of `digits`."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_release(Path(folder) / "release", version, version.encode() * 1000)
        for blob in (Path(folder) / "release" / "blobs" / "sha256").iterdir():
            services.registry.blobs.put_file(blob)
    releases.register(services, OPERATOR, "digits", made.digest)
    return made


def devices(
    services: Services, count: int, version: str, digest: str, *, offline: int = 50
) -> None:
    """Devices `cam-00000` on; each `offline`th is offline, labelled by site and line."""
    now = services.now()
    rows, labels, said = [], [], []
    for number in range(count):
        name = f"cam-{number:05}"
        is_there = number % offline != 3
        rows.append(_device(name, CLASSES[number % 7 % 4], now, is_there=is_there))
        labels += [
            {"device": name, "key": "site", "value": SITES[number % 3]},
            {"device": name, "key": "line", "value": f"line-{number % 20}"},
        ]
        said.append(_said(name, version, digest, now))
    with services.database.write() as session:
        session.execute(insert(tables.Device), rows)
        session.execute(insert(tables.DeviceLabel), labels)
        session.execute(insert(tables.ReportedModel), said)


def telemetry(services: Services, digests: dict[str, str], *, hours: int = 1) -> None:
    """Roll-ups by the minute up to now, of each release on each class and site."""
    chance = random.Random(7)
    end = int(services.now()) // MINUTE * MINUTE
    found: dict[tuple[int, int, str, str, str], Sums] = {}
    for minute in range(hours * 60 + 1):
        at = end - minute * MINUTE
        for version, digest in digests.items():
            for number, name in enumerate(CLASSES):
                for site in SITES:
                    sums = _minute(chance, version, number)
                    for step in (MINUTE, HOUR, DAY):
                        key = (step, at // step * step, digest, name, site)
                        found.setdefault(key, Sums()).merge(sums)
    with services.database.write() as session:
        session.add_all(
            tables.RollUp(
                step=step,
                begins_at=at,
                model="digits",
                release=digest,
                hardware_class=name,
                labels=json.dumps({"site": site}),
                **_columns(sums),
            )
            for (step, at, digest, name, site), sums in found.items()
        )


def rollout(
    services: Services,
    made: Release,
    status: RolloutStatus,
    sentence: str,
    *,
    ago_s: float,
    wave: int = 0,
    gates: tuple[GateResult, ...] = (),
    assigned: int = 0,
    failed: int = 0,
) -> str:
    """A rollout of a release as the engine might have left it."""
    name, now = f"digits-{made.version}-ab12cd", services.now()
    state = RolloutState(
        id=name,
        model="digits",
        release=made.digest,
        release_version=made.version,
        status=status,
        wave=wave,
        reason=sentence if status is RolloutStatus.HALTED else "",
    )
    waves = (Wave(count=1), Wave(percent=25.0), Wave(percent=100.0))
    is_over = status not in {RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.DRAFT}
    with services.database.write() as session:
        session.add(
            tables.Rollout(
                id=name,
                model="digits",
                release=made.digest,
                revision=None,
                policy=msgspec.json.encode(Policy(waves=waves)).decode(),
                status=status,
                state=msgspec.json.encode(state).decode(),
                decision=msgspec.json.encode(
                    Decision(actions=(), sentence=sentence, gates=gates)
                ).decode(),
                created_at=now - ago_s,
                created_by="operator",
                finished_at=now - ago_s / 2 if is_over else None,
                started_at=now - ago_s,
            )
        )
        session.flush()
        session.add_all(
            _assignment(name, made, f"cam-{n:05}", now, is_failed=n < failed)
            for n in range(assigned)
        )
    return name


@seed
def nothing(services: Services) -> None:
    """An empty fleet."""


@seed
def story(services: Services) -> None:
    """60 devices; one release in motion, one that a gate stopped, one that runs everywhere."""
    made = {version: release(services, version) for version in ("1.0.0", "1.1.0", "1.2.0")}
    devices(services, 60, "1.0.0", made["1.0.0"].digest, offline=20)
    rollout(services, made["1.0.0"], RolloutStatus.COMPLETED,
            "digits:1.0.0 is on 60 devices and held 9 gates for 60 s on 60 devices.",
            ago_s=86_000, wave=2, assigned=60)  # fmt: skip
    rollout(services, made["1.1.0"], RolloutStatus.HALTED, HALTED,
            ago_s=4000, gates=bad_gates(), assigned=1, failed=1)  # fmt: skip
    rollout(services, made["1.2.0"], RolloutStatus.RUNNING, SENTENCE,
            ago_s=300, wave=1, gates=good_gates(), assigned=15)  # fmt: skip
    telemetry(services, {"1.0.0": made["1.0.0"].digest, "1.2.0": made["1.2.0"].digest})
    alert(services, "rollout-halted", "digits-1.1.0-ab12cd", "critical", HALTED)
    alert(services, "device-offline", "cam-00003", "warning", "cam-00003 is offline for 26 h.")


@seed
def many(services: Services, count: str = "10000") -> None:
    """The story's releases on very many devices."""
    made = release(services, "1.0.0")
    devices(services, int(count), "1.0.0", made.digest)
    rollout(services, made, RolloutStatus.RUNNING, SENTENCE, ago_s=300, wave=1, assigned=1000,
            gates=good_gates())  # fmt: skip
    telemetry(services, {"1.0.0": made.digest}, hours=1)


@seed
def report(services: Services, count: str = "1000") -> None:
    """Some devices say that they are there, as in one second of a large fleet."""
    now = services.now()
    with services.database.write() as session:
        for number in random.Random(now).sample(range(10_000), int(count)):
            row = session.get(tables.Device, f"cam-{number:05}")
            if row is not None:
                row.last_seen, row.online = now, number % 50 != int(now) % 50


@seed
def finish(services: Services) -> None:
    """The rollout in motion ends well."""
    with services.database.write() as session:
        row = session.get(tables.Rollout, "digits-1.2.0-ab12cd")
        assert row is not None
        state = msgspec.json.decode(row.state, type=RolloutState)
        done = msgspec.structs.replace(state, status=RolloutStatus.COMPLETED, wave=2)
        row.status, row.state = done.status, msgspec.json.encode(done).decode()
        sentence = "digits:1.2.0 is on 60 devices and held 9 gates for 60 s on 60 devices."
        row.decision = msgspec.json.encode(
            Decision(actions=(), sentence=sentence, gates=())
        ).decode()
        row.finished_at = services.now()


def alert(services: Services, kind: str, subject: str, severity: str, summary: str) -> None:
    """An alert that fires."""
    with services.database.write() as session:
        session.add(
            tables.Alert(
                key=f"{kind} {subject}",
                kind=kind,
                subject=subject,
                severity=severity,
                state="firing",
                summary=summary,
                detail="{}",
                began_at=services.now() - 900,
                resolved_at=None,
                acknowledged_at=None,
                acknowledged_by="",
                acknowledged_reason="",
            )
        )


def good_gates() -> tuple[GateResult, ...]:
    """Gates as a wave that goes well has them."""
    name = CLASSES[0]
    return (
        _gate("devices.failed", Verdict.PASS, "0 of 15 devices failed, none may",
              value=0.0, bound=0.0, unit="devices"),
        _gate(f"{name}: golden.outputs", Verdict.PASS, "the largest difference is 0, 0 allowed",
              value=0.0, bound=0.0),
        _gate(f"{name}: live.confident_share", Verdict.PASS, "97% of 240 were confident",
              value=0.97, bound=0.77, low=0.94, high=0.985, baseline=0.96),
        _gate(f"{name}: live.error_rate", Verdict.UNDECIDED, "0 of 40 inferences failed",
              value=0.0, bound=0.01, low=0.0, high=0.087),
        _gate(f"{name}: live.latency_p95", Verdict.PASS, "p95 is 3.10 ms",
              value=3.1, bound=14.3, baseline=3.1, unit="ms"),
    )  # fmt: skip


def bad_gates() -> tuple[GateResult, ...]:
    """Gates of which one stopped the rollout."""
    return (
        _gate("devices.failed", Verdict.FAIL, "1 of 1 device failed, none may",
              value=1.0, bound=0.0, unit="devices"),
        _gate(f"{CLASSES[0]}: live.confident_share", Verdict.FAIL,
              "3% of 60 results were confident (95 % interval 1% to 11%), the release before had "
              "96% of 412; at least 77% is wanted",
              value=0.03, bound=0.77, low=0.01, high=0.11, baseline=0.96),
    )  # fmt: skip


def _gate(name: str, result: Verdict, reason: str, **numbers: object) -> GateResult:
    return msgspec.convert(
        {"name": name, "result": result, "reason": reason, "n": 60, **numbers}, GateResult
    )


def _device(name: str, hardware_class: str, now: float, *, is_there: bool) -> dict[str, object]:
    return {
        "id": name,
        "enrolled_at": now - 9e5,
        "revoked_at": None,
        "certificate": "",
        "public_key": "",
        "key_id": f"key-of-{name}",
        "mqtt_password_hash": "",
        "configuration": "{}",
        "config_version": 0,
        "capabilities": CAPABILITIES,
        "hardware_class": hardware_class,
        "agent_version": "0.1.0",
        "boot_id": "boot-1",
        "stream": "stream-1",
        "hello_counter": 1,
        "reported_epoch": 1,
        "reported_counter": 1,
        "reported_config_version": 0,
        "config_error": "",
        "sources": "{}",
        "online": is_there,
        # So that it stays online while a test looks.
        "last_seen": now + 3600 if is_there else now - 9000,
        "unreconciled": False,
        "utc_offset_s": None,
    }


def _said(name: str, version: str, digest: str, now: float) -> dict[str, object]:
    running = {"running_release": digest, "running_variant": "", "running_version": version}
    return {
        "device": name,
        "model": "digits",
        "phase": "committed",
        **running,
        "release": digest,
        "variant": "",
        "release_version": version,
        "rollout": "",
        "attempt": 1,
        "reason": "",
        "stream": "stream-1",
        "at": now,
    }


def _assignment(
    rollout: str, made: Release, device: str, now: float, *, is_failed: bool
) -> tables.Assignment:
    return tables.Assignment(
        rollout=rollout,
        device=device,
        wave=0,
        variant=made.variants[0].digest,
        attempt=1,
        nonce="n",
        assigned_at=now - 200,
        previous="",
        phase="rolled_back" if is_failed else "committed",
        reason="3% of 60 results were confident, at least 77% is wanted" if is_failed else "",
        phase_at=now - 100,
        restored_at=None,
        until_at=None,
    )


def _minute(chance: random.Random, version: str, number: int) -> Sums:
    sums, middle = Sums(), 1.2 + 0.3 * number + (0.2 if version > "1.1" else 0.0)
    sketch = Sketch.of(chance.lognormvariate(middle, 0.3) for _ in range(20))
    inferred = 9 * 60 + chance.randrange(60)
    sums.add(
        Window(
            model="digits",
            source="belt",
            release="",
            variant="",
            seconds=60.0,
            accepted=inferred + 2,
            replaced=2,
            inferred=inferred,
            errors=chance.randrange(3),
            confident=int(inferred * chance.uniform(0.92, 0.98)),
            rss_bytes=90_000_000,
            latency={"inference": sketch, "total": sketch},
        )
    )
    return sums


def _columns(sums: Sums) -> dict[str, object]:
    names = {column.name for column in tables.RollUp.__table__.columns}
    simple = {
        name: getattr(sums, name)
        for name in names & set(Sums.__struct_fields__) - {"latency", "metrics"}
    }
    encoded = {"latency": sums.encoded_latency(), "metrics": sums.encoded_metrics()}
    return {**simple, **encoded}
