"""What the rollout engine sees: each selected device, as the database knows it.

A look at ten thousand devices is a handful of queries over columns. What is costly to read, the
capabilities that a variant is resolved for and the documents of evidence, is read once and kept in
a `Memory` for as long as it cannot have changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from cloud_sync.messages import Configuration, DesiredModel, Phase
from cloud_sync.release import Release, resolve
from cloud_sync.windows import UpdateWindow
from fleet.db import tables
from fleet.rollouts import DeviceObservation, Figure, Policy, RolloutStatus
from fleet.rollouts.selector import parse_selector
from fleet.services import blocks, groups
from fleet.services.desired import batched
from fleet.services.figures import Proof, live, proof_of
from fleet.services.selection import chosen
from hardware.capabilities import Capabilities

NO_HELLO = "it has not said hello yet"
_ACTIVE = (str(RolloutStatus.RUNNING), str(RolloutStatus.PAUSED))
_TOGETHER = 500


@dataclass(frozen=True)
class Fit:
    """What a release resolves to for a device; `marker` changes with what the device says."""

    marker: tuple[Any, ...]
    variant: str
    unfit: str


@dataclass
class Memory:
    """What was read before and cannot have changed: fits by device, proofs by id of evidence.

    `windows` has the update windows of a device with the version of the configuration they are in.
    """

    fits: dict[str, Fit] = field(default_factory=dict)
    windows: dict[str, tuple[int, tuple[UpdateWindow, ...]]] = field(default_factory=dict)
    proofs: dict[int, tuple[str, str, str, Proof]] = field(default_factory=dict)


def of_release(session: Session, release: Release, policy: Policy) -> list[DeviceObservation]:
    """The devices that a policy selects, before there is a rollout."""
    where = and_(tables.Device.revoked_at.is_(None), chosen(parse_selector(policy.selector)))
    rows = _devices(session, where)
    memory = Memory()
    fits = _fits(session, release, rows, memory)
    windows = _windows(session, rows, memory)
    grouped = groups.labels(session, policy)
    fresh = [
        groups.fresh(_fresh(row, fits[row.id], windows[row.id][1]), row, grouped) for row in rows
    ]
    return groups.planned(policy, fresh)


def of_rollout(
    session: Session,
    rollout: tables.Rollout,
    release: Release,
    policy: Policy,
    memory: Memory | None = None,
) -> list[DeviceObservation]:
    """The devices of a rollout: those it has assigned, and those that its policy selects."""
    memory = memory or Memory()
    rows = _devices(session, _of(rollout, policy))
    fits = _fits(session, release, rows, memory)
    windows = _windows(session, rows, memory)
    table = tables.Assignment
    placed = {
        row.device: row
        for row in session.execute(
            select(
                table.device,
                table.variant,
                table.assigned_at,
                table.restored_at,
                table.phase,
                table.reason,
                table.cause,
                table.phase_at,
                table.previous,
                table.nonce,
                table.tries,
                table.again,
                table.group_name,
                table.until,
                table.until_at,
            ).where(table.rollout == rollout.id)
        )
    }
    shown = _shown(session, rollout.id, {name: row.nonce for name, row in placed.items()}, memory)
    running = live(session, rollout, policy) if placed else {}
    elsewhere = busy(session, rollout)
    grouped = groups.labels(session, policy)
    found = []
    for row in rows:
        seen = groups.fresh(_fresh(row, fits[row.id], windows[row.id][1]), row, grouped)
        place = placed.get(row.id)
        if place is not None:
            seen = _placed(seen, place, shown.get(row.id), running.get(row.id, {}))
        if row.id in elsewhere and (place is None or seen.restored):
            seen = msgspec.structs.replace(seen, busy=True)
        found.append(seen)
    return found


def selected(session: Session, rollout: tables.Rollout, policy: Policy) -> Sequence[Any]:
    """The devices of a rollout as rows, by id: whatever it is that is rolled out."""
    return _devices(session, _of(rollout, policy))


def places(session: Session, rollout: str) -> dict[str, tables.Assignment]:
    """The devices that a rollout has assigned."""
    query = select(tables.Assignment).where(tables.Assignment.rollout == rollout)
    return {row.device: row for row in session.scalars(query)}


def running_versions(session: Session, model: str) -> dict[str, str]:
    """Which version of a model each device runs."""
    table = tables.ReportedModel
    query = select(table.device, table.running_version).where(table.model == model)
    return {device: version for device, version in session.execute(query)}  # noqa: C416 -- rows


def busy(session: Session, rollout: tables.Rollout) -> dict[str, str]:
    """Devices that another rollout of the model has not let go, and which one it is."""
    query = (
        select(tables.Assignment.device, tables.Rollout.id)
        .join(tables.Rollout, tables.Rollout.id == tables.Assignment.rollout)
        .where(
            tables.Rollout.model == rollout.model,
            tables.Rollout.id != rollout.id,
            tables.Rollout.status.in_(_ACTIVE),
            tables.Assignment.restored_at.is_(None),
        )
    )
    return {device: other for device, other in session.execute(query)}  # noqa: C416 -- rows


def _of(rollout: tables.Rollout, policy: Policy) -> ColumnElement[bool]:
    """The condition that a device belongs to a rollout."""
    device, place, member = tables.Device, tables.Assignment, tables.RolloutMember
    assigned = device.id.in_(select(place.device).where(place.rollout == rollout.id))
    if policy.membership == "fixed" and rollout.started_at is not None:
        fits: ColumnElement[bool] = device.id.in_(
            select(member.device).where(member.rollout == rollout.id)
        )
    else:
        fits = chosen(parse_selector(policy.selector))
    return or_(assigned, and_(device.revoked_at.is_(None), fits))


def _devices(session: Session, where: ColumnElement[bool]) -> Sequence[Any]:
    table = tables.Device
    columns = (
        table.id,
        table.hardware_class,
        table.last_seen,
        table.utc_offset_s,
        table.stream,
        table.boot_id,
        table.hello_counter,
        table.features,
        table.config_version,
    )
    return session.execute(select(*columns).where(where).order_by(table.id)).all()


def _fits(
    session: Session, release: Release, rows: Iterable[Any], memory: Memory
) -> Mapping[str, Fit]:
    """What the release resolves to for each device.

    Capabilities come with hellos alone, which have a counter: those of devices that have not said
    another one since are not read again.
    """
    markers = {row.id: _marker(row) for row in rows}
    asked = [
        name
        for name, marker in markers.items()
        if name not in memory.fits or memory.fits[name].marker != marker
    ]
    blocked = blocks.blocked(session, release.digest)
    known, encoded = _Resolved(release), tables.Device
    for names in batched(asked, _TOGETHER):
        query = select(encoded.id, encoded.capabilities).where(encoded.id.in_(names))
        for name, capabilities in session.execute(query):
            variant, unfit = known(capabilities)
            memory.fits[name] = Fit(markers[name], variant, unfit)
    if not blocked:
        return memory.fits
    return {row.id: _blocked(memory.fits[row.id], row.hardware_class, blocked) for row in rows}


def _blocked(fit: Fit, hardware_class: str, blocked: Mapping[str, str]) -> Fit:
    if hardware_class not in blocked:
        return fit
    # Why may name devices that a reader of this does not see; `list_blocks` says it.
    why = f"the release is blocked on {hardware_class}: see edgeml rollout blocks"
    return Fit(fit.marker, "", why)


def _marker(row: Any) -> tuple[Any, ...]:
    """What changes when the device says another hello; one that does not count them, always."""
    at = None if row.hello_counter else row.last_seen
    return row.stream, row.boot_id, row.hello_counter, at


class _Resolved:
    """The variant's digest, or why nothing fits; many devices are alike."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._known: dict[str, tuple[str, str]] = {}

    def __call__(self, capabilities: str) -> tuple[str, str]:
        if not capabilities:
            return "", NO_HELLO
        if capabilities not in self._known:
            said = msgspec.json.decode(capabilities, type=Capabilities)
            found = resolve(self._release, said)
            self._known[capabilities] = (
                ("", found.reason) if found.variant is None else (found.variant.digest, "")
            )
        return self._known[capabilities]


