"""Telemetry summed up: by minute, hour and day over like devices, and by hour for each device."""

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import DIGEST, NAME, Table


class _Summed:
    """What is summed: counts of windows and frames, the most memory, energy, latencies, metrics.

    `latency` is JSON: a sketch in milliseconds for each stage; `metrics` is, too: a `Measure` for
    each name.
    """

    windows: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
    accepted: Mapped[int] = mapped_column(BigInteger)
    replaced: Mapped[int] = mapped_column(BigInteger)
    inferred: Mapped[int] = mapped_column(BigInteger)
    empty: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    confident: Mapped[int] = mapped_column(BigInteger)
    rss_bytes: Mapped[int] = mapped_column(BigInteger)
    energy_j: Mapped[float]
    energy_inferred: Mapped[int] = mapped_column(BigInteger)
    latency: Mapped[bytes]
    metrics: Mapped[bytes]


class RollUp(_Summed, Table):
    """The windows that began in `step` seconds, of devices of one class and alike in `labels`."""

    __tablename__ = "rollups"

    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    begins_at: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    release: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    hardware_class: Mapped[str] = mapped_column(NAME, primary_key=True)
    labels: Mapped[str] = mapped_column(String(512), primary_key=True)


class DeviceRollUp(_Summed, Table):
    """The windows of one device in the hour that begins at `begins_at`."""

    __tablename__ = "device_rollups"
    __table_args__ = (Index(None, "model", "release", "begins_at"), Index(None, "begins_at"))

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    begins_at: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    release: Mapped[str] = mapped_column(DIGEST, primary_key=True)
