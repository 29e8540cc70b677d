"""Devices: who is there, what they say, and how they are configured."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from fleet.access.scope import require_labels
from fleet.db import tables
from fleet.problem import NotFound
from fleet.resources import DesiredVersion, DeviceInfo, Page
from fleet.rest.etags import etag_of, require_match
from fleet.rollouts.selector import EVERYTHING, Selector, check_labels, parse_selector
from fleet.services import configuration, desired, reported_models
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.selection import chosen

ONLINE_S = 120.0
MAX_PAGE = 1000


def list_devices(
    services: Services,
    *,
    selector: str = "",
    after: str = "",
    limit: int = MAX_PAGE,
    scope: Selector = EVERYTHING,
    where: Sequence[ColumnElement[bool]] = (),
) -> Page[DeviceInfo]:
    """The devices of a scope that a label selector chooses, by name.

    Args:
        services: the fleet.
        selector: a label selector; empty, all.
        after: the last one of the page before.
        limit: how many at most.
        scope: what whoever asks may see.
        where: more conditions on `tables.Device`.

    Raises:
        UserError: the selector cannot be read.
    """
    table = tables.Device
    limit = max(1, min(limit, MAX_PAGE))
    query = select(table).where(table.id > after, chosen(parse_selector(selector)), chosen(scope))
    query = query.where(*where)
    with services.database.read() as session:
        rows = list(session.scalars(query.order_by(table.id).limit(limit + 1)))
        items = _infos(services, session, rows[:limit])
    return {"items": items, "next": items[-1]["device"] if len(rows) > limit else None}


def show(services: Services, device: str) -> DeviceInfo:
    """One device.

    Raises:
        NotFound: there is none of that name.
    """
    with services.database.read() as session:
        return _infos(services, session, [_get(session, device)])[0]


def configure(
    services: Services, caller: Caller, device: str, settings: dict[str, Any]
) -> DeviceInfo:
    """Replace what a device's own layer says; it goes out as a new desired state.

    Args:
        services: the fleet.
        caller: who and why.
        device: its id.
        settings: what `Configuration` holds, or a part of it; unknown keys are errors.

    Raises:
        UserError: the settings are wrong; the sentence names the key.
        NotFound: there is no such device.
    """
    configuration.set_own(services, caller, device, settings)
    return show(services, device)


def labels(services: Services, device: str) -> dict[str, str]:
    """A device's labels.

    Raises:
        NotFound: there is no such device.
    """
    with services.database.read() as session:
        _get(session, device)
        return labels_of(session, [device]).get(device, {})


def set_labels(
    services: Services,
    caller: Caller,
    device: str,
    labels: dict[str, str],
    *,
    if_match: str = "",
) -> DeviceInfo:
    """Replace a device's labels; with `if_match` only if they are those of that ETag.

    Raises:
        Changed: they are others.
        UserError: a label is not allowed.
        Forbidden: the device would be outside the caller's scope.
        NotFound: there is no such device.
    """
    checked = check_labels(labels)
    require_labels(checked, caller.scope)
    with audited(services, caller, "device.label", device, labels=checked) as session:
        _get(session, device, lock=True)
        require_match(if_match, etag_of(labels_of(session, [device]).get(device, {})))
        session.execute(delete(tables.DeviceLabel).where(tables.DeviceLabel.device == device))
        session.add_all(
            tables.DeviceLabel(device=device, key=key, value=value)
            for key, value in checked.items()
        )
        envelopes = configuration.refresh_and_sign(services, session, [device])
    desired.publish(services, envelopes)
    return show(services, device)


def count(services: Services, scope: Selector = EVERYTHING) -> tuple[int, int]:
    """How many devices there are in a scope, and how many of them are online."""
    table = tables.Device
    every = select(func.count()).select_from(table).where(chosen(scope))
    there = every.where(table.online, table.last_seen > services.now() - ONLINE_S)
    with services.database.read() as session:
        return session.scalar(every) or 0, session.scalar(there) or 0


def labels_of(session: Session, devices: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
    """The labels of some devices, or of all, by device."""
    table = tables.DeviceLabel
    query = select(table.device, table.key, table.value)
    if devices is not None:
        query = query.where(table.device.in_(devices))
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for device, key, value in session.execute(query.order_by(table.device, table.key)):
        found[device][key] = value
    return found


def is_online(services: Services, row: tables.Device) -> bool:
    """Whether a device is there, as far as anyone can tell."""
    return row.online and (row.last_seen or 0.0) > services.now() - ONLINE_S


def _get(session: Session, device: str, *, lock: bool = False) -> tables.Device:
    row = session.get(tables.Device, device, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise NotFound(
            f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
        )
    return row


def _infos(services: Services, session: Session, rows: Sequence[tables.Device]) -> list[DeviceInfo]:
    """A page of devices: each table is asked once for all of them."""
    names = [row.id for row in rows]
    labels, said = labels_of(session, names), reported_models.states_of(session, rows)
    issued = _issued(session, rows)
    return [
        {
            "device": row.id,
            "labels": labels.get(row.id, {}),
            "enrolled_at": row.enrolled_at,
            "revoked_at": row.revoked_at,
            "online": is_online(services, row),
            "last_seen": row.last_seen,
            "hardware_class": row.hardware_class,
            "agent_version": row.agent_version,
            "boot_id": row.boot_id,
            "capabilities": msgspec.json.decode(row.capabilities) if row.capabilities else None,
            "reported": msgspec.to_builtins(said[row.id]) if row.id in said else None,
            "desired": issued.get(row.id),
            "configuration": msgspec.json.decode(row.configuration),
            "key_id": row.key_id,
        }
        for row in rows
    ]


def _issued(session: Session, rows: Sequence[tables.Device]) -> dict[str, DesiredVersion]:
    """What was last issued to devices, without the envelopes themselves."""
    table = tables.DesiredState
    names = [row.id for row in rows]
    columns = (table.device, table.epoch, table.counter, table.issued_at, table.expires_at)
    found = {
        one.device: one for one in session.execute(select(*columns).where(table.device.in_(names)))
    }
    models = desired.models_of(session, list(found))
    return {
        row.id: {
            "epoch": found[row.id].epoch,
            "counter": found[row.id].counter,
            "issued_at": found[row.id].issued_at,
            "expires_at": found[row.id].expires_at,
            "models": msgspec.to_builtins(models.get(row.id, {})),
            "config_version": row.config_version,
        }
        for row in rows
        if row.id in found
    }
