"""Rollouts made and begun: of a release or of a configuration, at once or as a draft."""

import secrets
from collections.abc import Collection

import msgspec
from sqlalchemy import insert, literal, select
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Forbidden
from fleet.resources import RolloutInfo
from fleet.rollouts import Decision, Policy, RolloutState, RolloutStatus, Waiting, decide
from fleet.rollouts.selector import Selector, parse_selector
from fleet.services import releases, trust
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.desired import batched
from fleet.services.rollout_rows import encoded, get, keep, policy_of, require_status, state_of
from fleet.services.rollout_shown import show
from fleet.services.selection import chosen

_TOGETHER = 500


def create(
    services: Services,
    caller: Caller,
    model: str,
    version: str,
    policy: Policy,
    *,
    draft: bool = False,
) -> RolloutInfo:
    """Create a rollout of a release; it begins at once, unless it is a draft.

    Raises:
        NotFound: the release is not registered.
        TrustError: releases are signed here, and this one is not.
        UserError: a number in the policy is not finite or too large.
    """
    with services.database.read() as session:
        digest = releases.require(session, model, version).digest
    trust.require_signed(services, model, version, digest)
    return begin(services, caller, fresh(model, version, digest), policy, draft=draft)


def begin(
    services: Services,
    caller: Caller,
    state: RolloutState,
    policy: Policy,
    *,
    draft: bool = False,
    revision: str | None = None,
    members: Collection[str] | None = None,
) -> RolloutInfo:
    """Create a rollout, of a release or (with `revision`) of a configuration.

    Args:
        services: the fleet.
        caller: who and why; the selector is confined to the caller's scope.
        state: what is rolled out.
        policy: how.
        draft: wait for `start`.
        revision: the digest of a configuration's revision.
        members: the devices of a policy whose membership is fixed; by default those that it
            selects when it starts.

    Raises:
        UserError: a number in the policy is not finite or too large.
        Forbidden: it would block the release where the caller does not see.
    """
    from fleet.access.scope import confine, note_rollout

    _check_lasting(policy)
    _check_blocking(policy, caller)
    selector = confine(policy.selector, caller.scope)
    policy = msgspec.structs.replace(policy, selector=selector)
    status = RolloutStatus.DRAFT if draft else RolloutStatus.RUNNING
    state = msgspec.structs.replace(state, status=status)
    told = {"release" if revision is None else "revision": revision or state.release}
    with audited(
        services,
        caller,
        "rollout.create",
        state.id,
        policy=msgspec.to_builtins(policy),
        draft=draft,
        **told,
    ) as session:
        session.add(
            tables.Rollout(
                id=state.id,
                model=state.model,
                release=None if revision else state.release,
                revision=revision,
                policy=msgspec.json.encode(policy).decode(),
                status=str(state.status),
                state=msgspec.json.encode(state).decode(),
                decision=encoded(_first(policy, state, services.now())),
                created_at=services.now(),
                created_by=caller.actor,
                finished_at=None,
                started_at=None if draft else services.now(),
            )
        )
        note_rollout(session, state.id, policy.selector)
        if policy.membership == "fixed" and (members is not None or not draft):
            _fix(session, state.id, policy, members, caller.scope)
    return show(services, state.id, scope=caller.scope)


def start(services: Services, caller: Caller, rollout: str) -> RolloutInfo:
    """Let a draft begin.

    Raises:
        NotFound: there is no such rollout.
        Conflict: it is no draft.
    """
    with audited(services, caller, "rollout.start", rollout) as session:
        row = get(session, rollout, lock=True)
        state, policy = state_of(row), policy_of(row)
        require_status(state, "start", {RolloutStatus.DRAFT})
        state = msgspec.structs.replace(
            state, status=RolloutStatus.RUNNING, started_by=caller.actor
        )
        row.started_at = services.now()
        keep(row, state, _first(policy, state, services.now()))
        if policy.membership == "fixed":
            _fix(session, rollout, policy, None, caller.scope)
    return show(services, rollout, scope=caller.scope)


def fresh(model: str, version: str, digest: str) -> RolloutState:
    """The state of a rollout of a release that has not begun."""
    return RolloutState(
        id=f"{model[:24]}-{version[:16]}-{secrets.token_hex(3)}",
        model=model,
        release=digest,
        release_version=version,
    )


def _first(policy: Policy, state: RolloutState, now: float) -> Decision:
    """What is said before the controller has looked: what the engine says of no device."""
    first = decide(policy, state, (), now)
    if first.waits_for in {Waiting.START, Waiting.APPROVAL, Waiting.START_TIME}:
        return first
    return Decision(actions=(), sentence="It has not begun yet.", gates=())


def _fix(
    session: Session,
    rollout: str,
    policy: Policy,
    members: Collection[str] | None,
    scope: Selector,
) -> None:
    """Keep who belongs to a rollout whose devices are fixed, as far as they are in a scope."""
    session.flush()
    table, device = tables.RolloutMember, tables.Device
    where = device.revoked_at.is_(None) & chosen(scope)
    if members is None:
        selected = [where & chosen(parse_selector(policy.selector))]
    else:
        selected = [where & device.id.in_(names) for names in batched(sorted(members), _TOGETHER)]
    for condition in selected:
        query = select(literal(rollout), device.id).where(condition)
        session.execute(insert(table).from_select(["rollout", "device"], query))


def _check_blocking(policy: Policy, caller: Caller) -> None:
    """Refuse what would keep a release from devices that the caller does not see."""
    if policy.block_class and caller.scope.requirements:
        raise Forbidden(
            "The policy may not block hardware classes.",
            why=f"That holds in the whole fleet, and your scope is {caller.scope}.",
            fix="Leave block_class out, or ask somebody whose scope is the whole fleet.",
        )


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
