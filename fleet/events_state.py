"""What event streams tell of: the fleet's state at one moment, and the events between two.

Every process reads the database for itself, so that a client may be connected to any of them.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet.db import tables
from fleet.services import devices, facts, rollout_rows
from fleet.services.context import Services

MAX_DEVICES = 50_000
_MAX_TOLD = 200
_NEWEST = 200


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that changed.

    `labels` are those of the device that it speaks of, for scopes; None where nobody read them.
    """

    type: str
    subject: str
    data: dict[str, Any]
    labels: dict[str, str] | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a device."""

    online: bool
    revoked: bool
    hardware_class: str
    agent_version: str
    configuration: int
    running: tuple[tuple[str, str, str], ...] = ()


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a rollout."""

    model: str
    status: str
    sentence: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of an alert."""

    id: int
    kind: str
    subject: str
    severity: str
    state: str
    summary: str
    acknowledged: bool


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of the fleet."""

    devices: int
    online: int
    frozen: str
    broker_connected: bool


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One moment; `labels` are read only where somebody's scope needs them, and None otherwise."""

    devices: dict[str, Device]
    rollouts: dict[str, Rollout]
    alerts: dict[str, Alert]
    health: Health
    labels: dict[str, dict[str, str]] | None


def read(services: Services, *, labels: bool) -> State:
    """The state of this moment."""
    total, online = devices.count(services)
    with services.database.read() as session:
        return State(
            devices=_devices(session, services.now()) if total <= MAX_DEVICES else {},
            rollouts=_rollouts(session),
            alerts=_alerts(session),
            health=Health(
                devices=total,
                online=online,
                frozen=facts.get(session, facts.FROZEN),
                broker_connected=services.publisher.connected,
            ),
            labels=devices.labels_of(session) if labels else None,
        )


def between(before: State, after: State) -> Iterator[Event]:
    """The events that lead from one moment to the next."""
    yield from _told("alert", before.alerts, after.alerts)
    yield from _told("rollout", before.rollouts, after.rollouts)
    changed = [name for name, device in after.devices.items() if before.devices.get(name) != device]
    if len(changed) > _MAX_TOLD:
        yield Event(type="devices", subject="", data={"changed": len(changed)})
    else:
        for name in changed:
            yield Event(
                type="device",
                subject=name,
                data={"device": name, **_data(after.devices[name])},
                labels=None if after.labels is None else after.labels.get(name, {}),
            )
    if before.health != after.health:
        yield Event(type="health", subject="", data=_data(after.health))


def _told(kind: str, before: Mapping[str, Hashable], after: Mapping[str, Any]) -> Iterator[Event]:
    for name, one in after.items():
        if before.get(name) != one:
            yield Event(type=kind, subject=name, data={"id": name, **_data(one)})


def _data(one: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(one)
    if isinstance(one, Device):
        found["running"] = {
            model: {"version": version, "phase": phase} for model, version, phase in one.running
        }
    return found


def _devices(session: Session, now: float) -> dict[str, Device]:
    table, said = tables.Device, tables.ReportedModel
    running: dict[str, list[tuple[str, str, str]]] = {}
    models = select(said.device, said.model, said.running_version, said.phase)
    for device, model, version, phase in session.execute(models.order_by(said.device, said.model)):
        running.setdefault(device, []).append((model, version, phase))
    columns = (
        table.id,
        table.online,
        table.last_seen,
        table.revoked_at,
        table.hardware_class,
        table.agent_version,
        table.reported_config_version,
    )
    return {
        name: Device(
            online=online and (seen or 0.0) > now - devices.ONLINE_S,
            revoked=revoked is not None,
            hardware_class=hardware_class,
            agent_version=agent,
            configuration=configuration,
            running=tuple(running.get(name, ())),
        )
        for name, online, seen, revoked, hardware_class, agent, configuration in session.execute(
            select(*columns)
        )
    }


def _rollouts(session: Session) -> dict[str, Rollout]:
    table = tables.Rollout
    query = select(table).order_by(table.created_at.desc()).limit(_NEWEST)
    return {
        row.id: Rollout(
            model=row.model, status=row.status, sentence=rollout_rows.decision_of(row).sentence
        )
        for row in session.scalars(query)
    }


def _alerts(session: Session) -> dict[str, Alert]:
    table = tables.Alert
    newest = select(func.max(table.id)).scalar_subquery()
    query = select(table).where(table.id > newest - _NEWEST).order_by(table.id)
    return {
        str(row.id): Alert(
            id=row.id,
            kind=row.kind,
            subject=row.subject,
            severity=row.severity,
            state=row.state,
            summary=row.summary,
            acknowledged=row.acknowledged_at is not None,
        )
        for row in session.scalars(query)
    }
