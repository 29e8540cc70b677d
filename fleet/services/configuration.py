"""Configurations: what layers of settings make for each device, and how a layer is changed.

A device's own layer is changed at once; those of the fleet and of labels are rolled out in waves
(`fleet.services.configuration_rollouts`). `devices.configuration` is what the layers made when a
device was last given one; it is signed with the rest of the desired state.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session

from cloud_sync.messages import Configuration
from edgeml.errors import UserError
from fleet.db import tables
from fleet.layers import Kind, Layer, Merged, difference, flatten, merge, unflatten
from fleet.problem import NotFound
from fleet.services import desired, permitted
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.settings import ABSENT, parse_configuration, parse_settings

_TOGETHER = 500


@dataclass(frozen=True)
class Layers:
    """All that several devices are configured by, loaded together.

    `pins` has, by device and layer, what a rollout gave in place of the revision that holds.
    """

    shared: tuple[Layer, ...]
    own: Mapping[str, Layer]
    labels: Mapping[str, Mapping[str, str]]
    pins: Mapping[str, Mapping[str, Layer]]

    def of(self, device: str, instead: Layer | None = None) -> list[Layer]:
        """The layers of a device; `instead` stands in place of the one of its name."""
        layers = {layer.name: layer for layer in self.shared} | dict(self.pins.get(device, {}))
        if instead is not None:
            layers[instead.name] = instead
        labels = self.labels.get(device, {})
        found = [layer for layer in layers.values() if layer.chooses(labels)]
        own = self.own.get(device)
        return [*found, own] if own else found


def load(session: Session, devices: Sequence[str]) -> Layers:
    """The layers of devices; a few queries, however many devices there are."""
    layer, revision, pin = (
        tables.ConfigurationLayer, tables.ConfigurationRevision, tables.ConfigurationPin,
    )  # fmt: skip
    holds = and_(revision.layer == layer.name, revision.number == layer.number)
    shared = session.execute(
        select(layer, revision).join(revision, holds).where(layer.device.is_(None))
    )
    labels: dict[str, dict[str, str]] = {}
    own: dict[str, Layer] = {}
    pins: dict[str, dict[str, Layer]] = {}
    versions = {
        row.digest: as_layer(of, row)
        for of, row in session.execute(
            select(layer, revision)
            .join(revision, revision.layer == layer.name)
            .where(revision.digest.in_(select(pin.revision)))
        )
    }
    for names in desired.batched(devices, _TOGETHER):
        label = tables.DeviceLabel
        for row in session.execute(
            select(label.device, label.key, label.value).where(label.device.in_(names))
        ):
            labels.setdefault(row[0], {})[row[1]] = row[2]
        mine = select(layer, revision).join(revision, holds).where(layer.device.in_(names))
        own |= {str(of.device): as_layer(of, row) for of, row in session.execute(mine)}
        for device, name, digest in session.execute(
            select(pin.device, pin.layer, pin.revision).where(pin.device.in_(names))
        ):
            pins.setdefault(device, {})[name] = versions[digest]
    return Layers(tuple(as_layer(of, row) for of, row in shared), own, labels, pins)


def as_layer(layer: tables.ConfigurationLayer, revision: tables.ConfigurationRevision) -> Layer:
    """A layer as one of its revisions says it."""
    return Layer(
        name=layer.name,
        kind=Kind(layer.kind),
        settings=json.loads(revision.settings),
        selector=layer.selector,
        priority=layer.priority,
        number=revision.number,
    )


def made(merged: Merged) -> Configuration:
    """The configuration that merged layers are, without its version.

    Raises:
        UserError: together they are none.
    """
    return parse_configuration(merged.configuration())


def refresh(
    services: Services, session: Session, devices: Iterable[str], *, force: bool = False
) -> list[str]:
    """Give devices what their layers make now, under a new version.

    One whose layers together make no configuration keeps what it has; `edgeml devices
    configuration show` says why.

    Args:
        services: the fleet.
        session: a writing one.
        devices: their ids.
        force: give a new version also to those for whom nothing changes.

    Returns:
        Those that have another now. The caller signs their states (`desired.reissue_all`).
    """
    session.flush()
    changed: list[str] = []
    for names in desired.batched(sorted(set(devices)), _TOGETHER):
        query = select(tables.Device).where(tables.Device.id.in_(names)).order_by(tables.Device.id)
        rows = session.scalars(query.with_for_update(key_share=True)).all()
        layers = load(session, names)
        changed += [row.id for row in rows if _give(row, layers, force=force)]
    services.counters.add("configurations.given", len(changed))
    session.flush()
    return changed


def _give(row: tables.Device, layers: Layers, *, force: bool) -> bool:
    try:
        wanted = made(merge(layers.of(row.id)))
    except UserError:
        return False
    before = msgspec.json.decode(row.configuration, type=Configuration)
    if msgspec.structs.replace(before, config_version=0) == wanted and not force:
        return False
    row.config_version += 1
    wanted = msgspec.structs.replace(wanted, config_version=row.config_version)
    row.configuration = msgspec.json.encode(wanted).decode()
    return True


def signable(session: Session, devices: Iterable[str]) -> list[str]:
    """Those of devices that are told what is wanted of them: who lives, and is reconciled."""
    table = tables.Device
    return [
        name
        for names in desired.batched(devices, _TOGETHER)
        for name in session.scalars(
            select(table.id).where(
                table.id.in_(names), table.revoked_at.is_(None), table.unreconciled.is_(False)
            )
        )
    ]


def refresh_and_sign(
    services: Services, session: Session, devices: Iterable[str], *, force: bool = False
) -> dict[str, bytes]:
    """`refresh`, and sign; the caller commits and then publishes (`desired.publish`)."""
    changed = refresh(services, session, devices, force=force)
    return desired.reissue_all(services, session, signable(session, changed))


def own_settings(services: Services, device: str) -> dict[str, Any]:
    """What a device's own layer says.

    Raises:
        NotFound: there is no such device.
    """
    with services.database.read() as session:
        _device(session, device)
        return _own(session, device)


def set_own(
    services: Services,
    caller: Caller,
    device: str,
    settings: Mapping[str, Any],
    check: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Replace what a device's own layer says; it goes out at once, as a new desired state.

    Args:
        services: the fleet.
        caller: who and why.
        device: its id.
        settings: what `Configuration` holds, or a part of it; unknown keys are errors.
        check: given what it said before; may refuse by raising.

    Raises:
        UserError: the settings are wrong; the sentence names the key.
        NotFound: there is no such device.
    """
    checked = parse_settings(settings)
    with audited(services, caller, "device.configure", device, settings=checked) as session:
        row = _device(session, device, lock=True)
        check(_own(session, device))
        reason = permitted.forbidden(services, session, [device], checked).get(device)
        if reason:
            raise UserError(f"{device} cannot be configured so.", why=f"For {reason}.")
        add_revision(services, session, caller, own_layer(session, device), checked, holds=True)
        _require_whole(checked, made(merge(load(session, [device]).of(device))))
        envelopes = refresh_and_sign(services, session, [row.id], force=True)
    desired.publish(services, envelopes)


