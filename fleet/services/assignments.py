"""Releases given to devices and taken back again, many at once, in the caller's transaction."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from cloud_sync.messages import DesiredModel, TrialPolicy
from fleet.db import tables
from fleet.rollouts import Assign, Policy, Proceed, RolloutState
from fleet.services.context import Services
from fleet.services.desired import batched, stage

_TOGETHER = 500


def assign_all(
    services: Services,
    session: Session,
    state: RolloutState,
    policy: Policy,
    actions: Sequence[Assign],
) -> list[str]:
    """Want the release of devices; returns those whose desired states must be signed."""
    given = {action.device: action for action in actions}
    for names in batched(given, _TOGETHER):
        _assign(services, session, state, policy, {name: given[name] for name in names})
    return list(given)


def proceed(services: Services, session: Session, state: RolloutState, action: Proceed) -> None:
    """Let devices of a group go on; their desired states must be signed then."""
    place, wanted = tables.Assignment, tables.DesiredModel
    for names in batched(action.devices, _TOGETHER):
        session.execute(
            update(place)
            .where(place.rollout == state.id, place.device.in_(names))
            .values(until=action.until, until_at=services.now())
            .execution_options(synchronize_session=False)
        )
        session.execute(
            update(wanted)
            .where(wanted.rollout == state.id, wanted.device.in_(names))
            .values(until=action.until, switch_at=action.at, switch_by=action.by)
            .execution_options(synchronize_session=False)
        )


def restore_all(
    services: Services,
    session: Session,
    state: RolloutState,
    policy: Policy,
    devices: Sequence[str],
) -> list[str]:
    """Want of devices again what they ran before; returns those of whom that is something else.

    Of one of which something else is wanted by now nothing changes.
    """
    touched: list[str] = []
    for names in batched(devices, _TOGETHER):
        touched += _restore(services, session, state, policy, names)
    return touched


def _assign(
    services: Services,
    session: Session,
    state: RolloutState,
    policy: Policy,
    given: Mapping[str, Assign],
) -> None:
    names, now = list(given), services.now()
    wanted = _wanted(session, state.model, names)
    attempts = _last_attempts(session, state.model, names)
    known = _tries(session, state.id, names)
    previous = _previous(session, state.model, [n for n in names if n not in known], wanted)
    fresh, again, models = [], [], []
    for name, action in given.items():
        variant, until = action.variant, action.until
        before = wanted.get(name)
        attempt = max(attempts.get(name, 0), before.attempt if before else 0) + 1
        nonce = secrets.token_urlsafe(12)
        place: dict[str, Any] = {
            "rollout": state.id,
            "device": name,
            "variant": variant,
            "attempt": attempt,
            "nonce": nonce,
            "assigned_at": now,
            "phase": "",
            "reason": "",
            "cause": "",
            "phase_at": None,
            "restored_at": None,
            "again": False,
            "tries": known.get(name, 0) + 1,
            "group_name": action.group,
            "until": until,
            "until_at": now,
        }
        if name in known:
            again.append(place)
        else:
            fresh.append({**place, "wave": state.wave, "previous": previous[name]})
        model = DesiredModel(
            release=state.release,
            variant=variant,
            release_version=state.release_version,
            rollout=state.id,
            attempt=attempt,
            nonce=nonce,
            trial=policy.trial,
            data_budget_bytes=policy.limits.data_budget_bytes,
            until=stage(until),
        )
        models.append(_row(name, state.model, model))
    if fresh:
        session.execute(insert(tables.Assignment), fresh)
    if again:
        session.execute(update(tables.Assignment), again)
    _want(session, state.model, names, models)


def _restore(
    services: Services,
    session: Session,
    state: RolloutState,
    policy: Policy,
    names: Sequence[str],
) -> list[str]:
    table = tables.Assignment
    of_mine = (table.rollout == state.id, table.device.in_(names))
    held = session.execute(select(table.device, table.previous).where(*of_mine))
    previous = {device: before for device, before in held}  # noqa: C416 -- rows
    session.execute(
        update(table)
        .where(*of_mine)
        .values(restored_at=services.now(), again=False)
        .execution_options(synchronize_session=False)
    )
    wanted = _wanted(session, state.model, names)
    mine = [n for n in names if n in wanted and wanted[n].rollout == state.id]
    models = []
    for name in mine:
        if not previous.get(name):
            continue
        before = msgspec.json.decode(previous[name], type=DesiredModel)
        earlier = msgspec.structs.replace(
            before,
            rollout="",
            nonce="",
            attempt=wanted[name].attempt + 1,
            trial=policy.trial,
        )
        models.append(_row(name, state.model, earlier))
    _want(session, state.model, mine, models)
    return mine


def _want(
    session: Session, model: str, names: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Replace what is wanted of one model on devices; those without a row want nothing."""
    table = tables.DesiredModel
    session.execute(
        delete(table)
        .where(table.model == model, table.device.in_(names))
        .execution_options(synchronize_session=False)
    )
    if rows:
        session.execute(insert(table), rows)


