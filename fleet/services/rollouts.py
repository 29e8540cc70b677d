"""Rollouts as operators see them: plan, create, watch, explain, pause, resume, abort.

What happens next is decided by `fleet.rollouts.decide` alone; the controller carries it out.
"""

import secrets
from collections import Counter
from collections.abc import Mapping

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.messages import Phase
from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import Explanation, Plan, PlannedDevice, RolloutDevice, RolloutInfo
from fleet.rollouts import Decision, DeviceObservation, Policy, RolloutState, RolloutStatus
from fleet.rollouts.observe import ENDED
from fleet.services import observations, releases, trust
from fleet.services.audit import audited
from fleet.services.context import Caller, Services

_MAX_PAGE = 1000
_OUTCOMES = {Phase.COMMITTED: "committed", Phase.REFUSED: "refused"}


def plan(services: Services, model: str, version: str, policy: Policy) -> Plan:
    """What a rollout would do: for every device selected, its variant or why nothing fits.

    Raises:
        NotFound: the release is not registered.
        UserError: the selector cannot be read.
    """
    with services.database.read() as session:
        row = releases.require(session, model, version)
        release = releases.document(row)
        seen = observations.of_release(session, release, policy)
    sizes = {variant.digest: variant.total_bytes for variant in release.variants}
    planned: list[PlannedDevice] = []
    by_class: dict[str, Counter[str]] = {}
    for device in seen:
        variant = release.variant(device.variant) if device.variant else None
        planned.append(
            {
                "device": device.device,
                "hardware_class": device.hardware_class,
                "variant": device.variant or None,
                "target": variant.target if variant else None,
                "precision": variant.precision if variant else None,
                "bytes": sizes.get(device.variant, 0),
                "reason": device.unfit or (f"It gets {variant.name}." if variant else ""),
            }
        )
        name = variant.name if variant else "nothing fits"
        by_class.setdefault(device.hardware_class, Counter())[name] += 1
    fitting = [p for p in planned if p["variant"]]
    return {
        "model": model,
        "version": version,
        "release": row.digest,
        "selector": policy.selector,
        "devices": planned,
        "fitting": len(fitting),
        "unfitting": len(planned) - len(fitting),
        "bytes": sum(p["bytes"] for p in fitting),
        "by_class": {name: dict(counts) for name, counts in sorted(by_class.items())},
    }


def create(
    services: Services, caller: Caller, model: str, version: str, policy: Policy
) -> RolloutInfo:
    """Create a rollout; it begins at once.

    Raises:
        NotFound: the release is not registered.
        TrustError: releases are signed here, and this one is not.
        UserError: a number in the policy is not finite or too large.
    """
    _check_lasting(policy)
    with services.database.read() as session:
        digest = releases.require(session, model, version).digest
    trust.require_signed(services, model, version, digest)
    state = RolloutState(
        id=f"{model[:24]}-{version[:16]}-{secrets.token_hex(3)}",
        model=model,
        release=digest,
        release_version=version,
    )
    with audited(
        services,
        caller,
        "rollout.create",
        state.id,
        release=digest,
        policy=msgspec.to_builtins(policy),
    ) as session:
        session.add(
            tables.Rollout(
                id=state.id,
                model=model,
                release=digest,
                policy=msgspec.json.encode(policy).decode(),
                status=str(state.status),
                state=msgspec.json.encode(state).decode(),
                decision=_encode(Decision(actions=(), sentence="It has not begun yet.", gates=())),
                created_at=services.now(),
                created_by=caller.actor,
                finished_at=None,
            )
        )
    return show(services, state.id)


def list_rollouts(services: Services, *, model: str = "", limit: int = 100) -> list[RolloutInfo]:
    """The rollouts, newest first."""
    query = select(tables.Rollout).order_by(tables.Rollout.created_at.desc())
    if model:
        query = query.where(tables.Rollout.model == model)
    with services.database.read() as session:
        rows = session.scalars(query.limit(max(1, min(limit, _MAX_PAGE))))
        return [_info(session, row) for row in rows]


def show(services: Services, rollout: str) -> RolloutInfo:
    """One rollout.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        return _info(session, get(session, rollout))


def explain(services: Services, rollout: str) -> Explanation:
    """Why a rollout stands where it stands.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        row = get(session, rollout)
        info = _info(session, row)
        decision = decision_of(row)
    return {
        "id": info["id"],
        "status": info["status"],
        "wave": info["wave"],
        "sentence": decision.sentence,
        "gates": msgspec.to_builtins(decision.gates),
        "actions": msgspec.to_builtins(decision.actions),
        "devices": info["devices"],
    }


