"""Rollouts, and what each device is to run."""

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, false
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
    until: Mapped[str] = mapped_column(String(32), server_default="", default="")
    switch_at: Mapped[float] = mapped_column(server_default="0", default=0.0)
    switch_by: Mapped[float] = mapped_column(server_default="0", default=0.0)


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
    """A rollout of a release, or of a layer's revision; one of both is set.

    `policy` and `state` are the engine's own values as JSON.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        Index(None, "model", "status"),
        CheckConstraint("(release IS NULL) <> (revision IS NULL)", name="ck_rollouts_subject"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(NAME)
    release: Mapped[str | None] = mapped_column(ForeignKey("releases.digest"))
    revision: Mapped[str | None] = mapped_column(ForeignKey("configuration_revisions.digest"))
    policy: Mapped[str]
    status: Mapped[str] = mapped_column(String(32))
    state: Mapped[str]
    decision: Mapped[str]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(NAME)
    finished_at: Mapped[float | None]
    started_at: Mapped[float | None]


class Assignment(Table):
    """A device's place in a rollout, and where it must go back to if that fails.

    `phase` is the last that the device reported of this very attempt: it stays when the device
    has gone back and speaks of the earlier release again. `tries` counts this rollout's attempts on
    the device; `again` is set while an operator wants another. `group_name` is the group that the
    device switches with, `until` how far it is let go, "" to the end, and `until_at` since when.
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
    cause: Mapped[str] = mapped_column(String(32), server_default="", default="")
    phase_at: Mapped[float | None]
    restored_at: Mapped[float | None]
    tries: Mapped[int] = mapped_column(server_default="1", default=1)
    again: Mapped[bool] = mapped_column(server_default=false(), default=False)
    group_name: Mapped[str] = mapped_column(NAME, server_default="", default="")
    until: Mapped[str] = mapped_column(String(32), server_default="", default="")
    until_at: Mapped[float | None]


class RolloutMember(Table):
    """A device of a rollout whose devices are fixed."""

    __tablename__ = "rollout_members"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True, index=True)


class ReleaseBlock(Table):
    """A release that no device of a hardware class is given any more, and why."""

    __tablename__ = "release_blocks"

    release: Mapped[str] = mapped_column(ForeignKey("releases.digest"), primary_key=True)
    hardware_class: Mapped[str] = mapped_column(NAME, primary_key=True)
    rollout: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str]
    blocked_at: Mapped[float]
    blocked_by: Mapped[str] = mapped_column(NAME)