def _require_whole(settings: Mapping[str, Any], whole: Configuration) -> None:
    """Refuse a part of a source of which nobody says the rest."""
    here = {source.name for source in whole.sources}
    for source in settings.get("sources", ()):
        if source["name"] not in here and not source.get(ABSENT):
            lacks = [field for field in ("uri", "model") if field not in source]
            raise UserError(
                "The configuration cannot be used.",
                why=f"The source {source['name']} lacks {' and '.join(lacks)}, and no broader "
                "layer says it.",
            )


def own_layer(session: Session, device: str) -> tables.ConfigurationLayer:
    """The layer of one device, made where there is none yet."""
    name = f"device:{device}"
    row = session.get(tables.ConfigurationLayer, name)
    if row is None:
        row = tables.ConfigurationLayer(
            name=name, kind=str(Kind.DEVICE), selector="", priority=0, device=device, number=0
        )
        session.add(row)
        session.flush()
    return row


def add_revision(
    services: Services,
    session: Session,
    caller: Caller,
    layer: tables.ConfigurationLayer,
    settings: Mapping[str, Any],
    *,
    holds: bool,
) -> tables.ConfigurationRevision:
    """Write down what a layer says next; `holds` makes it what holds."""
    table = tables.ConfigurationRevision
    newest = session.scalar(select(func.max(table.number)).where(table.layer == layer.name))
    number, text = (newest or 0) + 1, json.dumps(settings)
    digest = hashlib.sha256(f"{layer.name}@{number}\n{text}".encode()).hexdigest()
    row = table(
        digest=f"sha256:{digest}",
        layer=layer.name,
        number=number,
        settings=text,
        created_at=services.now(),
        created_by=caller.actor,
    )
    session.add(row)
    session.flush()
    if holds:
        layer.number = number
    return row


def take_over(
    services: Services, session: Session, row: tables.Device, held: Configuration
) -> None:
    """Keep what a device holds that the database has forgotten, as settings of its own.

    So nothing that comes later changes it behind anyone's back.
    """
    row.configuration = msgspec.json.encode(held).decode()
    row.config_version = held.config_version
    merged = merge(load(session, [row.id]).of(row.id))
    try:
        given = msgspec.to_builtins(made(merged))
    except UserError:
        given = msgspec.to_builtins(Configuration())
    wanted = msgspec.to_builtins(held)
    for whole in (given, wanted):
        del whole["config_version"]
    forgotten = difference(wanted, given)
    if forgotten:
        settings = unflatten(flatten(_own(session, row.id)) | forgotten, partial=True)
        caller = Caller("fleet", "What the device held when the database was restored.")
        add_revision(services, session, caller, own_layer(session, row.id), settings, holds=True)


def forget(session: Session, device: str) -> None:
    """Delete what a device that is decommissioned was configured by."""
    name = f"device:{device}"
    revision, layer = tables.ConfigurationRevision, tables.ConfigurationLayer
    pin = tables.ConfigurationPin
    session.execute(delete(pin).where(pin.device == device))
    session.execute(delete(revision).where(revision.layer == name))
    session.execute(delete(layer).where(layer.name == name))


def _own(session: Session, device: str) -> dict[str, Any]:
    own = load(session, [device]).own.get(device)
    return own.settings if own else {}


def _device(session: Session, device: str, *, lock: bool = False) -> tables.Device:
    row = session.get(tables.Device, device, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise NotFound(
            f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
        )
    return row
