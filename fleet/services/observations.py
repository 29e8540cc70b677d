"""What the rollout engine sees: each selected device, as the database knows it."""

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.evidence import Evidence, GateResult
from cloud_sync.messages import DesiredModel, Phase
from cloud_sync.release import Release, resolve
from fleet.db import tables
from fleet.rollouts import DeviceObservation, Policy, RolloutStatus
from fleet.rollouts.selector import parse_selector
from fleet.services.devices import labels_of
from hardware.capabilities import Capabilities

_NO_HELLO = "it has not said hello yet"
_ACTIVE = (str(RolloutStatus.RUNNING), str(RolloutStatus.PAUSED))


def of_release(session: Session, release: Release, policy: Policy) -> list[DeviceObservation]:
    """The devices that a policy selects, before there is a rollout."""
    return [_fresh(row, release) for row in _selected(session, policy, frozenset())]


def of_rollout(
    session: Session, rollout: tables.Rollout, release: Release, policy: Policy
) -> list[DeviceObservation]:
    """The devices of a rollout: those it has assigned, and those that its policy selects."""
    placed = places(session, rollout.id)
    gates = _gates(session, rollout.id, placed)
    elsewhere = _busy(session, rollout)
    return [
        _observed(row, release, placed.get(row.id), gates.get(row.id, ()), elsewhere)
        for row in _selected(session, policy, frozenset(placed))
    ]


def places(session: Session, rollout: str) -> dict[str, tables.Assignment]:
    """The devices that a rollout has assigned."""
    query = select(tables.Assignment).where(tables.Assignment.rollout == rollout)
    return {row.device: row for row in session.scalars(query)}


def running_versions(session: Session, model: str) -> dict[str, str]:
    """Which version of a model each device runs."""
    query = select(tables.ReportedModel).where(tables.ReportedModel.model == model)
    return {row.device: row.running_version for row in session.scalars(query)}


def _selected(session: Session, policy: Policy, placed: frozenset[str]) -> list[tables.Device]:
    selector = parse_selector(policy.selector)
    labels = labels_of(session)
    query = select(tables.Device).order_by(tables.Device.id)
    return [
        row
        for row in session.scalars(query)
        if row.id in placed or (row.revoked_at is None and selector.matches(labels.get(row.id, {})))
    ]


def _fresh(row: tables.Device, release: Release) -> DeviceObservation:
    variant, unfit = "", _NO_HELLO
    if row.capabilities:
        variant, unfit = _resolved(msgspec.json.encode(release), row.capabilities)
    return DeviceObservation(
        device=row.id,
        hardware_class=row.hardware_class,
        variant=variant,
        unfit=unfit,
        last_seen=row.last_seen,
    )


def _observed(
    row: tables.Device,
    release: Release,
    place: tables.Assignment | None,
    gates: tuple[GateResult, ...],
    elsewhere: Mapping[str, str],
) -> DeviceObservation:
    seen = _fresh(row, release)
    if place is None:
        return msgspec.structs.replace(seen, busy=row.id in elsewhere)
    previous = (
        msgspec.json.decode(place.previous, type=DesiredModel).release if place.previous else ""
    )
    return msgspec.structs.replace(
        seen,
        assigned_variant=place.variant,
        assigned_at=place.assigned_at,
        restored=place.restored_at is not None,
        phase=Phase(place.phase) if place.phase else None,
        reason=place.reason,
        gates=gates,
        previous=previous,
    )


def _busy(session: Session, rollout: tables.Rollout) -> dict[str, str]:
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


def _gates(
    session: Session, rollout: str, placed: Mapping[str, tables.Assignment]
) -> dict[str, tuple[GateResult, ...]]:
    """The gates of each device's evidence for its present attempt, the latest of each stage."""
    newest: dict[str, dict[str, tuple[GateResult, ...]]] = defaultdict(dict)
    query = (
        select(tables.Evidence)
        .where(tables.Evidence.rollout == rollout)
        .order_by(tables.Evidence.id)
    )
    for row in session.scalars(query):
        place = placed.get(row.device or "")
        if place is not None and place.nonce == row.nonce:
            record = msgspec.json.decode(row.document, type=Evidence)
            newest[place.device][row.stage] = record.gates
    return {
        device: tuple(gate for gates in stages.values() for gate in gates)
        for device, stages in newest.items()
    }


@lru_cache(maxsize=1024)
def _resolved(release: bytes, capabilities: str) -> tuple[str, str]:
    """The variant's digest, or why nothing fits; many devices are alike."""
    resolution = resolve(
        msgspec.json.decode(release, type=Release),
        msgspec.json.decode(capabilities, type=Capabilities),
    )
    if resolution.variant is None:
        return "", resolution.reason
    return resolution.variant.digest, ""
