"""What the fleet's API gives: one definition for services, REST, client, CLI and console.

They are plain dictionaries at run time (JSON as it stands) and typed for everyone who reads
them; FastAPI makes the OpenAPI document of them.
"""

from typing import Any, Generic, TypeVar

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict

from fleet.cost_resources import CostSummary

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

    `trust` is `signed`, `waits for signatures` or `unsigned`; `registry` is how it stands in the
    external registry, `pushed`, `waits` or `not pushed: why`, empty where there is none.
    """

    model: str
    version: str
    digest: str
    bytes: int
    created_at: float
    created_by: str
    trust: str
    registry: str
    variants: list[VariantInfo]


class ModelInfo(TypedDict):
    """A model, its newest release and how many devices run which version."""

    model: str
    releases: int
    latest: str
    running: dict[str, int]


class PlannedDevice(TypedDict):
    """What a device of a rollout would get and what that costs it, or why nothing fits it.

    `bytes` are those that it must fetch: files that it has are not counted, and differences
    instead of files where the fleet has made them (`delta_bytes` of them; `full_bytes` is the whole
    variant). `cost_bytes` is what that takes on the network, about, and what is compared with
    `budget_left` (null: no bound) and priced (`money`, null: no price). `verification` is how far
    the converter checked the variant.
    """

    device: str
    hardware_class: str
    online: bool
    variant: str | None
    target: str | None
    precision: str | None
    verification: str | None
    bytes: int
    full_bytes: int
    delta_bytes: int
    cost_bytes: int
    budget_left: int | None
    in_budget: bool
    money: float | None
    reason: str


class Plan(TypedDict):
    """What a rollout would do, before it starts; all but `devices` is over all pages.

    `reasons` counts why nothing fits, the most frequent first; `over_budget` counts the devices
    that must wait for their data budget.
    """

    model: str
    version: str
    release: str
    selector: str
    devices: list[PlannedDevice]
    next: str | None
    fitting: int
    unfitting: int
    over_budget: int
    bytes: int
    cost_bytes: int
    currency: str
    money: float | None
    by_class: dict[str, dict[str, int]]
    reasons: dict[str, int]


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
    tries: int
    reason: str


class RolloutInfo(TypedDict):
    """A rollout: where it stands and the sentence that says why.

    `kind` is `release` or `configuration`. `waits_for` names what has to come before it goes on
    (`approval`, `window`, `gate`, ...), `until` is when that is known to come. `gate` is the one
    that tells most: that failed, else is undecided, else passes most narrowly; null where there is
    none with numbers. In a list `devices` is empty, `counts` has those that were given it, and
    `cost` is null.
    """

    id: str
    kind: str
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
    started_at: float | None
    finished_at: float | None
    waits_for: str
    until: float | None
    gate: dict[str, Any] | None
    approvals: list[dict[str, Any]]
    overrides: list[dict[str, Any]]
    policy: dict[str, Any]
    devices: list[RolloutDevice]
    counts: dict[str, int]
    cost: CostSummary | None


class Explanation(TypedDict):
    """Why a rollout stands where it stands: the sentence, and every gate with its numbers."""

    id: str
    status: str
    wave: int
    sentence: str
    waits_for: str
    until: float | None
    gates: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    devices: list[RolloutDevice]


class BlockInfo(TypedDict):
    """A release that no device of a hardware class is given any more, and why."""

    model: str
    version: str
    release: str
    hardware_class: str
    reason: str
    rollout: str
    blocked_at: float
    blocked_by: str


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


class SampleInfo(TypedDict):
    """A captured frame that a device brought up.

    `reason` is why it was kept: `unsure`, `failed` or `one-in`. `version` and `release` (its
    digest) are what ran. `captured_at` is by the device's clock. `result` is the rest of its line
    of results.
    """

    id: int
    device: str
    model: str
    digest: str
    release: str
    version: str
    captured_at: float
    received_at: float
    reason: str
    confidence: float | None
    media_type: str
    size: int
    result: dict[str, Any]


class RetentionInfo(TypedDict):
    """How long, in days, and how much is kept; the rest is forgotten."""

    records_days: float
    records_bytes: int
    proofs_days: float
    minute_days: float
    hour_days: float
    day_days: float
    device_days: float
    ledger_days: float
    samples_days: float
    samples_bytes: int
