"""Alerts, the webhooks that they are told to, and requests that are done once."""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import COUNTED, NAME, Table


class Alert(Table):
    """An alert from when its condition began to when it ended: one row each time.

    `key` names the condition while it fires; a resolved alert has its own id for key, so that
    the condition may fire again.
    """

    __tablename__ = "alerts"
    __table_args__ = (Index(None, "state", "id"), Index(None, "resolved_at"))

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(NAME)
    severity: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    summary: Mapped[str]
    detail: Mapped[str]
    began_at: Mapped[float]
    resolved_at: Mapped[float | None]
    acknowledged_at: Mapped[float | None]
    acknowledged_by: Mapped[str] = mapped_column(NAME)
    acknowledged_reason: Mapped[str]


class Webhook(Table):
    """Where events are sent; the secret is kept encrypted by the fleet's own."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    url: Mapped[str]
    events: Mapped[str]
    allow_private: Mapped[bool]
    secret: Mapped[bytes]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(NAME)
    disabled: Mapped[str]


class Delivery(Table):
    """An event on its way to a webhook: written with what it tells, kept until it is taken.

    `settled_at` is when it was taken or given up; `claimed_until` is how long one sender has it,
    after that another may send it.
    """

    __tablename__ = "deliveries"
    __table_args__ = (Index(None, "status", "next_at"), Index(None, "webhook", "id"))

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    webhook: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(64))
    type: Mapped[str] = mapped_column(NAME)
    body: Mapped[bytes]
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[float]
    attempts: Mapped[int]
    next_at: Mapped[float | None]
    claimed_until: Mapped[float]
    settled_at: Mapped[float | None]
    answer: Mapped[int | None]
    error: Mapped[str]


class IdempotencyKey(Table):
    """A request that is done once; `answer` is encrypted, and null while it is under way."""

    __tablename__ = "idempotency_keys"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)
    answer: Mapped[bytes | None]