def _row(device: str, model: str, wanted: DesiredModel) -> dict[str, Any]:
    fields = msgspec.structs.asdict(wanted)
    trial = msgspec.json.encode(wanted.trial).decode()
    return {**fields, "device": device, "model": model, "trial": trial}


def _wanted(session: Session, model: str, names: Sequence[str]) -> dict[str, DesiredModel]:
    table = tables.DesiredModel
    columns = table.__table__.columns
    query = select(*columns).where(table.model == model, table.device.in_(names))
    return {
        row.device: DesiredModel(
            release=row.release,
            variant=row.variant,
            release_version=row.release_version,
            rollout=row.rollout,
            attempt=row.attempt,
            nonce=row.nonce,
            trial=msgspec.json.decode(row.trial, type=TrialPolicy),
            data_budget_bytes=row.data_budget_bytes,
            until=stage(row.until),
            switch_at=row.switch_at,
            switch_by=row.switch_by,
        )
        for row in session.execute(query)
    }


def _last_attempts(session: Session, model: str, names: Sequence[str]) -> dict[str, int]:
    """The highest attempt ever wanted: a lower one would meet the device's blocks."""
    place, rollout = tables.Assignment, tables.Rollout
    query = (
        select(place.device, func.max(place.attempt))
        .join(rollout, rollout.id == place.rollout)
        .where(place.device.in_(names), rollout.model == model)
        .group_by(place.device)
    )
    return {device: number for device, number in session.execute(query)}  # noqa: C416 -- rows


def _tries(session: Session, rollout: str, names: Sequence[str]) -> dict[str, int]:
    place = tables.Assignment
    query = select(place.device, place.tries).where(
        place.rollout == rollout, place.device.in_(names)
    )
    return {device: number for device, number in session.execute(query)}  # noqa: C416 -- rows


def _previous(
    session: Session, model: str, names: Sequence[str], wanted: Mapping[str, DesiredModel]
) -> dict[str, str]:
    """What devices go back to: what they say they run, else what was wanted of them."""
    found = {name: _encode(wanted.get(name)) for name in names}
    for row in _reported(session, model, names):
        if row.running_release:
            found[row.device] = _encode(
                DesiredModel(
                    release=row.running_release,
                    variant=row.running_variant,
                    release_version=row.running_version,
                )
            )
    return found


def _reported(session: Session, model: str, names: Sequence[str]) -> Iterable[Any]:
    said = tables.ReportedModel
    columns = (said.device, said.running_release, said.running_variant, said.running_version)
    return session.execute(
        select(*columns).where(said.model == model, said.device.in_(names))
    ).all()


def _encode(previous: DesiredModel | None) -> str:
    return msgspec.json.encode(previous).decode() if previous else ""
