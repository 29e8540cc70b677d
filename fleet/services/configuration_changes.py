"""Changes of the layers of the fleet and of labels: checked, shown beforehand, then rolled out."""

import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.configuration_resources import (
    ChangedDevice,
    ConfigurationChange,
    ConfigurationPlan,
    LayerInfo,
    RevisionInfo,
)
from fleet.db import tables
from fleet.layers import Kind, Layer
from fleet.problem import Conflict, NotFound
from fleet.rollouts import Policy, RolloutState
from fleet.rollouts.observe import ENDED
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.services import configuration, desired, permitted, rollouts
from fleet.services.audit import audited
from fleet.services.configuration import add_revision
from fleet.services.configuration_effects import UNTOUCHED, Effects
from fleet.services.configuration_rollouts import MODEL
from fleet.services.context import Caller, Services
from fleet.services.selection import chosen
from fleet.settings import parse_settings

FLEET_LAYER = "fleet"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_MAX_NAME = 64
_NAMED = 3


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer shall say; `selector` and `priority` are those of a label's layer.

    None leaves them as they are, and is what the fleet's layer has.
    """

    layer: str
    settings: dict[str, Any]
    selector: str | None = None
    priority: int | None = None


def plan(
    services: Services, change: Change, *, after: str = "", limit: int | None = None
) -> ConfigurationPlan:
    """What a change of a layer would do: for every device it chooses, what changes or why not.

    Args:
        services: the fleet.
        change: what the layer shall say.
        after: the last device of the page before.
        limit: devices of a page; None for all. The counts are over all in any case.

    Raises:
        UserError: the change is none; the sentence names the key.
    """
    layer = _proposed(services, change)
    with services.database.read() as session:
        found = _forecast(services, session, layer)
    rows = [row for row in found if row["device"] > after]
    page = rows if limit is None else rows[:limit]
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    for row in found:
        by_class[row["hardware_class"]][_outcome(row)] += 1
    counts = Counter(_outcome(row) for row in found)
    return {
        "layer": str(layer),
        "selector": layer.selector,
        "priority": layer.priority,
        "devices": page,
        "next": page[-1]["device"] if page and len(page) < len(rows) else None,
        "counts": {"changed": counts["changed"], "same": counts["same"], "unfit": counts["unfit"]},
        "by_class": {name: dict(counted) for name, counted in sorted(by_class.items())},
    }


def begin(
    services: Services, caller: Caller, change: Change, policy: Policy, *, draft: bool = False
) -> ConfigurationChange:
    """Roll a change of a layer out; where no device is changed by it, it holds at once.

    Raises:
        UserError: the change is none, a device's release does not let a site set it, or the policy
            has a selector of its own.
        Conflict: layers of one priority would disagree, or the layer is being rolled out.
    """
    layer = _proposed(services, change)
    if policy.selector not in {"", layer.selector}:
        raise UserError(
            "The policy's selector cannot be used here.",
            why=f"The layer {layer.name} chooses the devices: {layer.selector or 'all of them'}.",
            fix="Leave the selector out, or make a layer for fewer devices.",
        )
    policy = msgspec.structs.replace(policy, selector=layer.selector)
    with audited(
        services, caller, "configuration.change", layer.name, settings=layer.settings
    ) as session:
        _refuse_open(session, layer.name)
        found = _forecast(services, session, layer)
        _refuse_unfit(layer, found)
        row = _layer_row(session, layer)
        touched = any(device["changes"] for device in found)
        revision = add_revision(services, session, caller, row, layer.settings, holds=not touched)
        digest, number = revision.digest, revision.number
        envelopes = {} if touched else _hold(services, session, row)
    desired.publish(services, envelopes, patient=True)
    rollout = None
    if touched:
        state = RolloutState(
            id=f"configuration-{layer.name[:24]}-{number}-{secrets.token_hex(3)}",
            model=MODEL,
            release=digest,
            release_version=f"{layer.name}@{number}",
        )
        info = rollouts.begin(services, caller, state, policy, draft=draft, revision=digest)
        rollout = info["id"]
    return {
        "layer": layer.name,
        "number": number,
        "revision": digest,
        "rollout": rollout,
        "changed": sum(bool(device["changes"]) for device in found),
    }


def layers(services: Services, scope: Selector = EVERYTHING) -> list[LayerInfo]:
    """The layers of the fleet and of labels, broadest first; those that choose in a scope."""
    with services.database.read() as session:
        table = tables.ConfigurationLayer
        rows = session.scalars(select(table).where(table.device.is_(None))).all()
        found = [_info(session, row) for row in rows if _is_within(session, row, scope)]
    order = {str(kind): number for number, kind in enumerate(Kind)}
    return sorted(found, key=lambda i: (order[i["kind"]], i["priority"], i["layer"]))


def layer(services: Services, name: str, scope: Selector = EVERYTHING) -> LayerInfo:
    """One layer.

    Raises:
        NotFound: there is none such that chooses a device of the scope.
    """
    with services.database.read() as session:
        row = session.get(tables.ConfigurationLayer, name)
        if row is None or not _is_within(session, row, scope):
            raise NotFound(
                f"There is no layer {name[:64]!r}.",
                fix="See them: edgeml devices configuration layers",
            )
        return _info(session, row)


def _proposed(services: Services, change: Change) -> Layer:
    """The layer as it would be.

    Raises:
        UserError: the name, the selector or a setting is wrong, or a layer's devices would change.
    """
    settings = parse_settings(change.settings)
    with services.database.read() as session:
        row = session.get(tables.ConfigurationLayer, change.layer)
        newest = _newest(session, change.layer)
    if row is None:
        selector, priority = change.selector or "", change.priority or 0
    else:
        selector, priority = row.selector, row.priority
    given = (change.selector, change.priority)
    if row is not None and given not in {(None, None), (selector, priority)}:
        raise UserError(
            f"The layer {change.layer} cannot be changed so.",
            why=f"It chooses {selector or 'all devices'} with priority {priority}, for good.",
            fix="Empty it, and make another.",
        )
    is_fleet = change.layer == FLEET_LAYER
    if is_fleet and (selector or priority):
        raise UserError("The fleet's layer is for all devices.", fix="Give the layer another name.")
    if not is_fleet:
        _check_name(change.layer)
        parse_selector(selector)
        if not selector:
            raise UserError(
                f"The layer {change.layer} chooses nobody by a label.",
                fix="Give it a selector, such as site=north; the layer `fleet` is for all devices.",
            )
    return Layer(
        name=change.layer,
        kind=Kind.FLEET if is_fleet else Kind.LABEL,
        settings=settings,
        selector=selector,
        priority=priority,
        number=newest + 1,
    )


def _forecast(services: Services, session: Session, change: Layer) -> list[ChangedDevice]:
    table = tables.Device
    query = select(table.id, table.hardware_class).where(table.revoked_at.is_(None))
    rows = session.execute(query.order_by(table.id)).all()
    loaded = configuration.load(session, [row[0] for row in rows])
    chosen = [(d, c) for d, c in rows if change.chooses(loaded.labels.get(d, {}))]
    effects = Effects(loaded, change)
    forbidden = permitted.forbidden(services, session, [d for d, _ in chosen], change.settings)
    found: list[ChangedDevice] = []
    for device, hardware_class in chosen:
        effect = effects.on(device)
        reason = forbidden.get(device, "") or effect.unfit
        found.append(
            {
                "device": device,
                "hardware_class": hardware_class,
                "changes": []
                if reason
                else [{"key": k, "before": b, "after": a} for k, b, a in effect.changes],
                "reason": reason or ("" if effect.changes else UNTOUCHED),
                "fits": not reason,
            }
        )
    return found


def _outcome(row: ChangedDevice) -> str:
    if not row["fits"]:
        return "unfit"
    return "changed" if row["changes"] else "same"


def _refuse_unfit(layer: Layer, found: Sequence[ChangedDevice]) -> None:
    unfit = [row for row in found if not row["fits"]]
    if unfit:
        named = "; ".join(f"{row['device']}: {row['reason']}" for row in unfit[:_NAMED])
        more = f"; and {len(unfit) - _NAMED} more" if len(unfit) > _NAMED else ""
        raise Conflict(
            f"The layer {layer.name} cannot be changed so.",
            why=f"{len(unfit)} of {len(found)} devices cannot have it: {named}{more}.",
            fix="See all: edgeml devices configuration plan. Give one layer a higher priority, "
            "choose fewer devices, or leave the setting out.",
        )


def _refuse_open(session: Session, layer: str) -> None:
    rollout, revision = tables.Rollout, tables.ConfigurationRevision
    open_one = session.scalar(
        select(rollout.id)
        .join(revision, revision.digest == rollout.revision)
        .where(revision.layer == layer, rollout.status.not_in([str(s) for s in ENDED]))
        .limit(1)
    )
    if open_one:
        raise Conflict(
            f"The layer {layer} is being rolled out.",
            why=f"{open_one} has not ended.",
            fix=f"Wait for it, or: edgeml rollout abort {open_one}",
        )


def _layer_row(session: Session, layer: Layer) -> tables.ConfigurationLayer:
    row = session.get(tables.ConfigurationLayer, layer.name)
    if row is None:
        row = tables.ConfigurationLayer(
            name=layer.name,
            kind=str(layer.kind),
            selector=layer.selector,
            priority=layer.priority,
            device=None,
            number=0,
        )
        session.add(row)
        session.flush()
    return row


def _hold(services: Services, session: Session, row: tables.ConfigurationLayer) -> dict[str, bytes]:
    """Drop the pins of a layer that holds now; nobody is changed, but for who was pinned."""
    pin = tables.ConfigurationPin
    names = list(session.scalars(select(pin.device).where(pin.layer == row.name)))
    session.execute(delete(pin).where(pin.layer == row.name))
    return configuration.refresh_and_sign(services, session, names)


def _newest(session: Session, layer: str) -> int:
    table = tables.ConfigurationRevision
    query = select(table.number).where(table.layer == layer).order_by(table.number.desc()).limit(1)
    return session.scalar(query) or 0


def _info(session: Session, row: tables.ConfigurationLayer) -> LayerInfo:
    table = tables.ConfigurationRevision
    revisions = session.scalars(
        select(table).where(table.layer == row.name).order_by(table.number.desc())
    ).all()
    rollout = dict(
        session.execute(
            select(tables.Rollout.revision, tables.Rollout.id)
            .where(tables.Rollout.revision.in_([r.digest for r in revisions]))
            .order_by(tables.Rollout.created_at)
        ).all()
    )
    shown: list[RevisionInfo] = [
        {
            "number": r.number,
            "revision": r.digest,
            "settings": msgspec.json.decode(r.settings),
            "created_at": r.created_at,
            "created_by": r.created_by,
            "rollout": rollout.get(r.digest),
        }
        for r in revisions
    ]
    return {
        "layer": row.name,
        "kind": row.kind,
        "selector": row.selector,
        "priority": row.priority,
        "number": row.number,
        "settings": next((r["settings"] for r in shown if r["number"] == row.number), {}),
        "revisions": shown,
    }


def _is_within(session: Session, row: tables.ConfigurationLayer, scope: Selector) -> bool:
    """Whether a layer says something to a device of a scope; the fleet's does to all."""
    if not scope.requirements:
        return True
    device = tables.Device.id
    theirs = select(device).where(chosen(scope), chosen(parse_selector(row.selector)))
    if row.device is not None:
        theirs = theirs.where(device == row.device)
    return row.kind == Kind.FLEET or session.scalar(theirs.limit(1)) is not None


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:_MAX_NAME]!r} cannot be a layer's name.",
            fix="Use lower-case letters, digits and . _ - between them.",
        )
