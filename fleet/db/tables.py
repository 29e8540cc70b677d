"""The tables, as SQLAlchemy 2 typed classes.

Times are Unix seconds; documents (capabilities, reported states, evidence) are kept as the JSON
that came in, beside the columns that are searched for. Histories refer to devices and releases,
which are therefore never deleted: a device is revoked, a release stays.
"""

from sqlalchemy import (
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite counts rows up only in a column that is exactly INTEGER.
_COUNTED = BigInteger().with_variant(Integer, "sqlite")
_DIGEST = String(71)
_NAME = String(128)


class Table(DeclarativeBase):
    """The base of all tables; constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own way to say it
        float: Double,
        str: Text,
        bytes: LargeBinary,
    }


class Fact(Table):
    """Single values: incarnation, epoch, and why rollouts are frozen."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    value: Mapped[str]


class Release(Table):
    """A registered release; `document` is the JSON of `cloud_sync.release.Release`."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("model", "version"),)

    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    model: Mapped[str] = mapped_column(_NAME)
    version: Mapped[str] = mapped_column(_NAME)
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(_NAME)
    document: Mapped[str]


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
    hardware_class: Mapped[str] = mapped_column(_NAME)
    agent_version: Mapped[str] = mapped_column(_NAME)
    boot_id: Mapped[str] = mapped_column(_NAME)
    stream: Mapped[str] = mapped_column(_NAME)
    hello_counter: Mapped[int] = mapped_column(BigInteger, server_default="0")
    reported_epoch: Mapped[int] = mapped_column(BigInteger)
    reported_counter: Mapped[int] = mapped_column(BigInteger)
    reported_config_version: Mapped[int]
    config_error: Mapped[str]
    sources: Mapped[str] = mapped_column(Text, server_default="{}")
    online: Mapped[bool]
    last_seen: Mapped[float | None]
    unreconciled: Mapped[bool]


class DeviceLabel(Table):
    """A label of a device; selectors choose by them."""

    __tablename__ = "device_labels"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    key: Mapped[str] = mapped_column(_NAME, primary_key=True)
    value: Mapped[str] = mapped_column(_NAME)


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
    boot_id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    counter: Mapped[int] = mapped_column(BigInteger)
    returns: Mapped[int]
    last_at: Mapped[float]


class RevokedCertificate(Table):
    """A certificate that is good no more, for the list that brokers are given."""

    __tablename__ = "revoked_certificates"

    serial: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    issuer: Mapped[str] = mapped_column(_NAME)
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
    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    phase: Mapped[str] = mapped_column(String(32))
    running_release: Mapped[str] = mapped_column(_DIGEST)
    running_variant: Mapped[str] = mapped_column(_DIGEST)
    running_version: Mapped[str] = mapped_column(_NAME)
    release: Mapped[str] = mapped_column(_DIGEST)
    variant: Mapped[str] = mapped_column(_DIGEST)
    release_version: Mapped[str] = mapped_column(_NAME)
    rollout: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    reason: Mapped[str]
    stream: Mapped[str] = mapped_column(_NAME)
    at: Mapped[float]


class DesiredModel(Table):
    """The release of one model that the fleet wants on a device."""

    __tablename__ = "desired_models"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    release: Mapped[str] = mapped_column(_DIGEST)
    variant: Mapped[str] = mapped_column(_DIGEST)
    release_version: Mapped[str] = mapped_column(_NAME)
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
    model: Mapped[str] = mapped_column(_NAME)
    release: Mapped[str] = mapped_column(ForeignKey("releases.digest"))
    policy: Mapped[str]
    status: Mapped[str] = mapped_column(String(32))
    state: Mapped[str]
    decision: Mapped[str]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(_NAME)
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
    variant: Mapped[str] = mapped_column(_DIGEST)
    attempt: Mapped[int]
    nonce: Mapped[str] = mapped_column(String(64))
    assigned_at: Mapped[float]
    previous: Mapped[str]
    phase: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str]
    phase_at: Mapped[float | None]
    restored_at: Mapped[float | None]


class Stream(Table):
    """What is stored of a device's outbox stream: up to `through`, and the ranges above."""

    __tablename__ = "streams"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(_NAME, primary_key=True)
    through: Mapped[int] = mapped_column(BigInteger)
    ranges: Mapped[str]
    boot_id: Mapped[str] = mapped_column(_NAME)
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

    id: Mapped[int] = mapped_column(_COUNTED, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stream: Mapped[str] = mapped_column(_NAME)
    seq: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(_NAME)
    release: Mapped[str] = mapped_column(_DIGEST)
    at: Mapped[float | None]
    received_at: Mapped[float] = mapped_column(index=True)
    body: Mapped[bytes]


class SignedBatch(Table):
    """A batch's envelope that carried evidence, kept so that it can be verified again."""

    __tablename__ = "signed_batches"

    id: Mapped[int] = mapped_column(_COUNTED, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    received_at: Mapped[float]
    envelope: Mapped[bytes]


class Evidence(Table):
    """What was measured about a variant: by the converter (no device) or by a device."""

    __tablename__ = "evidence"
    __table_args__ = (Index(None, "device", "model"), Index(None, "release", "stage"))

    id: Mapped[int] = mapped_column(_COUNTED, primary_key=True)
    device: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))
    model: Mapped[str] = mapped_column(_NAME)
    release: Mapped[str] = mapped_column(_DIGEST)
    variant: Mapped[str] = mapped_column(_DIGEST)
    rollout: Mapped[str] = mapped_column(String(64), index=True)
    stage: Mapped[str] = mapped_column(String(16))
    nonce: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[float] = mapped_column(index=True)
    document: Mapped[bytes]
    signed_batch: Mapped[int | None] = mapped_column(ForeignKey("signed_batches.id"))


class Command(Table):
    """A command to a device; `result` is the JSON of its `CommandResult`, empty until then."""

    __tablename__ = "commands"
    __table_args__ = (Index(None, "device", "status"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    kind: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(_NAME)
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
    began_by: Mapped[str] = mapped_column(_NAME)
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
    at: Mapped[float]


class AuditEntry(Table):
    """One thing that someone did; each entry's hash covers the one before."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(_NAME)
    action: Mapped[str] = mapped_column(_NAME)
    subject: Mapped[str]
    reason: Mapped[str]
    detail: Mapped[str]
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class SecurityEvent(Table):
    """Something refused that an honest party would not have sent."""

    __tablename__ = "security_events"

    id: Mapped[int] = mapped_column(_COUNTED, primary_key=True)
    at: Mapped[float]
    device: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str]
