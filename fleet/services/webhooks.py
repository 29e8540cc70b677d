"""Webhooks: where events are sent, and what became of them; `fleet.services.outbox` sends."""

import json
import secrets
from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import Page
from fleet.services import alerts, rollout_events
from fleet.services.audit import audited
from fleet.services.columns import fit
from fleet.services.context import Caller, Services
from fleet.services.outbox import DEAD, DELIVERED, WAITING, new_delivery, seal, source
from fleet.webhooks.addresses import check_url
from fleet.webhooks.events import new_event, new_secret, wants
from fleet.webhooks.resources import DeliveryInfo, WebhookInfo, WebhookSecret

MAX_WEBHOOKS = 50
TEST = "dev.edgeml.webhook.test"
_MAX_PAGE = 1000


def list_webhooks(services: Services) -> list[WebhookInfo]:
    """All webhooks, and how it goes with them."""
    with services.database.read() as session:
        rows = session.scalars(select(tables.Webhook).order_by(tables.Webhook.id)).all()
        return _infos(session, rows)


def show(services: Services, webhook: str) -> WebhookInfo:
    """One webhook.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        return _infos(session, [_get(session, webhook)])[0]


def add(
    services: Services,
    caller: Caller,
    url: str,
    events: Sequence[str] = (),
    *,
    allow_private: bool = False,
) -> WebhookSecret:
    """Have events sent to a URL; the secret is in this answer and in no other.

    Raises:
        UserError: the URL cannot be used, a type of event does not exist, or there are enough
            webhooks.
    """
    check_url(url, allow_private=allow_private)
    _check_types(events)
    name, secret = f"wh_{secrets.token_hex(6)}", new_secret()
    with audited(
        services, caller, "webhook.add", name, url=url, allow_private=allow_private
    ) as session:
        services.database.one_at_a_time(session, "webhooks")
        if (session.scalar(select(func.count()).select_from(tables.Webhook)) or 0) >= MAX_WEBHOOKS:
            raise UserError(
                f"There are {MAX_WEBHOOKS} webhooks already.",
                fix="Remove one: edgeml webhooks remove ID",
            )
        row = tables.Webhook(
            id=name,
            url=url,
            events=json.dumps(list(events)),
            allow_private=allow_private,
            secret=seal(services, secret),
            created_at=services.now(),
            created_by=fit(caller.actor, 128),
            disabled="",
        )
        session.add(row)
        session.flush()
        return {**_infos(session, [row])[0], "secret": secret}


def _check_types(events: Sequence[str]) -> None:
    known = (*alerts.EVENTS, *rollout_events.EVENTS, TEST)
    for asked in events:
        if not any(wants([asked], kind) for kind in known):
            raise UserError(
                f"There is no event {asked[:80]!r}.",
                why="A webhook that asks for it would never be told anything.",
                fix=f"Ask for some of {', '.join(known)}, or a group such as "
                f"{rollout_events.EVENT}.*; without any, all are sent.",
            )


def remove(services: Services, caller: Caller, webhook: str) -> None:
    """Send nothing there any more; what waits for it is dropped.

    Raises:
        NotFound: there is none such.
    """
    with audited(services, caller, "webhook.remove", webhook) as session:
        row = _get(session, webhook)
        session.execute(delete(tables.Delivery).where(tables.Delivery.webhook == webhook))
        session.delete(row)


def test(services: Services, caller: Caller, webhook: str) -> DeliveryInfo:
    """Send a test event, whatever types the webhook asks for.

    Raises:
        NotFound: there is none such.
        Conflict: nothing is sent to it.
    """
    with audited(services, caller, "webhook.test", webhook) as session:
        row = _get(session, webhook)
        if row.disabled:
            raise Conflict("Nothing is sent to this webhook.", why=row.disabled)
        event = new_event(source(services), TEST, webhook, {"by": caller.actor}, services.now())
        made = new_delivery(services, webhook, event.id, TEST, msgspec.json.encode(event))
        session.add(made)
        session.flush()
        return _delivery_info(made)


def deliveries(
    services: Services, webhook: str, *, status: str = "", after: int = 0, limit: int = 100
) -> Page[DeliveryInfo]:
    """What was and is sent to a webhook, newest first.

    Raises:
        NotFound: there is no such webhook.
    """
    limit, table = max(1, min(limit, _MAX_PAGE)), tables.Delivery
    query = select(table).where(table.webhook == webhook).order_by(table.id.desc())
    if status:
        query = query.where(table.status == status)
    if after:
        query = query.where(table.id < after)
    with services.database.read() as session:
        _get(session, webhook)
        rows = list(session.scalars(query.limit(limit + 1)))
    return {
        "items": [_delivery_info(row) for row in rows[:limit]],
        "next": str(rows[limit - 1].id) if len(rows) > limit else None,
    }


def delivery(services: Services, webhook: str, number: int) -> DeliveryInfo:
    """One event on its way.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        return _delivery_info(_get_delivery(session, webhook, number))


