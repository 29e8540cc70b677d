"""Devices: who is there, what they say, and how they are configured."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from cloud_sync.address import require_private
from cloud_sync.messages import Configuration, DataBudget, SourceConfig
from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import NotFound
from fleet.resources import DesiredVersion, DeviceInfo, Page
from fleet.rollouts.selector import check_labels, parse_selector
from fleet.services import desired, reported
from fleet.services.audit import audited
from fleet.services.context import Caller, Services

ONLINE_S = 120.0
MAX_PAGE = 1000
MAX_CONFIGURATION_BYTES = 128 << 10  # the rest of a desired state is for its models
_MAX_SOURCES = 64
_MIN_TELEMETRY_S = 0.1


def list_devices(
    services: Services, *, selector: str = "", after: str = "", limit: int = MAX_PAGE
) -> Page[DeviceInfo]:
    """The devices that a label selector chooses, by name.

    Raises:
        UserError: the selector cannot be read.
    """
    wanted = parse_selector(selector)
    limit = max(1, min(limit, MAX_PAGE))
    with services.database.read() as session:
        labels = labels_of(session)
        query = select(tables.Device).where(tables.Device.id > after).order_by(tables.Device.id)
        rows: list[tables.Device] = []
        for row in session.scalars(query):
            if wanted.matches(labels.get(row.id, {})):
                rows.append(row)
            if len(rows) > limit:
                break
        items = [_info(services, session, row, labels.get(row.id, {})) for row in rows[:limit]]
    return {"items": items, "next": items[-1]["device"] if len(rows) > limit else None}


def show(services: Services, device: str) -> DeviceInfo:
    """One device.

    Raises:
        NotFound: there is none of that name.
    """
    with services.database.read() as session:
        row = _get(session, device)
        return _info(services, session, row, labels_of(session, device).get(device, {}))


def configure(
    services: Services, caller: Caller, device: str, settings: dict[str, Any]
) -> DeviceInfo:
    """Replace a device's configuration; it goes out as a new desired state.

    Args:
        services: the fleet.
        caller: who and why.
        device: its id.
        settings: what `Configuration` holds, without its version; unknown keys are errors.

    Raises:
        UserError: the settings are wrong; the sentence names the key.
        NotFound: there is no such device.
    """
    wanted = parse_configuration(settings)
    with audited(services, caller, "device.configure", device, settings=settings) as session:
        row = _get(session, device, lock=True)
        row.config_version += 1
        wanted = msgspec.structs.replace(wanted, config_version=row.config_version)
        row.configuration = msgspec.json.encode(wanted).decode()
        envelope = None if row.unreconciled else desired.reissue(services, session, device)
    if envelope is not None:
        desired.publish(services, {device: envelope})
    return show(services, device)


def set_labels(
    services: Services, caller: Caller, device: str, labels: dict[str, str]
) -> DeviceInfo:
    """Replace a device's labels.

    Raises:
        UserError: a label is not allowed.
        NotFound: there is no such device.
    """
    checked = check_labels(labels)
    with audited(services, caller, "device.label", device, labels=checked) as session:
        _get(session, device)
        session.execute(delete(tables.DeviceLabel).where(tables.DeviceLabel.device == device))
        session.add_all(
            tables.DeviceLabel(device=device, key=key, value=value)
            for key, value in checked.items()
        )
    return show(services, device)


def count(services: Services) -> tuple[int, int]:
    """How many devices there are, and how many of them are online."""
    with services.database.read() as session:
        total = session.scalar(select(func.count()).select_from(tables.Device)) or 0
        online = (
            session.scalar(
                select(func.count())
                .select_from(tables.Device)
                .where(tables.Device.online, tables.Device.last_seen > services.now() - ONLINE_S)
            )
            or 0
        )
    return total, online


def parse_configuration(settings: dict[str, Any]) -> Configuration:
    """Check a configuration that an operator wrote.

    Raises:
        UserError: a key is unknown or a value is wrong.
    """
    what = "The configuration cannot be used."
    _refuse_unknown(settings, Configuration, what, "", leave_out=("config_version",))
    if isinstance(budget := settings.get("data_budget"), dict):
        _refuse_unknown(budget, DataBudget, what, " of data_budget")
    for number, source in enumerate(_tables(settings.get("sources", ()), what), 1):
        _refuse_unknown(source, SourceConfig, what, f" of source {number}")
    try:
        wanted = msgspec.convert(settings, Configuration)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UserError(what, why=f"{error}.") from None
    _check_values(wanted, what)
    _check_lasting(wanted, what)
    size = len(msgspec.json.encode(wanted))
    if size > MAX_CONFIGURATION_BYTES:
        raise UserError(
            what,
            why=f"It has {size} bytes; at most {MAX_CONFIGURATION_BYTES} are allowed.",
            fix="Put large data into the release.",
        )
    return wanted


def labels_of(session: Session, device: str = "") -> dict[str, dict[str, str]]:
    """The labels of all devices, or of one, by device."""
    query = select(tables.DeviceLabel)
    if device:
        query = query.where(tables.DeviceLabel.device == device)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in session.scalars(query.order_by(tables.DeviceLabel.key)):
        found[row.device][row.key] = row.value
    return found


def is_online(services: Services, row: tables.Device) -> bool:
    """Whether a device is there, as far as anyone can tell."""
    return row.online and (row.last_seen or 0.0) > services.now() - ONLINE_S


def _check_values(wanted: Configuration, what: str) -> None:
    if len(wanted.sources) > _MAX_SOURCES:
        raise UserError(what, why=f"At most {_MAX_SOURCES} sources are allowed.")
    names = [source.name for source in wanted.sources]
    if len(set(names)) != len(names):
        raise UserError(what, why="Two sources have the same name.")
    if not math.isfinite(wanted.telemetry_every_s) or wanted.telemetry_every_s < _MIN_TELEMETRY_S:
        raise UserError(what, why=f"telemetry_every_s must be at least {_MIN_TELEMETRY_S}.")
    for source in wanted.sources:
        if not urlsplit(source.uri).scheme:
            said = source.uri.rpartition("@")[2][:80]  # without a password
            raise UserError(
                what,
                why=f"The source {source.name} has the uri {said!r}, without a scheme.",
                fix="Write something like file:///videos/belt.mp4.",
            )
        if source.fps is not None and not (math.isfinite(source.fps) and source.fps > 0):
            raise UserError(what, why=f"The source {source.name} has an fps that is not positive.")

    for mirror in wanted.mirrors:
        scheme, _, host = mirror.partition("://")
        if scheme not in {"http", "https"} or not host:
            raise UserError(
                what,
                why=f"The mirror {mirror.rpartition('@')[2][:80]!r} is no address.",
                fix="Write https://cache.site, or https://registry.example/team-a.",
            )
        require_private(scheme, urlsplit(mirror).hostname or "", of="mirror")


def _check_lasting(wanted: Configuration, what: str) -> None:
    """Refuse what would not come out of JSON as it went in."""
    try:
        again = msgspec.json.decode(msgspec.json.encode(wanted), type=Configuration)
    except (msgspec.ValidationError, OverflowError, ValueError, RecursionError) as error:
        raise UserError(what, why=f"{error}.") from None
    if again != wanted:
        raise UserError(what, why="A number in it is not finite, or JSON has no such value.")


def _refuse_unknown(
    found: dict[str, Any],
    kind: type[msgspec.Struct],
    what: str,
    where: str,
    leave_out: Sequence[str] = (),
) -> None:
    known = [name for name in kind.__struct_fields__ if name not in leave_out]
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise UserError(
            what,
            why=f"The key {', '.join(unknown)}{where} is not known.",
            fix=f"It knows {', '.join(known)}.",
        )


def _tables(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise UserError(what, why="sources must be a list of tables.", fix="Write [[sources]].")
    return list(value)


def _get(session: Session, device: str, *, lock: bool = False) -> tables.Device:
    row = session.get(tables.Device, device, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise NotFound(
            f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
        )
    return row


def _info(
    services: Services, session: Session, row: tables.Device, labels: dict[str, str]
) -> DeviceInfo:
    said = reported.state_of(session, row)
    return {
        "device": row.id,
        "labels": labels,
        "enrolled_at": row.enrolled_at,
        "revoked_at": row.revoked_at,
        "online": is_online(services, row),
        "last_seen": row.last_seen,
        "hardware_class": row.hardware_class,
        "agent_version": row.agent_version,
        "boot_id": row.boot_id,
        "capabilities": msgspec.json.decode(row.capabilities) if row.capabilities else None,
        "reported": msgspec.to_builtins(said) if said else None,
        "desired": _desired(session, row),
        "configuration": msgspec.json.decode(row.configuration),
        "key_id": row.key_id,
    }


def _desired(session: Session, row: tables.Device) -> DesiredVersion | None:
    issued = session.get(tables.DesiredState, row.id)
    if issued is None:
        return None
    return {
        "epoch": issued.epoch,
        "counter": issued.counter,
        "issued_at": issued.issued_at,
        "expires_at": issued.expires_at,
        "models": msgspec.to_builtins(desired.models(session, row.id)),
        "config_version": row.config_version,
    }
