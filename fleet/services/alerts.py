"""Alerts: found, kept, listed, acknowledged; what changes is told to the webhooks."""

import json
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, delete, or_, select, true
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.access.scope import confined
from fleet.alerts.conditions import SEVERITY, Finding, Kind, findings
from fleet.alerts.gather import gather
from fleet.alerts.resources import AlertInfo, AlertRulesInfo
from fleet.alerts.rules import AlertRules, parse_rules
from fleet.alerts.states import Firing, Turn, turn
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import Page
from fleet.rest.etags import etag_of, require_match
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services import facts, outbox
from fleet.services.audit import audited
from fleet.services.columns import fit
from fleet.services.context import Caller, Services
from fleet.services.selection import chosen

KEEP_S = 90 * 86400.0
EVENT = "dev.edgeml.alert"
EVENTS = tuple(f"{EVENT}.{past}" for past in ("firing", "acknowledged", "resolved"))
_RULES = "alert-rules"
_MAX_PAGE = 1000
_OF_DEVICES = (Kind.DEVICE_OFFLINE, Kind.SECURITY_EVENT)
_OF_ROLLOUTS = (Kind.ROLLOUT_HALTED, Kind.GATE_FAILED)


def look(services: Services) -> int:
    """Find which conditions hold, and let alerts fire and be resolved; returns how many did.

    What is told to webhooks is written in the same transaction.
    """
    held = _rules(services)
    found = findings(held, gather(services, held))
    now, table = services.now(), tables.Alert
    with services.database.read() as session:
        known = [
            Firing(*row)
            for row in session.execute(select(table.key, table.summary).where(_fires()))
        ]
    if turn(known, found) == Turn():
        return 0
    with services.database.write() as session:
        services.database.one_at_a_time(session, "alerts")
        firing = {row.key: row for row in session.scalars(select(table).where(_fires()))}
        step = turn([Firing(row.key, row.summary) for row in firing.values()], found)
        for finding in step.told:
            _tell(firing[finding.key], finding)
        for key in step.resolved:
            row = firing[key]
            row.state, row.resolved_at, row.key = "resolved", now, f"#{row.id}"
            _announce(services, session, row, "resolved")
        for finding in step.fired:
            row = _fired(finding, now)
            session.add(row)
            session.flush()
            _announce(services, session, row, "firing")
        session.execute(delete(table).where(table.resolved_at < now - KEEP_S))
    changed = len(step.fired) + len(step.resolved)
    if changed or step.told:
        services.changes.announce()
    return changed


def list_alerts(
    services: Services,
    *,
    state: str = "",
    kind: str = "",
    after: int = 0,
    limit: int = 100,
    scope: Selector = EVERYTHING,
) -> Page[AlertInfo]:
    """The alerts of a scope, newest first."""
    limit, table = max(1, min(limit, _MAX_PAGE)), tables.Alert
    query = select(table).where(_within(scope)).order_by(table.id.desc()).limit(limit + 1)
    for column, value in ((table.state, state), (table.kind, kind)):
        if value:
            query = query.where(column == value)
    if after:
        query = query.where(table.id < after)
    with services.database.read() as session:
        rows = list(session.scalars(query))
    return {
        "items": [info(row) for row in rows[:limit]],
        "next": str(rows[limit - 1].id) if len(rows) > limit else None,
    }


def show(services: Services, alert: int, scope: Selector = EVERYTHING) -> AlertInfo:
    """One alert.

    Raises:
        NotFound: there is none such in the scope.
    """
    with services.database.read() as session:
        return info(_get(session, alert, scope))