def retry(services: Services, caller: Caller, webhook: str, number: int) -> DeliveryInfo:
    """Send an event again that was given up; a webhook that was disabled is tried again, too.

    Raises:
        NotFound: there is none such.
        Conflict: it was not given up.
    """
    with audited(services, caller, "webhook.retry", webhook, delivery=number) as session:
        row = _get_delivery(session, webhook, number)
        if row.status != DEAD:
            raise Conflict("The event was not given up.", why=f"It is {row.status}.")
        _get(session, webhook).disabled = ""
        row.status, row.settled_at, row.attempts = WAITING, None, 0
        row.next_at = services.now()
        return _delivery_info(row)


def _get(session: Session, webhook: str) -> tables.Webhook:
    row = session.get(tables.Webhook, webhook)
    if row is None:
        raise NotFound(
            f"There is no webhook {webhook[:32]!r}.", fix="See them all: edgeml webhooks list"
        )
    return row


def _get_delivery(session: Session, webhook: str, number: int) -> tables.Delivery:
    row = session.get(tables.Delivery, number)
    if row is None or row.webhook != webhook:
        raise NotFound(
            f"There is no delivery {number} of the webhook {webhook[:32]!r}.",
            fix=f"See them all: edgeml webhooks show {webhook[:32]}",
        )
    return row


def _infos(session: Session, rows: Sequence[tables.Webhook]) -> list[WebhookInfo]:
    table = tables.Delivery
    counted: dict[str, dict[str, int]] = {}
    for webhook, status, number in session.execute(
        select(table.webhook, table.status, func.count()).group_by(table.webhook, table.status)
    ):
        counted.setdefault(webhook, {})[status] = number
    failed = select(func.max(table.id)).where(table.error != "").group_by(table.webhook)
    errors = dict(
        session.execute(select(table.webhook, table.error).where(table.id.in_(failed))).all()
    )
    return [
        {
            "id": row.id,
            "url": row.url,
            "events": json.loads(row.events),
            "allow_private": row.allow_private,
            "created_at": row.created_at,
            "created_by": row.created_by,
            "disabled": row.disabled,
            "waiting": counted.get(row.id, {}).get(WAITING, 0),
            "delivered": counted.get(row.id, {}).get(DELIVERED, 0),
            "dead": counted.get(row.id, {}).get(DEAD, 0),
            "last_error": errors.get(row.id, ""),
        }
        for row in rows
    ]


def _delivery_info(row: tables.Delivery) -> DeliveryInfo:
    return {
        "id": row.id,
        "webhook": row.webhook,
        "event": row.event,
        "type": row.type,
        "status": row.status,
        "created_at": row.created_at,
        "attempts": row.attempts,
        "next_at": row.next_at,
        "settled_at": row.settled_at,
        "answer": row.answer,
        "error": row.error,
    }
