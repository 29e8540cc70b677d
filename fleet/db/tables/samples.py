"""Captured frames that devices brought up."""

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import COUNTED, DIGEST, NAME, Table


class Sample(Table):
    """A captured frame, whose file is in the fleet's folder `samples`; `line` is its result."""

    __tablename__ = "samples"
    __table_args__ = (UniqueConstraint("device", "model", "digest"), Index(None, "model", "id"))

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    model: Mapped[str] = mapped_column(NAME)
    digest: Mapped[str] = mapped_column(DIGEST)
    release: Mapped[str] = mapped_column(DIGEST)
    version: Mapped[str] = mapped_column(NAME)
    captured_at: Mapped[float]
    received_at: Mapped[float] = mapped_column(index=True)
    reason: Mapped[str] = mapped_column(String(16))
    confidence: Mapped[float | None]
    media_type: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    line: Mapped[bytes]
