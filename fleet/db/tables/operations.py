"""What the fleet knows of itself: facts, the audit log, security events."""

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import COUNTED, NAME, Table


class Fact(Table):
    """Single values: incarnation, epoch, and why rollouts are frozen."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    value: Mapped[str]


class AuditEntry(Table):
    """One thing that someone did; each entry's hash covers the one before."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(NAME)
    action: Mapped[str] = mapped_column(NAME)
    subject: Mapped[str]
    reason: Mapped[str]
    detail: Mapped[str]
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class SecurityEvent(Table):
    """Something refused that an honest party would not have sent."""

    __tablename__ = "security_events"

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    at: Mapped[float]
    device: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str]
