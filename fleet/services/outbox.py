"""The outbox of webhooks: written with what it tells of, sent until it is taken or given up.

An event is written in the transaction of what it tells of, so that it is sent if and only if that
has happened. It is sent at least once: a sender that dies before it could note the answer sends
it again, with the same `webhook-id`, by which the receiver knows it.
"""

import hmac
import json
import random
import secrets
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import and_, case, delete, func, select, update
from sqlalchemy.orm import Session

from edgeml.errors import TrustError
from fleet.db import tables
from fleet.services.columns import fit
from fleet.services.context import Services
from fleet.webhooks.events import delay, new_event, wants
from fleet.webhooks.post import Outcome

MAX_WAITING = 10_000
CLAIM_S = 60.0
KEEP_S = 30 * 86400.0
WAITING, DELIVERED, DEAD = "waiting", "delivered", "dead"
_GONE = 410
_NONCE = 12


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that one sender has for a while."""

    id: int
    webhook: str
    event: str
    url: str
    secret: str
    body: bytes
    allow_private: bool


def enqueue(services: Services, session: Session, kind: str, subject: str, data: Any) -> None:
    """Write an event for every webhook that wants it, in the session of what it tells of."""
    hooks = session.scalars(select(tables.Webhook).where(tables.Webhook.disabled == "")).all()
    hooks = [hook for hook in hooks if wants(json.loads(hook.events), kind)]
    if not hooks:
        return
    event = new_event(source(services), kind, subject, data, services.now())
    body = msgspec.json.encode(event)
    for hook in hooks:
        made = new_delivery(services, hook.id, event.id, kind, body)
        if _waiting(session, hook.id) >= MAX_WAITING:
            made.status, made.settled_at, made.next_at = DEAD, services.now(), None
            made.error = f"{MAX_WAITING} events waited for it already."
        session.add(made)


def claim(services: Services, limit: int, *, each: int = 2) -> list[Claimed]:
    """Take deliveries that are due, for a while; of one webhook at most a few at a time.

    Each is taken by one sender, however many there are.
    """
    table, now = tables.Delivery, services.now()
    due = and_(table.status == WAITING, table.next_at <= now)
    is_free = case((table.claimed_until <= now, 1), else_=0).label("is_free")
    place = func.row_number().over(partition_by=table.webhook, order_by=(is_free, table.id))
    first = select(table.id, is_free, place.label("place")).where(due).subquery()
    free = and_(first.c.place <= each, first.c.is_free == 1)
    chosen = select(first.c.id).where(free).order_by(first.c.id).limit(limit)
    found: list[Claimed] = []
    with services.database.read() as session:
        if session.scalar(chosen.limit(1)) is None:
            return []
    with services.database.write() as session:
        services.database.one_at_a_time(session, "deliveries")
        for number in session.scalars(chosen).all():
            row = session.get_one(table, number)
            hook = session.get_one(tables.Webhook, row.webhook)
            try:
                secret = _open(services, hook.secret)
            except TrustError as error:
                row.status, row.settled_at, row.next_at = DEAD, now, None
                row.error = fit(str(error), 500)
                continue
            row.claimed_until = now + CLAIM_S
            found.append(
                Claimed(
                    id=row.id,
                    webhook=row.webhook,
                    event=row.event,
                    url=hook.url,
                    secret=secret,
                    body=row.body,
                    allow_private=hook.allow_private,
                )
            )
    return found


def settle(services: Services, claimed: Claimed, outcome: Outcome) -> None:
    """Note what came of a delivery: it is taken, tried again later, or given up."""
    now = services.now()
    with services.database.write() as session:
        row = session.get(tables.Delivery, claimed.id)
        if row is None or row.status != WAITING:
            return
        row.attempts += 1
        row.claimed_until = 0.0
        row.answer, row.error = outcome.status, fit(outcome.error, 500)
        wait = delay(row.attempts, random.random())  # noqa: S311 -- spreads, hides nothing
        if outcome.is_taken:
            row.status, row.settled_at, row.next_at = DELIVERED, now, None
        elif outcome.status == _GONE or wait is None:
            row.status, row.settled_at, row.next_at = DEAD, now, None
        else:
            row.next_at = now + wait
        if outcome.status == _GONE:
            _disable(session, claimed.webhook, now)
    result = "delivered" if outcome.is_taken else "failed"
    services.counters.add(f"webhooks.{result}")
    services.changes.announce()


def forget(services: Services) -> None:
    """Delete what was sent or given up long ago."""
    table, before = tables.Delivery, services.now() - KEEP_S
    with services.database.write() as session:
        session.execute(delete(table).where(table.status != WAITING, table.created_at < before))


def new_delivery(
    services: Services, webhook: str, event: str, kind: str, body: bytes
) -> tables.Delivery:
    """The row of an event that waits to be sent."""
    now = services.now()
    return tables.Delivery(
        webhook=webhook,
        event=event,
        type=kind,
        body=body,
        status=WAITING,
        created_at=now,
        attempts=0,
        next_at=now,
        claimed_until=0.0,
        settled_at=None,
        answer=None,
        error="",
    )


def seal(services: Services, secret: str) -> bytes:
    """A webhook's secret as the database keeps it."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + _cipher(services).encrypt(nonce, secret.encode(), None)


def _disable(session: Session, webhook: str, now: float) -> None:
    session.get_one(tables.Webhook, webhook).disabled = "It answered 410: it is gone."
    table = tables.Delivery
    session.execute(
        update(table)
        .where(table.webhook == webhook, table.status == WAITING)
        .values(
            status=DEAD, settled_at=now, next_at=None, error="The webhook answered 410: it is gone."
        )
    )


def _waiting(session: Session, webhook: str) -> int:
    table = tables.Delivery
    query = select(func.count()).select_from(table)
    return session.scalar(query.where(table.webhook == webhook, table.status == WAITING)) or 0


def _open(services: Services, sealed: bytes) -> str:
    try:
        return _cipher(services).decrypt(sealed[:_NONCE], sealed[_NONCE:], None).decode()
    except InvalidTag:
        raise TrustError(
            "A webhook's secret cannot be read.",
            why="The fleet's secret beside the database is another one.",
            fix="Remove the webhook and add it again, and give the receiver its new secret.",
        ) from None


def _cipher(services: Services) -> AESGCM:
    return AESGCM(hmac.digest(services.keys.session_secret, b"webhooks", "sha256"))


def source(services: Services) -> str:
    """What events say that they are from."""
    return services.console_url or "urn:edgeml:fleet"