def _windows(
    session: Session, rows: Iterable[Any], memory: Memory
) -> Mapping[str, tuple[int, tuple[UpdateWindow, ...]]]:
    """The update windows of each device's configuration, read anew where that is another."""
    known = memory.windows
    asked = {
        row.id: row.config_version
        for row in rows
        if row.id not in known or known[row.id][0] != row.config_version
    }
    table, alike = tables.Device, dict[str, tuple[UpdateWindow, ...]]()
    for names in batched(asked, _TOGETHER):
        query = select(table.id, table.configuration).where(table.id.in_(names))
        for name, text in session.execute(query):
            if text not in alike:
                alike[text] = msgspec.json.decode(text, type=Configuration).update_windows
            known[name] = (asked[name], alike[text])
    return known


def _fresh(row: Any, fit: Fit, windows: tuple[UpdateWindow, ...]) -> DeviceObservation:
    return DeviceObservation(
        device=row.id,
        hardware_class=row.hardware_class,
        variant=fit.variant,
        unfit=fit.unfit,
        last_seen=row.last_seen,
        utc_offset_s=row.utc_offset_s,
        windows=windows,
    )


def _placed(
    seen: DeviceObservation,
    place: Any,
    shown: Proof | None,
    running: Mapping[str, Figure],
) -> DeviceObservation:
    return msgspec.structs.replace(
        seen,
        assigned_variant=place.variant,
        assigned_at=place.assigned_at,
        restored=place.restored_at is not None,
        phase=Phase(place.phase) if place.phase else None,
        reason=place.reason,
        cause=place.cause,
        settled_at=place.phase_at,
        gates=shown.gates if shown else (),
        figures={**(shown.figures if shown else {}), **running},
        previous=_release_of(place.previous) if place.previous else "",
        tries=place.tries,
        again=place.again,
        group=place.group_name,
        until=place.until,
        until_at=place.until_at,
    )