def pause(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """Stop giving the release to more devices, until it is resumed."""
    return _change(services, caller, rollout, "pause", RolloutStatus.PAUSED)


def resume(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """Go on with a paused rollout."""
    return _change(services, caller, rollout, "resume", RolloutStatus.RUNNING)


def abort(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """End a rollout; its failure policy says whether devices get back what they ran before."""
    return _change(services, caller, rollout, "abort", RolloutStatus.ABORTED)


def get(session: Session, rollout: str) -> tables.Rollout:
    """The row of a rollout.

    Raises:
        NotFound: there is none such.
    """
    row = session.get(tables.Rollout, rollout)
    if row is None:
        raise NotFound(
            f"There is no rollout {rollout[:64]!r}.", fix="See them all: edgeml rollout list"
        )
    return row


def policy_of(row: tables.Rollout) -> Policy:
    """A rollout's policy."""
    return msgspec.json.decode(row.policy, type=Policy)


def state_of(row: tables.Rollout) -> RolloutState:
    """A rollout's state, as the engine keeps it."""
    return msgspec.json.decode(row.state, type=RolloutState)


def decision_of(row: tables.Rollout) -> Decision:
    """The engine's last decision; its gates are those that counted."""
    return msgspec.json.decode(row.decision, type=Decision)


def keep(row: tables.Rollout, state: RolloutState, decision: Decision) -> None:
    """Keep a state and the decision behind it; a decision without gates leaves the last ones."""
    if not decision.gates:
        decision = msgspec.structs.replace(decision, gates=decision_of(row).gates)
    for name, value in (
        ("status", str(state.status)),
        ("state", msgspec.json.encode(state).decode()),
        ("decision", _encode(decision)),
    ):
        if getattr(row, name) != value:
            setattr(row, name, value)


def _check_lasting(policy: Policy) -> None:
    """Refuse a policy that would not come back from the database as it went in."""
    try:
        again = msgspec.json.decode(msgspec.json.encode(policy), type=Policy)
    except (msgspec.ValidationError, OverflowError, ValueError):
        again = None
    if again != policy:
        raise UserError(
            "The policy cannot be used.", why="A number in it is not finite or too large."
        )


def _change(
    services: Services, caller: Caller, rollout: str, verb: str, to: RolloutStatus
) -> RolloutInfo:
    with audited(services, caller, f"rollout.{verb}", rollout) as session:
        row = get(session, rollout)
        state = state_of(row)
        allowed = {
            RolloutStatus.PAUSED: {RolloutStatus.RUNNING},
            RolloutStatus.RUNNING: {RolloutStatus.PAUSED},
            RolloutStatus.ABORTED: {RolloutStatus.RUNNING, RolloutStatus.PAUSED},
        }[to]
        if state.status not in allowed:
            raise Conflict(
                f"The rollout {rollout} cannot be changed so ({verb}).",
                why=f"It is {state.status}.",
            )
        past = {"pause": "Paused", "resume": "Resumed", "abort": "Aborted"}[verb]
        reason = f"{past} by {caller.actor}" + (f": {caller.reason}" if caller.reason else "")
        held = state.wave_held_since if to is RolloutStatus.PAUSED else None
        state = msgspec.structs.replace(
            state, status=to, wave_held_since=held, reason=f"{reason.rstrip('.')}."
        )
        keep(row, state, Decision(actions=(), sentence=state.reason, gates=()))
        if to in ENDED:
            row.finished_at = services.now()
    return show(services, rollout)


def _info(session: Session, row: tables.Rollout) -> RolloutInfo:
    policy, state = policy_of(row), state_of(row)
    release = releases.document(session.get_one(tables.Release, row.release))
    selected = observations.of_rollout(session, row, release, policy)
    places = observations.places(session, row.id)
    running = observations.running_versions(session, row.model)
    devices = [_device(device, places, running) for device in selected]
    return {
        "id": row.id,
        "model": row.model,
        "version": state.release_version,
        "release": row.release,
        "status": row.status,
        "wave": state.wave + 1,
        "waves": len(policy.waves),
        "sentence": decision_of(row).sentence,
        "reason": state.reason,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "finished_at": row.finished_at,
        "policy": msgspec.to_builtins(policy),
        "devices": devices,
        "counts": dict(sorted(Counter(device["outcome"] for device in devices).items())),
    }


def _device(
    device: DeviceObservation,
    places: Mapping[str, tables.Assignment],
    running: Mapping[str, str],
) -> RolloutDevice:
    place = places.get(device.device)
    if place is None:
        outcome = "waiting" if device.variant else "unfit"
    elif device.phase is Phase.ROLLED_BACK:
        outcome = "failed"
    elif place.restored_at is not None:
        outcome = "restored"
    else:
        outcome = _OUTCOMES.get(device.phase, "updating") if device.phase else "updating"
    return {
        "device": device.device,
        "hardware_class": device.hardware_class,
        "wave": place.wave + 1 if place else None,
        "phase": str(device.phase or ""),
        "outcome": outcome,
        "variant": device.assigned_variant or device.variant,
        "running_version": running.get(device.device, ""),
        "assigned_at": device.assigned_at,
        "reason": device.reason or device.unfit,
    }


def _encode(decision: Decision) -> str:
    return msgspec.json.encode(decision).decode()
