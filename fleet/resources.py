"""What the fleet's API gives: one definition for services, REST, client, CLI and console.

They are plain dictionaries at run time (JSON as it stands) and typed for everyone who reads
them; FastAPI makes the OpenAPI document of them.
"""

from typing import Any, Generic, TypeVar

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict

T = TypeVar("T")


class Page(TypedDict, Generic[T]):
    """Some items, and the cursor of the next page (null on the last)."""

    items: list[T]
    next: str | None


class EnrollmentToken(TypedDict):
    """A one-time token; it is shown once and kept only as a hash."""

    device: str
    token: str
    labels: dict[str, str]
    expires_at: float


class CommandInfo(TypedDict):
    """A command to a device, where it stands, and what it brought.

    `status` is `pending`, `expired`, or as the device says: `done`, `failed`, `refused`,
    `interrupted`. `content` is text, or base64 where `base64` is true.
    """

    id: str
    device: str
    kind: str
    status: str
    created_at: float
    created_by: str
    expires_at: float
    finished_at: float | None
    reason: str
    seconds: float
    media_type: str
    base64: bool
    content: str


class DesiredVersion(TypedDict):
    """The version and time of a device's signed desired state, and what it holds."""

    epoch: int
    counter: int
    issued_at: float
    expires_at: float
    models: dict[str, dict[str, Any]]
    config_version: int


class DeviceInfo(TypedDict):
    """A device: who it is, what it says of itself, what is wanted of it."""

    device: str
    labels: dict[str, str]
    enrolled_at: float
    revoked_at: float | None
    online: bool
    last_seen: float | None
    hardware_class: str
    agent_version: str
    boot_id: str
    capabilities: dict[str, Any] | None
    reported: dict[str, Any] | None
    desired: DesiredVersion | None
    configuration: dict[str, Any]
    key_id: str


class VariantInfo(TypedDict):
    """A variant of a release."""

    digest: str
    target: str
    rank: int
    precision: str
    quantization: str
    format: str
    verification: str
    bytes: int
    requires: dict[str, Any]
    files: list[dict[str, Any]]


class ReleaseInfo(TypedDict):
    """A release and its variants; `bytes` counts each blob once.

    `trust` is `signed`, `waits for signatures` or `unsigned`.
    """

    model: str
    version: str
    digest: str
    bytes: int
    created_at: float
    created_by: str
    trust: str
    variants: list[VariantInfo]


class ModelInfo(TypedDict):
    """A model, its newest release and how many devices run which version."""

    model: str
    releases: int
    latest: str
    running: dict[str, int]


class PlannedDevice(TypedDict):
    """What a device of a rollout would get, or why nothing fits it."""

    device: str
    hardware_class: str
    variant: str | None
    target: str | None
    precision: str | None
    bytes: int
    reason: str


class Plan(TypedDict):
    """What a rollout would do, before it starts."""

    model: str
    version: str
    release: str
    selector: str
    devices: list[PlannedDevice]
    fitting: int
    unfitting: int
    bytes: int
    by_class: dict[str, dict[str, int]]


class RolloutDevice(TypedDict):
    """A device's place in a rollout."""

    device: str
    hardware_class: str
    wave: int | None
    phase: str
    outcome: str
    variant: str
    running_version: str
    assigned_at: float | None
    reason: str


class RolloutInfo(TypedDict):
    """A rollout: where it stands and the sentence that says why."""

    id: str
    model: str
    version: str
    release: str
    status: str
    wave: int
    waves: int
    sentence: str
    reason: str
    created_at: float
    created_by: str
    finished_at: float | None
    policy: dict[str, Any]
    devices: list[RolloutDevice]
    counts: dict[str, int]


class Explanation(TypedDict):
    """Why a rollout stands where it stands: the sentence, and every gate with its numbers."""

    id: str
    status: str
    wave: int
    sentence: str
    gates: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    devices: list[RolloutDevice]


class EvidenceInfo(TypedDict):
    """A piece of evidence; `device` is empty for the converter's."""

    id: int
    device: str
    model: str
    release: str
    variant: str
    rollout: str
    stage: str
    received_at: float
    evidence: dict[str, Any]


class TelemetryWindow(TypedDict):
    """One window of telemetry as the device sent it."""

    id: int
    device: str
    stream: str
    seq: int
    at: float | None
    received_at: float
    window: dict[str, Any]


class LedgerLine(TypedDict):
    """What a device spent in one month on one rollout for one cause, in bytes."""

    month: str
    rollout: str
    cause: str
    sent: int
    received: int
    failures: int
    note: str


class LedgerInfo(TypedDict):
    """What a device spent on the network, as its kernel counted it."""

    device: str
    lines: list[LedgerLine]


class RolloutCost(TypedDict):
    """What a rollout cost a device, in bytes."""

    device: str
    bytes: int


class AuditInfo(TypedDict):
    """An entry of the audit log."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    reason: str
    detail: dict[str, Any]
    previous_hash: str
    hash: str


class SecurityEventInfo(TypedDict):
    """Something that was refused and that an honest party would not have sent."""

    id: int
    at: float
    device: str
    kind: str
    detail: str


class Health(TypedDict):
    """Whether the parts of the fleet work, and what they have counted since the start."""

    status: str
    version: str
    started_at: float
    broker: str
    broker_connected: bool
    frozen: str
    trust: str
    epoch: int
    devices: int
    online: int
    counters: dict[str, int]


class LoginLink(TypedDict):
    """A link that logs in to the console once."""

    url: str
    expires_at: float


class BundleBlob(TypedDict):
    """A blob of a bundle, and the model below which the registry has it."""

    model: str
    digest: str
    size: int


class BundleContents(TypedDict):
    """A bundle but for its blobs; `trust` are TUF's files by their names."""

    device: str
    created_at: float
    envelope: str
    models: dict[str, str]
    trust: dict[str, str]
    blobs: list[BundleBlob]


class CollectInfo(TypedDict):
    """What a garbage collection of the registry removed, or would remove."""

    dry_run: bool
    removed: list[str]
    removed_bytes: int
    kept: int
    kept_bytes: int
    dropped_releases: list[str]
    in_grace: int


class DecommissionInfo(TypedDict):
    """Where the end of a device's service stands: `waiting` for its wipe, or `done`.

    `command` is the signed command to wipe itself, with its status; empty where none was asked.
    """

    device: str
    status: str
    began_at: float
    finished_at: float | None
    command: str
    command_status: str