@lru_cache(maxsize=1024)
def _release_of(previous: str) -> str:
    return msgspec.json.decode(previous, type=DesiredModel).release


def _shown(
    session: Session, rollout: str, nonces: Mapping[str, str], memory: Memory
) -> dict[str, Proof]:
    """What each device has shown in its present attempt: the latest of each stage."""
    table = tables.Evidence
    ids = list(session.scalars(select(table.id).where(table.rollout == rollout).order_by(table.id)))
    fresh = [number for number in ids if number not in memory.proofs]
    for start in range(0, len(fresh), _TOGETHER):
        some = fresh[start : start + _TOGETHER]
        query = select(table.id, table.device, table.nonce, table.stage, table.document)
        for row in session.execute(query.where(table.id.in_(some))):
            memory.proofs[row.id] = (row.device or "", row.nonce, row.stage, proof_of(row.document))
    stages: dict[str, dict[str, Proof]] = {}
    for number in ids:
        device, nonce, stage, proof = memory.proofs[number]
        if nonces.get(device) == nonce:
            stages.setdefault(device, {})[stage] = proof
    return {device: _together(list(proofs.values())) for device, proofs in stages.items()}


def _together(proofs: list[Proof]) -> Proof:
    if len(proofs) == 1:
        return proofs[0]
    figures: dict[str, Figure] = {}
    for proof in proofs:
        figures |= proof.figures
    return Proof(tuple(gate for proof in proofs for gate in proof.gates), figures)
