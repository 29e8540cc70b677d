"""Carries out what the rollout engine decides: a thin shell around `fleet.rollouts.decide`.

Once a second, and whenever something changed, it loads each open rollout, asks the engine, and
applies the answer in one transaction: assignments, new signed desired states, the rollout's own
state. What is published after the commit is only a hint. It keeps nothing in memory, so that a
fleet that is killed at any point goes on where it was.
"""

import logging
import secrets
import threading

import msgspec
from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cloud_sync.messages import DesiredModel
from edgeml.errors import EdgemlError
from fleet.db import tables
from fleet.rollouts import (
    Advance,
    Assign,
    Complete,
    Decision,
    Halt,
    Policy,
    Restore,
    RolloutState,
    RolloutStatus,
    decide,
)
from fleet.rollouts.observe import Hold
from fleet.services import desired, observations, recovery, releases, rollouts
from fleet.services.audit import append, sync_head
from fleet.services.context import Caller, Services

EVERY_S = 1.0
_MIN_PAUSE_S = 0.05
_LOG = logging.getLogger(__name__)
_CALLER = "controller"
_NOTED = (Advance, Complete, Halt)


class Controller:
    """Runs `tick` on a thread of its own.

    Args:
        services: the fleet.
        every_s: the longest time between two looks.
    """

    def __init__(self, services: Services, *, every_s: float = EVERY_S) -> None:
        self._services = services
        self._every_s = every_s
        self._up_since = services.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the transaction that is under way."""
        self._stop.set()
        self._services.changes.announce()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> int:
        """Look at every open rollout once; returns how many actions were carried out."""
        if recovery.frozen(self._services):
            return 0
        done = 0
        for name in self._open():
            try:
                done += self._turn(name)
            except EdgemlError as error:
                _LOG.error("rollout %s waits: %s", name, error)
                self._services.counters.add("controller.faults")
            except Exception:  # noqa: BLE001 -- see below
                # One rollout's fault must not stop the others, nor end the thread unseen.
                _LOG.exception("rollout %s waits", name)
                self._services.counters.add("controller.faults")
        return done

    def _open(self) -> list[str]:
        """The rollouts in which something may have to be done, oldest first."""
        unrestored = exists().where(
            tables.Assignment.rollout == tables.Rollout.id, tables.Assignment.restored_at.is_(None)
        )
        ended = (str(RolloutStatus.HALTED), str(RolloutStatus.ABORTED))
        query = select(tables.Rollout.id).where(
            or_(
                tables.Rollout.status == str(RolloutStatus.RUNNING),
                and_(tables.Rollout.status.in_(ended), unrestored),
            )
        )
        with self._services.database.read() as session:
            return list(session.scalars(query.order_by(tables.Rollout.created_at)))

    def _run(self) -> None:
        seen = 0
        while not self._stop.is_set():
            try:
                self.tick()
            except SQLAlchemyError:
                _LOG.exception("the database cannot be used; rollouts wait")
            self._stop.wait(_MIN_PAUSE_S)
            seen = self._services.changes.wait(seen, self._every_s)

    def _turn(self, name: str) -> int:
        services = self._services
        with services.database.read() as session:
            row, _, decision = self._decide(session, name)
            if not decision.actions and _says_the_same(row, decision):
                return 0
        with services.database.write() as session:
            # Decided again within the writing transaction: what was read may have changed.
            row, policy, decision = self._decide(session, name)
            envelopes = self._apply(session, row, policy, decision)
        if any(isinstance(action, _NOTED) for action in decision.actions):
            sync_head(services)
        desired.publish(services, envelopes)
        services.changes.announce()
        return len(decision.actions)

    def _decide(self, session: Session, name: str) -> tuple[tables.Rollout, Policy, Decision]:
        row = rollouts.get(session, name)
        policy = rollouts.policy_of(row)
        release = releases.document(session.get_one(tables.Release, row.release))
        seen = observations.of_rollout(session, row, release, policy)
        state, now = rollouts.state_of(row), self._services.now()
        return row, policy, decide(policy, state, seen, now, self._up_since)

    def _apply(
        self, session: Session, row: tables.Rollout, policy: Policy, decision: Decision
    ) -> dict[str, bytes]:
        """Write a decision; returns the new desired states by device."""
        state = rollouts.state_of(row)
        touched: list[str] = []
        for action in decision.actions:
            match action:
                case Assign():
                    self._assign(session, state, policy, action)
                    touched.append(action.device)
                case Restore():
                    if self._restore(session, state, policy, action.device):
                        touched.append(action.device)
                case Hold():
                    state = msgspec.structs.replace(state, wave_held_since=action.since)
                case Advance():
                    state = msgspec.structs.replace(state, wave=action.wave, wave_held_since=None)
                case Complete():
                    state = msgspec.structs.replace(state, status=RolloutStatus.COMPLETED)
                case Halt():
                    state = msgspec.structs.replace(
                        state, status=RolloutStatus.HALTED, reason=action.reason
                    )
        rollouts.keep(row, state, decision)
        signed = desired.reissue_all(self._services, session, touched)
        # Last, as everywhere: whoever waits for the audit log holds all else that it needs.
        self._note(session, row, decision)
        return signed

    def _assign(
        self, session: Session, state: RolloutState, policy: Policy, action: Assign
    ) -> None:
        place = session.get(tables.Assignment, (state.id, action.device))
        now = self._services.now()
        before = desired.models(session, action.device).get(state.model)
        attempt = _last_attempt(session, action.device, state.model, before) + 1
        nonce = secrets.token_urlsafe(12)
        if place is None:
            place = tables.Assignment(
                rollout=state.id,
                device=action.device,
                wave=state.wave,
                previous=_encode(_previous(session, state, action.device, before)),
                restored_at=None,
            )
            session.add(place)
        place.variant = action.variant
        place.attempt = attempt
        place.nonce = nonce
        place.assigned_at = now
        place.phase = ""
        place.reason = ""
        place.phase_at = None
        wanted = DesiredModel(
            release=state.release,
            variant=action.variant,
            release_version=state.release_version,
            rollout=state.id,
            attempt=attempt,
            nonce=nonce,
            trial=policy.trial,
            data_budget_bytes=policy.limits.data_budget_bytes,
        )
        desired.want(session, action.device, state.model, wanted)

    def _restore(self, session: Session, state: RolloutState, policy: Policy, device: str) -> bool:
        """Want the earlier release again; returns whether that changes what is wanted."""
        place = session.get_one(tables.Assignment, (state.id, device))
        place.restored_at = self._services.now()
        wanted = desired.models(session, device).get(state.model)
        if wanted is None or wanted.rollout != state.id:
            return False
        earlier = None
        if place.previous:
            before = msgspec.json.decode(place.previous, type=DesiredModel)
            earlier = msgspec.structs.replace(
                before, rollout="", nonce="", attempt=wanted.attempt + 1, trial=policy.trial
            )
        desired.want(session, device, state.model, earlier)
        return True

    def _note(self, session: Session, row: tables.Rollout, decision: Decision) -> None:
        """Keep the turning points in the audit log, with the engine's sentence as the reason."""
        for action in decision.actions:
            if not isinstance(action, _NOTED):
                continue
            if not isinstance(action, Advance):
                row.finished_at = self._services.now()
            caller = Caller(_CALLER, decision.sentence)
            verb = type(action).__name__.lower()
            append(self._services, session, caller, f"rollout.{verb}", row.id)


def _previous(
    session: Session, state: RolloutState, device: str, before: DesiredModel | None
) -> DesiredModel | None:
    """What the device goes back to: what it says it runs, else what was wanted of it."""
    said = session.get(tables.ReportedModel, (device, state.model))
    if said is None or not said.running_release:
        return before
    return DesiredModel(
        release=said.running_release,
        variant=said.running_variant,
        release_version=said.running_version,
    )


def _last_attempt(session: Session, device: str, model: str, before: DesiredModel | None) -> int:
    """The highest attempt ever wanted: a lower one would meet the device's blocks."""
    query = (
        select(func.max(tables.Assignment.attempt))
        .join(tables.Rollout, tables.Rollout.id == tables.Assignment.rollout)
        .where(tables.Assignment.device == device, tables.Rollout.model == model)
    )
    return max(session.scalar(query) or 0, before.attempt if before else 0)


def _encode(previous: DesiredModel | None) -> str:
    return msgspec.json.encode(previous).decode() if previous else ""


def _says_the_same(row: tables.Rollout, decision: Decision) -> bool:
    """Whether the decision that stands says the same: then there is nothing to write."""
    known = rollouts.decision_of(row)
    return (known.sentence, known.gates) == (decision.sentence, decision.gates or known.gates)