def acknowledge(services: Services, caller: Caller, alert: int) -> AlertInfo:
    """Note that somebody looks after an alert, and why.

    Raises:
        UserError: no reason is given.
        Conflict: it is resolved.
        NotFound: there is none such in the caller's scope.
    """
    if not caller.reason:
        raise UserError("A reason is needed.", why="It says what is done about the alert.")
    with audited(services, caller, "alert.acknowledge", str(alert)) as session:
        row = _get(session, alert, caller.scope)
        if row.state != "firing":
            raise Conflict("The alert is resolved.", why="Its condition does not hold any more.")
        row.acknowledged_at = services.now()
        row.acknowledged_by = fit(caller.actor, 128)
        row.acknowledged_reason = caller.reason
        _announce(services, session, row, "acknowledged")
        return info(row)


def rules(services: Services) -> AlertRulesInfo:
    """When alerts fire."""
    return _as_info(_rules(services))


def set_rules(
    services: Services, caller: Caller, settings: dict[str, Any], *, if_match: str = ""
) -> AlertRulesInfo:
    """Change when alerts fire; what is not named gets its default.

    Raises:
        UserError: a rule is not known, or out of its range.
        Changed: they are not those of the ETag any more.
    """
    wanted = parse_rules(settings)
    with audited(services, caller, "alert.rules", "fleet", rules=settings) as session:
        services.database.one_at_a_time(session, _RULES)
        require_match(if_match, etag_of(_as_info(_read_rules(session))))
        facts.put(session, _RULES, msgspec.json.encode(wanted).decode())
    return _as_info(wanted)


def info(row: tables.Alert) -> AlertInfo:
    """A row as the API gives it."""
    return {
        "id": row.id,
        "kind": row.kind,
        "subject": row.subject,
        "severity": row.severity,
        "state": row.state,
        "summary": row.summary,
        "detail": json.loads(row.detail),
        "began_at": row.began_at,
        "resolved_at": row.resolved_at,
        "acknowledged_at": row.acknowledged_at,
        "acknowledged_by": row.acknowledged_by,
        "acknowledged_reason": row.acknowledged_reason,
    }


def _fires() -> ColumnElement[bool]:
    return tables.Alert.state == "firing"


def _within(scope: Selector) -> ColumnElement[bool]:
    """Alerts of a scope's devices and rollouts; those of the fleet are for whoever sees it all."""
    if not scope.requirements:
        return true()
    table = tables.Alert
    return or_(
        and_(table.kind.in_(_OF_DEVICES), chosen(scope, table.subject)),
        and_(table.kind.in_(_OF_ROLLOUTS), confined(table.subject, scope)),
    )


def _get(session: Session, alert: int, scope: Selector) -> tables.Alert:
    query = select(tables.Alert).where(tables.Alert.id == alert, _within(scope))
    row = session.scalars(query).first()
    if row is None:
        raise NotFound(f"There is no alert {alert}.", fix="See them all: edgeml alerts list")
    return row


def _fired(finding: Finding, now: float) -> tables.Alert:
    row = tables.Alert(
        key=fit(finding.key, 255),
        kind=str(finding.kind),
        subject=fit(finding.subject, 128),
        severity=str(SEVERITY[finding.kind]),
        state="firing",
        began_at=now,
        resolved_at=None,
        acknowledged_at=None,
        acknowledged_by="",
        acknowledged_reason="",
    )
    _tell(row, finding)
    return row


def _tell(row: tables.Alert, finding: Finding) -> None:
    row.summary = fit(finding.summary, 1000)
    row.detail = json.dumps(finding.detail, sort_keys=True).replace("\\u0000", "")


def _announce(services: Services, session: Session, row: tables.Alert, what: str) -> None:
    outbox.enqueue(services, session, f"{EVENT}.{what}", f"{row.kind}/{row.subject}", info(row))


def _rules(services: Services) -> AlertRules:
    with services.database.read() as session:
        return _read_rules(session)


def _read_rules(session: Session) -> AlertRules:
    kept = facts.get(session, _RULES)
    return msgspec.json.decode(kept, type=AlertRules) if kept else AlertRules()


def _as_info(held: AlertRules) -> AlertRulesInfo:
    found: AlertRulesInfo = msgspec.to_builtins(held)
    return found
