"""What operators do with rollouts: create, start, approve, pause, resume, abort, retry, override.

What happens next is decided by `fleet.rollouts.decide` alone; the controller carries it out.
"""

import msgspec

from fleet.problem import Conflict
from fleet.resources import RolloutInfo
from fleet.rollouts import Approval, Decision, RolloutStatus
from fleet.rollouts.observe import ENDED
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.plans import plan
from fleet.services.rollout_begin import begin, create, start
from fleet.services.rollout_repairs import override, retry, rollback
from fleet.services.rollout_rows import (
    decision_of,
    get,
    keep,
    policy_of,
    require_status,
    state_of,
    told,
)
from fleet.services.rollout_shown import explain, list_rollouts, page, show, standing

__all__ = [
    "abort",
    "approve",
    "begin",
    "create",
    "decision_of",
    "explain",
    "get",
    "list_rollouts",
    "override",
    "page",
    "pause",
    "plan",
    "policy_of",
    "resume",
    "retry",
    "rollback",
    "show",
    "standing",
    "start",
    "state_of",
]


def approve(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """Let a rollout begin, or its present wave, as its policy asks.

    Raises:
        NotFound: there is no such rollout.
        Conflict: nothing waits for an approval.
        Forbidden: the caller may not, or made or started the rollout.
    """
    from fleet.access.approval import check_approval

    with audited(services, caller, "rollout.approve", rollout) as session:
        row = get(session, rollout, lock=True)
        state, policy = state_of(row), policy_of(row)
        check_approval(caller, row.created_by, state.started_by)
        require_status(
            state,
            "approve",
            {RolloutStatus.DRAFT, RolloutStatus.RUNNING, RolloutStatus.PAUSED},
        )
        wave = state.wave if policy.approval == "each-wave" else 0
        if not policy.approval or any(known.wave == wave for known in state.approvals):
            why = "Its policy asks for none." if not policy.approval else "It has one."
            raise Conflict(f"The rollout {rollout} waits for no approval.", why=why)
        given = Approval(wave=wave, by=caller.actor, at=services.now(), reason=caller.reason)
        state = msgspec.structs.replace(state, approvals=(*state.approvals, given))
        keep(row, state, decision_of(row))
    return show(services, rollout, scope=caller.scope)


def pause(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """Stop giving the release to more devices, until it is resumed."""
    return _change(services, caller, rollout, "pause", RolloutStatus.PAUSED)


def resume(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """Go on with a paused rollout."""
    return _change(services, caller, rollout, "resume", RolloutStatus.RUNNING)


def abort(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """End a rollout; its failure policy says whether devices get back what they ran before."""
    return _change(services, caller, rollout, "abort", RolloutStatus.ABORTED)


def _change(
    services: Services, caller: Caller, rollout: str, verb: str, to: RolloutStatus
) -> RolloutInfo:
    with audited(services, caller, f"rollout.{verb}", rollout) as session:
        row = get(session, rollout, lock=True)
        state = state_of(row)
        open_ = {RolloutStatus.RUNNING, RolloutStatus.PAUSED, RolloutStatus.DRAFT}
        allowed = {
            RolloutStatus.PAUSED: {RolloutStatus.RUNNING},
            RolloutStatus.RUNNING: {RolloutStatus.PAUSED},
            RolloutStatus.ABORTED: open_,
        }[to]
        require_status(state, verb, allowed)
        past = {"pause": "Paused", "resume": "Resumed", "abort": "Aborted"}[verb]
        held = state.wave_held_since if to is RolloutStatus.PAUSED else None
        state = msgspec.structs.replace(
            state, status=to, wave_held_since=held, reason=told(past, caller)
        )
        keep(row, state, Decision(actions=(), sentence=state.reason, gates=()))
        if to in ENDED:
            row.finished_at = services.now()
    return show(services, rollout, scope=caller.scope)
