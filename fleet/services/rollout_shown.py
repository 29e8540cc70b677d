"""Rollouts as operators see them: a list with counts, one with its devices, and why."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from cloud_sync.evidence import Evidence, GateResult, Verdict
from cloud_sync.messages import Phase
from cloud_sync.windows import closed
from edgeml.errors import UserError
from fleet.db import tables
from fleet.resources import Explanation, Page, RolloutDevice, RolloutInfo
from fleet.rollouts import DeviceObservation
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.rollouts.telling import telling
from fleet.services import cost, observations, releases
from fleet.services.context import Services
from fleet.services.rollout_rows import decision_of, get, policy_of, state_of
from fleet.services.selection import chosen

_MAX_PAGE = 1000
_DEVICES_FAILED = "devices.failed"
_OUTCOMES = {Phase.COMMITTED: "committed", Phase.REFUSED: "refused", Phase.ROLLED_BACK: "failed"}


def page(
    services: Services,
    *,
    model: str = "",
    after: str = "",
    limit: int = 100,
    scope: Selector = EVERYTHING,
) -> Page[RolloutInfo]:
    """The rollouts, newest first, without their devices.

    Args:
        services: the fleet.
        model: of this one only.
        after: `next` of the page before.
        limit: rollouts of a page.
        scope: only those that are confined to it or have a device of it.

    Raises:
        UserError: `after` is none that a page gave.
    """
    limit = max(1, min(limit, _MAX_PAGE))
    with services.database.read() as session:
        rows = _rows(session, model, after, limit + 1, scope)
        counts = _counts(session, [row.id for row in rows], scope)
        items = [
            _told(session, scope, _info(session, row, [], counts[row.id])) for row in rows[:limit]
        ]
    last = rows[limit - 1] if len(rows) > limit else None
    return {"items": items, "next": f"{last.created_at!r} {last.id}" if last else None}


def list_rollouts(
    services: Services, *, model: str = "", limit: int = 100, scope: Selector = EVERYTHING
) -> list[RolloutInfo]:
    """The rollouts with their devices, newest first."""
    with services.database.read() as session:
        rows = _rows(session, model, "", max(1, min(limit, _MAX_PAGE)), scope)
        return [_whole(services, session, row, scope) for row in rows]


def show(services: Services, rollout: str, *, scope: Selector = EVERYTHING) -> RolloutInfo:
    """One rollout; of its devices those of a scope.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        return _whole(services, session, get(session, rollout), scope)


def explain(services: Services, rollout: str, *, scope: Selector = EVERYTHING) -> Explanation:
    """Why a rollout stands where it stands.

    Raises:
        NotFound: there is none such.
    """
    return standing(services, rollout, scope=scope)[1]


def standing(
    services: Services, rollout: str, *, scope: Selector = EVERYTHING
) -> tuple[RolloutInfo, Explanation]:
    """A rollout and why it stands where it stands, of one moment.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        row = get(session, rollout)
        info, decision = _whole(services, session, row, scope), decision_of(row)
        if not _is_told(session, scope, rollout):
            decision = msgspec.structs.replace(decision, gates=(), actions=())
    return info, {
        "id": info["id"],
        "status": info["status"],
        "wave": info["wave"],
        "sentence": info["sentence"],
        "waits_for": str(decision.waits_for),
        "until": decision.until,
        "gates": msgspec.to_builtins(decision.gates),
        "actions": msgspec.to_builtins(decision.actions),
        "devices": info["devices"],
    }


def _rows(
    session: Session, model: str, after: str, limit: int, scope: Selector
) -> list[tables.Rollout]:
    from fleet.access.scope import touched

    table = tables.Rollout
    query = select(table).order_by(table.created_at.desc(), table.id.desc())
    if model:
        query = query.where(table.model == model)
    if scope.requirements:
        query = query.where(touched(table.id, scope))
    if after:
        at, _, name = after.partition(" ")
        try:
            since = float(at)
        except ValueError:
            raise UserError("The cursor cannot be used.", why="No page gave it.") from None
        older = and_(table.created_at == since, table.id < name)
        query = query.where(or_(table.created_at < since, older))
    return list(session.scalars(query.limit(limit)))


def _counts(session: Session, rollouts: list[str], scope: Selector) -> dict[str, Counter[str]]:
    """How many of a scope's devices that were given it stand how, without looking at each."""
    place = tables.Assignment
    taken_back = place.restored_at.is_not(None)
    query = (
        select(place.rollout, place.phase, taken_back, func.count())
        .where(place.rollout.in_(rollouts), chosen(scope, place.device))
        .group_by(place.rollout, place.phase, taken_back)
    )
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for rollout, phase, restored, number in session.execute(query):
        known = Phase(phase) if phase else None
        found[rollout][_outcome(known, restored=bool(restored))] += number
    return found


