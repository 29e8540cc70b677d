"""Rollouts, and what each device is to run."""

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import DIGEST, NAME, Table


class DesiredModel(Table):
    """The release of one model that the fleet wants on a device."""

    __tablename__ = "desired_models"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    release: Mapped[str] = mapped_column(DIGEST)
    variant: Mapped[str] = mapped_column(DIGEST)
    release_version: Mapped[str] = mapped_column(NAME)
    rollout: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    nonce: Mapped[str] = mapped_column(String(64))
    trial: Mapped[str]
    data_budget_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")


class DesiredState(Table):
    """The signed desired state of a device, as it was last issued."""

    __tablename__ = "desired_states"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    counter: Mapped[int] = mapped_column(BigInteger)
    issued_at: Mapped[float]
    expires_at: Mapped[float]
    envelope: Mapped[bytes]


class Rollout(Table):
    """A rollout; `policy` and `state` are the engine's own values as JSON."""

    __tablename__ = "rollouts"
    __table_args__ = (Index(None, "model", "status"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(NAME)
    release: Mapped[str] = mapped_column(ForeignKey("releases.digest"))
    policy: Mapped[str]
    status: Mapped[str] = mapped_column(String(32))
    state: Mapped[str]
    decision: Mapped[str]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(NAME)
    finished_at: Mapped[float | None]


class Assignment(Table):
    """A device's place in a rollout, and where it must go back to if that fails.

    `phase` is the last that the device reported of this very attempt: it stays when the device
    has gone back and speaks of the earlier release again.
    """

    __tablename__ = "assignments"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True, index=True)
    wave: Mapped[int]
    variant: Mapped[str] = mapped_column(DIGEST)
    attempt: Mapped[int]
    nonce: Mapped[str] = mapped_column(String(64))
    assigned_at: Mapped[float]
    previous: Mapped[str]
    phase: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str]
    phase_at: Mapped[float | None]
    restored_at: Mapped[float | None]
