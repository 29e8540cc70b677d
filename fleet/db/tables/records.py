"""What devices sent: streams, records, evidence."""

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import COUNTED, DIGEST, NAME, Table


class Stream(Table):
    """What is stored of a device's outbox stream: up to `through`, and the ranges above."""

    __tablename__ = "streams"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(NAME, primary_key=True)
    through: Mapped[int] = mapped_column(BigInteger)
    ranges: Mapped[str]
    boot_id: Mapped[str] = mapped_column(NAME)
    first_at: Mapped[float]
    last_at: Mapped[float]


class Record(Table):
    """One record of a device's outbox, stored once."""

    __tablename__ = "records"
    __table_args__ = (
        UniqueConstraint("device", "stream", "seq"),
        Index(None, "device", "kind", "id"),
        Index(None, "model", "kind", "id"),
    )

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stream: Mapped[str] = mapped_column(NAME)
    seq: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(NAME)
    release: Mapped[str] = mapped_column(DIGEST)
    at: Mapped[float | None]
    received_at: Mapped[float] = mapped_column(index=True)
    body: Mapped[bytes]


class SignedBatch(Table):
    """A batch's envelope that carried evidence, kept so that it can be verified again."""

    __tablename__ = "signed_batches"

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    received_at: Mapped[float]
    envelope: Mapped[bytes]


class Evidence(Table):
    """What was measured about a variant: by the converter (no device) or by a device."""

    __tablename__ = "evidence"
    __table_args__ = (Index(None, "device", "model"), Index(None, "release", "stage"))

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    device: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))
    model: Mapped[str] = mapped_column(NAME)
    release: Mapped[str] = mapped_column(DIGEST)
    variant: Mapped[str] = mapped_column(DIGEST)
    rollout: Mapped[str] = mapped_column(String(64), index=True)
    stage: Mapped[str] = mapped_column(String(16))
    nonce: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[float] = mapped_column(index=True)
    document: Mapped[bytes]
    signed_batch: Mapped[int | None] = mapped_column(ForeignKey("signed_batches.id"))
