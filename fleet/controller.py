"""Carries out what the rollout engine decides: a thin shell around `fleet.rollouts.decide`.

Once a second, and whenever something changed, it loads each open rollout, asks the engine, and
applies the answer in one transaction: assignments, new signed desired states, the rollout's own
state. What is published after the commit is only a hint. It keeps nothing in memory but what it has
read and cannot have changed, so that a fleet that is killed at any point goes on where it was.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cloud_sync.release import Release
from edgeml.errors import EdgemlError
from fleet.db import tables
from fleet.rollouts import (
    Advance,
    Assign,
    Block,
    Complete,
    Decision,
    DeviceObservation,
    Halt,
    Hold,
    Pause,
    Policy,
    Proceed,
    Restore,
    Retreat,
    RolloutState,
    RolloutStatus,
    decide,
)
from fleet.services import (
    assignments,
    blocks,
    configuration_rollouts,
    desired,
    observations,
    recovery,
    releases,
    rollout_rows,
)
from fleet.services.audit import append, sync_head
from fleet.services.context import Caller, Services

EVERY_S = 1.0
_MIN_PAUSE_S = 0.05
_SHARE = 0.08  # of the time, at most, that it looks
_MAX_PAUSE_S = 5.0
_SILENCE_S = 0.25
_QUIET_S = 60.0
_LOG = logging.getLogger(__name__)
_CALLER = "controller"
_NOTED = (Advance, Complete, Halt, Pause, Block, Proceed, Retreat)
_FOLLOWED = (Advance, Hold)  # by what the next look finds to do, though nobody says anything
_ENDED = (str(RolloutStatus.HALTED), str(RolloutStatus.ABORTED))


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
        self._memories: dict[str, observations.Memory] = {}
        self._documents: dict[str, Release] = {}
        self._quiet: dict[str, float] = {}
        self._goes_on = False
        self._announced = 0
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
        names = self._open()
        for gone in set(self._memories) - set(names):
            del self._memories[gone]
        for name, status in names.items():
            if status in _ENDED and self._quiet.get(name, 0.0) > self._services.now():
                continue  # it has ended; only a device that fails later is left to see to
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

    def _open(self) -> dict[str, str]:
        """The rollouts in which something may have to be done and their status, oldest first."""
        rollout, place = tables.Rollout, tables.Assignment
        unrestored = exists().where(place.rollout == rollout.id, place.restored_at.is_(None))
        parted = exists().where(
            place.rollout == rollout.id, place.until != "", place.restored_at.is_(None)
        )
        query = select(rollout.id, rollout.status).where(
            or_(
                rollout.status == str(RolloutStatus.RUNNING),
                and_(rollout.status == str(RolloutStatus.PAUSED), parted),
                and_(rollout.status.in_(_ENDED), unrestored),
            )
        )
        with self._services.database.read() as session:
            found = session.execute(query.order_by(rollout.created_at, rollout.id))
            return {name: status for name, status in found}  # noqa: C416 -- rows

    def _run(self) -> None:
        changes = self._services.changes
        while not self._stop.is_set():
            seen, began = changes.count, time.monotonic()
            self._goes_on, self._announced = False, 0
            try:
                self.tick()
            except SQLAlchemyError:
                _LOG.exception("the database cannot be used; rollouts wait")
            took = time.monotonic() - began
            if not self._goes_on:
                self._rest(seen, took * (1 - _SHARE) / _SHARE)
                changes.wait(seen, self._every_s)

    def _rest(self, seen: int, seconds: float) -> None:
        """Leave most of the time to others, however often something changes.

        When others have said something and are silent now, there is nobody to leave it to, and what
        they said last may be what a wave waits for.
        """
        changes = self._services.changes
        end = time.monotonic() + min(max(_MIN_PAUSE_S, seconds), _MAX_PAUSE_S)
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            before = changes.count
            silent = changes.wait(before, min(left, _SILENCE_S)) == before
            if silent and before > seen + self._announced:
                return
            self._stop.wait(min(left, _MIN_PAUSE_S))

    def _turn(self, name: str) -> int:
        services = self._services
        with services.database.read() as session:
            row = rollout_rows.get(session, name)
            known = (row.status, row.state)
            policy, decision = self._decide(session, row)
            if not decision.actions and _says_the_same(row, decision):
                if row.status != str(RolloutStatus.RUNNING):
                    self._quiet[name] = services.now() + _QUIET_S
                return 0
        with services.database.write() as session:
            row = rollout_rows.get(session, name, lock=True)
            if (row.status, row.state) != known:  # an operator came between: look anew
                return 1
            envelopes = self._apply(session, row, policy, decision)
        if any(isinstance(action, _NOTED) for action in decision.actions):
            sync_head(services)
        desired.publish(services, envelopes, patient=True)
        services.changes.announce()
        self._announced += 1
        self._goes_on |= any(isinstance(action, _FOLLOWED) for action in decision.actions)
        return len(decision.actions)

    def _decide(self, session: Session, row: tables.Rollout) -> tuple[Policy, Decision]:
        policy, state = rollout_rows.policy_of(row), rollout_rows.state_of(row)
        now = self._services.now()
        seen = self._observe(session, row, policy)
        return policy, decide(policy, state, seen, now, self._up_since)

    def _observe(
        self, session: Session, row: tables.Rollout, policy: Policy
    ) -> Sequence[DeviceObservation]:
        if row.release is None:
            return configuration_rollouts.observe(session, row, policy)
        if row.release not in self._documents:  # a release never changes
            found = session.get_one(tables.Release, row.release)
            self._documents[row.release] = releases.document(found)
        memory = self._memories.setdefault(row.id, observations.Memory())
        release = self._documents[row.release]
        return observations.of_rollout(session, row, release, policy, memory)

    def _apply(
        self, session: Session, row: tables.Rollout, policy: Policy, decision: Decision
    ) -> dict[str, bytes]:
        """Write a decision; returns the new desired states by device."""
        services = self._services
        state = rollout_rows.state_of(row)
        subject = assignments if row.release is not None else configuration_rollouts
        assigns = [action for action in decision.actions if isinstance(action, Assign)]
        restores = [a.device for a in decision.actions if isinstance(a, Restore)]
        touched: list[str] = []
        if assigns:
            touched += subject.assign_all(services, session, state, policy, assigns)
        for action in decision.actions:
            restores += action.devices if isinstance(action, Retreat) else ()
        if restores:
            touched += subject.restore_all(services, session, state, policy, restores)
        for action in decision.actions:
            match action:
                case Proceed():
                    assignments.proceed(services, session, state, action)
                    touched += action.devices
                case Block() if row.release is not None:
                    caller = Caller(_CALLER, action.reason)
                    blocks.put(
                        services,
                        session,
                        caller,
                        release=row.release,
                        hardware_class=action.hardware_class,
                        rollout=row.id,
                    )
                case Complete() if row.release is None:
                    touched += configuration_rollouts.complete(services, session, row)
        rollout_rows.keep(row, _after(state, decision), decision)
        signed = desired.reissue_all(services, session, touched)
        # Last, as everywhere: whoever waits for the audit log holds all else that it needs.
        self._note(session, row, decision)
        return signed

    def _note(self, session: Session, row: tables.Rollout, decision: Decision) -> None:
        """Keep the turning points in the audit log, with the engine's sentence as the reason."""
        for action in decision.actions:
            if not isinstance(action, _NOTED):
                continue
            if isinstance(action, Complete | Halt):
                row.finished_at = self._services.now()
            caller = Caller(_CALLER, decision.sentence)
            verb = type(action).__name__.lower()
            detail: dict[str, Any] = {}
            match action:
                case Block():
                    detail = {"hardware_class": action.hardware_class}
                case Proceed() | Retreat():
                    caller = Caller(_CALLER, action.reason)
                    detail = {"group": action.group, "devices": list(action.devices)}
            append(self._services, session, caller, f"rollout.{verb}", row.id, **detail)


def _after(state: RolloutState, decision: Decision) -> RolloutState:
    """A rollout's state once a decision is carried out."""
    replace = msgspec.structs.replace
    for action in decision.actions:
        match action:
            case Hold():
                state = replace(state, wave_held_since=action.since)
            case Advance():
                state = replace(state, wave=action.wave, wave_held_since=None)
            case Complete():
                state = replace(state, status=RolloutStatus.COMPLETED)
            case Halt():
                state = replace(state, status=RolloutStatus.HALTED, reason=action.reason)
            case Pause():
                state = replace(
                    state,
                    status=RolloutStatus.PAUSED,
                    reason=action.reason,
                    wave_held_since=None,
                )
    return state


def _says_the_same(row: tables.Rollout, decision: Decision) -> bool:
    """Whether the decision that stands says the same: then there is nothing to write."""
    known = rollout_rows.decision_of(row)
    said = (decision.sentence, decision.gates or known.gates, decision.waits_for)
    return (known.sentence, known.gates, known.waits_for) == said
