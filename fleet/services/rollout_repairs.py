"""What operators do when a rollout does not go well: retry, override, roll back."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.evidence import Verdict
from cloud_sync.messages import DesiredModel, Phase
from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import RolloutInfo
from fleet.rollouts import Decision, Override, Policy, RolloutStatus
from fleet.rollouts.observe import ENDED
from fleet.rollouts.policy import Wave
from fleet.services import observations, releases, trust
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.rollout_begin import begin, fresh
from fleet.services.rollout_rows import (
    decision_of,
    get,
    keep,
    policy_of,
    require_status,
    state_of,
    told,
)
from fleet.services.rollout_shown import show


def retry(
    services: Services, caller: Caller, rollout: str, devices: Sequence[str] = ()
) -> RolloutInfo:
    """Try again the devices that failed or refused, or got back what they ran; all or those named.

    The rollout goes on, if it had stopped.

    Raises:
        NotFound: there is no such rollout, or a device that is named has no part in it.
        Conflict: it is a draft or was aborted, or there is nothing to try again.
    """
    with audited(services, caller, "rollout.retry", rollout, devices=list(devices)) as session:
        row = get(session, rollout, lock=True)
        state = state_of(row)
        require_status(
            state, "retry", set(RolloutStatus) - {RolloutStatus.DRAFT, RolloutStatus.ABORTED}
        )
        _require_free(session, row)
        places = _to_retry(session, row, policy_of(row), services.now())
        missing = set(devices) - set(places)
        if missing:
            raise NotFound(
                f"{min(missing)[:64]!r} is not to be tried again.",
                why="It has no part in the rollout, or it has not failed.",
            )
        chosen_places = [places[name] for name in (devices or places)]
        if not chosen_places:
            raise Conflict("There is nothing to try again.", why="No device has failed.")
        for place in chosen_places:
            place.again = True
        reason = told("Tried again", caller)
        state = msgspec.structs.replace(
            state, status=RolloutStatus.RUNNING, wave_held_since=None, reason=reason
        )
        row.finished_at = None
        keep(row, state, Decision(actions=(), sentence=reason, gates=()))
    return show(services, rollout, scope=caller.scope)


def override(services: Services, caller: Caller, rollout: str, gate: str) -> RolloutInfo:
    """Let a gate of the present wave pass, though it does not; a paused rollout stays paused.

    It counts in this wave alone, and for a result that is no worse than it is now.

    Raises:
        Forbidden: its policy asks for approval, and the caller made or started the rollout.
        NotFound: there is no such rollout, or no such gate in its wave.
        Conflict: the gate passes, or the rollout has ended.
        UserError: there is no written reason.
    """
    from fleet.access.approval import check_override

    if not caller.reason.strip():
        raise UserError(
            "An override needs a reason.",
            why="It is kept in the audit log, and shown beside the gate.",
            fix="Write it with --why.",
        )
    with audited(services, caller, "rollout.override", rollout, gate=gate[:300]) as session:
        row = get(session, rollout, lock=True)
        state = state_of(row)
        if policy_of(row).approval:
            check_override(caller, row.created_by, state.started_by)
        require_status(state, "override", {RolloutStatus.RUNNING, RolloutStatus.PAUSED})
        known = {one.name: one for one in decision_of(row).gates}
        if gate not in known:
            fix = f"Its gates: {', '.join(known) or 'none yet'}."
            raise NotFound(f"There is no gate {gate[:200]!r} in this wave.", fix=fix)
        if known[gate].result is Verdict.PASS:
            raise Conflict(f"The gate {gate} passes.", why="There is nothing to override.")
        given = Override(
            gate=gate,
            wave=state.wave,
            result=known[gate].result,
            by=caller.actor,
            at=services.now(),
            reason=caller.reason,
        )
        state = msgspec.structs.replace(state, overrides=(*state.overrides, given))
        keep(row, state, decision_of(row))
    return show(services, rollout, scope=caller.scope)


def rollback(services: Services, caller: Caller, rollout: str, to: str = "") -> RolloutInfo:
    """Roll the devices that a rollout reached back to a version by its name, all of them at once.

    It is a rollout of its own, with the trial of the first one on each device.

    Args:
        services: the fleet.
        caller: who and why.
        rollout: that has ended.
        to: the version; by default the one that all of them ran before.

    Raises:
        NotFound: there is no such rollout or version.
        Conflict: it has not ended, or no device runs its release.
        UserError: they ran several versions before, and none is named.
    """
    with services.database.read() as session:
        row = get(session, rollout)
        state, policy = state_of(row), policy_of(row)
        require_status(state, "rollback", set(ENDED))
        if row.release is None:
            raise Conflict(
                "A configuration goes back by its layer.",
                fix="See: edgeml devices configuration undo --help",
            )
        before = _before(session, row)
    version = to or _only(rollout, before)
    with services.database.read() as session:
        digest = releases.require(session, state.model, version).digest
    trust.require_signed(services, state.model, version, digest)
    back = Policy(
        selector=policy.selector,
        waves=(Wave(percent=100),),
        soak_s=policy.soak_s,
        on_failure="pause",
        membership="fixed",
        limits=policy.limits,
        trial=policy.trial,
    )
    return begin(services, caller, fresh(state.model, version, digest), back, members=before)


def _to_retry(
    session: Session, row: tables.Rollout, policy: Policy, now: float
) -> dict[str, tables.Assignment]:
    """Places of devices that failed, refused, were taken back, or did not finish in time."""
    table = tables.Assignment
    late = now - policy.limits.device_timeout_s
    found = {}
    for place in session.scalars(select(table).where(table.rollout == row.id)):
        settled = place.phase in {Phase.COMMITTED, Phase.REFUSED, Phase.ROLLED_BACK}
        failed = place.phase in {Phase.REFUSED, Phase.ROLLED_BACK}
        if failed or place.restored_at is not None or (not settled and place.assigned_at < late):
            found[place.device] = place
    failing = {f for f in decision_of(row).gates if f.result is Verdict.FAIL}
    if failing and not found:
        # Committed, and a gate fails: what it showed has to be shown again.
        committed = select(table).where(table.rollout == row.id, table.phase == Phase.COMMITTED)
        found = {place.device: place for place in session.scalars(committed)}
    return found


def _require_free(session: Session, row: tables.Rollout) -> None:
    """Refuse to go on with a rollout whose devices another one has by now.

    Raises:
        Conflict: it has ended, and another rollout of the model has one of them.
    """
    place = tables.Assignment
    mine = set(session.scalars(select(place.device).where(place.rollout == row.id)))
    taken = {name: other for name, other in observations.busy(session, row).items() if name in mine}
    if taken:
        name = min(taken)
        raise Conflict(
            f"The rollout {row.id} cannot go on.",
            why=f"{name} belongs to {taken[name]} by now.",
            fix=f"Let that one end, or abort it: edgeml rollout abort {taken[name]}",
        )


def _before(session: Session, row: tables.Rollout) -> dict[str, str]:
    """The devices of which this rollout's release is still wanted, and what they ran before."""
    place, wanted = tables.Assignment, tables.DesiredModel
    query = (
        select(place.device, place.previous)
        .join(wanted, wanted.device == place.device)
        .where(place.rollout == row.id, wanted.model == row.model, wanted.rollout == row.id)
    )
    return {
        device: msgspec.json.decode(previous, type=DesiredModel).release_version if previous else ""
        for device, previous in session.execute(query)
    }


def _only(rollout: str, before: dict[str, str]) -> str:
    versions = sorted({version for version in before.values() if version})
    if not before:
        raise Conflict(
            f"The rollout {rollout} has nothing to take back.", why="No device is to run it now."
        )
    if len(versions) != 1:
        raise UserError(
            "It is not said to which version.",
            why=f"The devices ran {', '.join(versions) or 'nothing'} before.",
            fix="Name one: edgeml rollout rollback ID --to VERSION",
        )
    return versions[0]