def _whole(
    services: Services, session: Session, row: tables.Rollout, scope: Selector
) -> RolloutInfo:
    policy = policy_of(row)
    if row.release is None:
        from fleet.services import configuration_rollouts

        selected = configuration_rollouts.observe(session, row, policy)
    else:
        release = releases.document(session.get_one(tables.Release, row.release))
        selected = observations.of_rollout(session, row, release, policy)
    if scope.requirements:
        inside = set(session.scalars(select(tables.Device.id).where(chosen(scope))))
        selected = [device for device in selected if device.device in inside]
    place = tables.Assignment
    query = select(place.device, place.wave).where(place.rollout == row.id)
    waves = {device: wave for device, wave in session.execute(query)}  # noqa: C416 -- rows
    running = observations.running_versions(session, row.model)
    now = services.now()
    devices = [_device(device, waves, running, now) for device in selected]
    info = _info(session, row, devices, Counter(device["outcome"] for device in devices))
    return _told(session, scope, {**info, "cost": cost.summary(session, row.id, scope)})


def _is_told(session: Session, scope: Selector, rollout: str) -> bool:
    """Whether a scope's callers may read why: sentences and gates name devices."""
    from fleet.access.scope import confined

    table = tables.Rollout
    inside = select(table.id).where(table.id == rollout, confined(table.id, scope))
    return not scope.requirements or session.scalar(inside) is not None


def _told(session: Session, scope: Selector, info: RolloutInfo) -> RolloutInfo:
    if _is_told(session, scope, info["id"]):
        return info
    sentence = "It reaches further than your scope: whoever sees all of it sees why it stands so."
    # What somebody wrote of it, or a gate that they let pass, may name devices.
    hidden: dict[str, Any] = {"reason": "", "gate": None, "approvals": [], "overrides": []}
    return cast("RolloutInfo", {**info, "sentence": sentence, **hidden})


def _info(
    session: Session, row: tables.Rollout, devices: list[RolloutDevice], counts: Counter[str]
) -> RolloutInfo:
    policy, state, decision = policy_of(row), state_of(row), decision_of(row)
    return {
        "id": row.id,
        "kind": "configuration" if row.release is None else "release",
        "model": row.model,
        "version": state.release_version,
        "release": state.release,
        "status": row.status,
        "wave": state.wave + 1,
        "waves": len(policy.waves),
        "sentence": decision.sentence,
        "reason": state.reason,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "waits_for": str(decision.waits_for),
        "until": decision.until,
        "gate": _telling(session, row.id, decision.gates),
        "approvals": msgspec.to_builtins(list(state.approvals)),
        "overrides": msgspec.to_builtins(list(state.overrides)),
        "policy": msgspec.to_builtins(policy),
        "devices": devices,
        "counts": dict(sorted(counts.items())),
        "cost": None,
    }


def _telling(session: Session, rollout: str, gates: Sequence[GateResult]) -> dict[str, Any] | None:
    """The gate that tells most; where devices failed, that of one of them, with its name."""
    found = telling(gates)
    if found is None:
        return None
    if found.name == _DEVICES_FAILED and found.result is Verdict.FAIL:
        found = _of_a_device(session, rollout) or found
    told: dict[str, Any] = msgspec.to_builtins(found)
    return told


def _of_a_device(session: Session, rollout: str) -> GateResult | None:
    """The gate for which a device took itself back, as it measured it."""
    place, proof = tables.Assignment, tables.Evidence
    failed = select(place.device).where(
        place.rollout == rollout, place.phase == Phase.ROLLED_BACK
    ).limit(1)  # fmt: skip
    device = session.scalar(failed)
    said = (
        select(proof.document)
        .where(proof.device == device, proof.rollout == rollout)
        .order_by(proof.id.desc())
        .limit(1)
    )
    document = session.scalar(said)
    if document is None:
        return None
    found = telling(msgspec.json.decode(document, type=Evidence).gates)
    if found is None or found.result is not Verdict.FAIL:
        return None
    return msgspec.structs.replace(found, name=f"{device}: {found.name}")


def _device(
    device: DeviceObservation, waves: Mapping[str, int], running: Mapping[str, str], now: float
) -> RolloutDevice:
    wave = waves.get(device.device)
    if wave is None:
        outcome = "waiting" if device.variant else "unfit"
    else:
        outcome = _outcome(device.phase, restored=device.restored)
    return {
        "device": device.device,
        "hardware_class": device.hardware_class,
        "wave": None if wave is None else wave + 1,
        "phase": str(device.phase or ""),
        "outcome": outcome,
        "variant": device.assigned_variant or device.variant,
        "running_version": running.get(device.device, ""),
        "assigned_at": device.assigned_at,
        "tries": 0 if wave is None else device.tries,
        "reason": device.reason or device.unfit or (_held(device, now) if wave is None else ""),
    }


def _held(device: DeviceObservation, now: float) -> str:
    """Why a device that has not been given the release cannot be: its own window is closed."""
    return closed(device.windows, now, device.utc_offset_s) if device.variant else ""


def _outcome(phase: Phase | None, *, restored: bool) -> str:
    if phase is Phase.ROLLED_BACK:
        return "failed"
    if restored:
        return "restored"
    return _OUTCOMES.get(phase, "updating") if phase else "updating"
