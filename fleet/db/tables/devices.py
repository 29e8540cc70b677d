"""Devices: who they are, what they said, and what becomes of them."""

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import DIGEST, NAME, Table


class Device(Table):
    """An enrolled device: identity, configuration, and what it last said of itself."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    enrolled_at: Mapped[float]
    revoked_at: Mapped[float | None]
    certificate: Mapped[str]
    public_key: Mapped[str]
    key_id: Mapped[str] = mapped_column(String(64))
    mqtt_password_hash: Mapped[str] = mapped_column(String(64))
    configuration: Mapped[str]
    config_version: Mapped[int]
    capabilities: Mapped[str]
    hardware_class: Mapped[str] = mapped_column(NAME)
    agent_version: Mapped[str] = mapped_column(NAME)
    boot_id: Mapped[str] = mapped_column(NAME)
    stream: Mapped[str] = mapped_column(NAME)
    hello_counter: Mapped[int] = mapped_column(BigInteger, server_default="0")
    reported_epoch: Mapped[int] = mapped_column(BigInteger)
    reported_counter: Mapped[int] = mapped_column(BigInteger)
    reported_config_version: Mapped[int]
    config_error: Mapped[str]
    sources: Mapped[str] = mapped_column(Text, server_default="{}")
    online: Mapped[bool]
    last_seen: Mapped[float | None]
    unreconciled: Mapped[bool]
    utc_offset_s: Mapped[int | None]
    features: Mapped[str] = mapped_column(Text, server_default="", default="")


class DeviceLabel(Table):
    """A label of a device; selectors choose by them."""

    __tablename__ = "device_labels"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    key: Mapped[str] = mapped_column(NAME, primary_key=True)
    value: Mapped[str] = mapped_column(NAME)


class DeviceKey(Table):
    """Every public key that a device ever had: old evidence stays verifiable."""

    __tablename__ = "device_keys"

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    public_key: Mapped[str]
    since: Mapped[float]


class DeviceBoot(Table):
    """A boot of a device and its newest hello: one that goes on after a later boot is a clone's."""

    __tablename__ = "device_boots"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    boot_id: Mapped[str] = mapped_column(NAME, primary_key=True)
    counter: Mapped[int] = mapped_column(BigInteger)
    returns: Mapped[int]
    last_at: Mapped[float]


class RevokedCertificate(Table):
    """A certificate that is good no more, for the list that brokers are given."""

    __tablename__ = "revoked_certificates"

    serial: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    issuer: Mapped[str] = mapped_column(NAME)
    revoked_at: Mapped[float]
    expires_at: Mapped[float]


class Enrollment(Table):
    """A token, of which only the hash is kept; `device` may end with `*` where it has `uses`."""

    __tablename__ = "enrollments"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    labels: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]
    used_at: Mapped[float | None]
    uses: Mapped[int] = mapped_column(server_default="1", default=1)


class ReportedModel(Table):
    """What a device last said of one model."""

    __tablename__ = "reported_models"
    __table_args__ = (Index(None, "model", "running_release"),)

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    phase: Mapped[str] = mapped_column(String(32))
    running_release: Mapped[str] = mapped_column(DIGEST)
    running_variant: Mapped[str] = mapped_column(DIGEST)
    running_version: Mapped[str] = mapped_column(NAME)
    release: Mapped[str] = mapped_column(DIGEST)
    variant: Mapped[str] = mapped_column(DIGEST)
    release_version: Mapped[str] = mapped_column(NAME)
    rollout: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    reason: Mapped[str]
    cause: Mapped[str] = mapped_column(String(32), server_default="", default="")
    stream: Mapped[str] = mapped_column(NAME)
    at: Mapped[float]


class Command(Table):
    """A command to a device; `result` is the JSON of its `CommandResult`, empty until then."""

    __tablename__ = "commands"
    __table_args__ = (Index(None, "device", "status"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    kind: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(NAME)
    expires_at: Mapped[float]
    envelope: Mapped[bytes]
    status: Mapped[str] = mapped_column(String(16))
    finished_at: Mapped[float | None]
    result: Mapped[bytes]


class Decommission(Table):
    """The end of a device's service; `command` is its wipe, empty where none was asked for."""

    __tablename__ = "decommissions"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    began_at: Mapped[float]
    began_by: Mapped[str] = mapped_column(NAME)
    command: Mapped[str] = mapped_column(String(64))
    command_status: Mapped[str] = mapped_column(String(16))
    finished_at: Mapped[float | None]


class LedgerEntry(Table):
    """What a device spent in one month on one rollout for one cause, in bytes, in all."""

    __tablename__ = "ledger_entries"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    ledger: Mapped[str] = mapped_column(String(64), primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    rollout: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    cause: Mapped[str] = mapped_column(String(16), primary_key=True)
    sent: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str]
    at: Mapped[float] = mapped_column(index=True)
