"""Every message on the wire, one definition for both ends.

State lives in the fleet's database, never in the broker: MQTT is the fast path, HTTPS the
truth, and every message may be lost, repeated, delayed or reordered. What goes down is
signed by the fleet's director key, what goes up by the device's (`cloud_sync.trust`):
a message travels as the payload of a DSSE envelope, except for `Presence`, which the broker
itself publishes when a device is gone.

| topic `edgeml/v1/{device}/...` | direction | payload |
|---|---|---|
| `up/hello` | device | `Hello` |
| `up/state`, `up/telemetry`, `up/evidence`, `up/security` | device | `Batch` of `Record` |
| `up/result` | device | `Batch` of `Record`: what became of commands |
| `up/presence` | device (will) | `Presence`, retained |
| `down/desired` | fleet | `DesiredState` |
| `down/ack` | fleet | `Ack` |
| `down/command` | fleet | `Command` |

Unknown fields pass; an unknown `version` is refused with a reason. Everything has a bound: a
message its bytes, a text its characters, a list its length. `docs/messages` has a page for each,
and `docs/asyncapi.json` the whole, both written from these structs.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from cloud_sync.sketch import Sketch
from cloud_sync.windows import UpdateWindow
from edgeml.errors import RemoteError
from hardware.capabilities import Capabilities

MESSAGE_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
MAX_RECORDS = 10_000
MAX_ENTRIES = 1000
MAX_METRICS = 64
TOPIC_ROOT = "edgeml/v1"

DeviceId = Annotated[str, Meta(max_length=64)]
Digest = Annotated[str, Meta(max_length=71)]
Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=1 << 16)]
Pem = Annotated[str, Meta(max_length=1 << 16)]
Address = Annotated[str, Meta(max_length=4096)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 60)]
Site = Annotated[dict[Name, Any], Meta(max_length=MAX_ENTRIES)]


class Up(StrEnum):
    """Topics that a device publishes on, below `edgeml/v1/{device}/`."""

    HELLO = "up/hello"
    STATE = "up/state"
    TELEMETRY = "up/telemetry"
    EVIDENCE = "up/evidence"
    SECURITY = "up/security"
    RESULT = "up/result"
    PRESENCE = "up/presence"


class Down(StrEnum):
    """Topics that the fleet publishes on, below `edgeml/v1/{device}/`."""

    DESIRED = "down/desired"
    ACK = "down/ack"
    COMMAND = "down/command"


class RecordKind(StrEnum):
    """What a record in the outbox holds; each kind has its topic."""

    STATE = "state"
    TELEMETRY = "telemetry"
    EVIDENCE = "evidence"
    SECURITY = "security"
    RESULT = "result"
    LEDGER = "ledger"
    GAP = "gap"


class SecurityKind(StrEnum):
    """What a device refused that no honest party would have sent."""

    UNTRUSTED_RELEASE = "untrusted-release"
    EXPIRED_COMMAND = "expired-command"
    REFUSED_COMMAND = "refused-command"
    REFUSED_STATE = "refused-state"
    REFUSED_ACK = "refused-ack"
    LYING_REGISTRY = "lying-registry"


class Phase(StrEnum):
    """Phases of a model's update on a device (design of the agent's state machine)."""

    IDLE = "idle"
    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    TESTING = "testing"
    SHADOWING = "shadowing"
    PREPARED = "prepared"
    TRIAL = "trial"
    COMMITTED = "committed"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


class RollbackCause(StrEnum):
    """Why a device rolled back; the reason says it in words."""

    GATE = "gate"  # the test or the trial found it bad
    CRASHED = "crashed"  # the process died, in the test or in the agent, again and again
    DAMAGED = "damaged"  # it cannot be loaded


class Feature(StrEnum):
    """What an agent can do that older ones cannot; it says so in its hello."""

    PREPARE = "prepare"  # it stops where `DesiredModel.until` says


class TrialPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a release must hold on the device before it is committed there.

    The trial lasts at least `soak_s` and until `min_inferred` live results were seen, at
    most `timeout_s`; then what is still undecided rolls back. `min_confident_ratio` bounds
    the share of confident results against that of the previous release on this device; the
    p95 of an inference may be `max_latency_p95_ratio` times that of the previous release and
    `latency_slack_ms` more, since the ratio of two tiny figures is noise. Where the golden set
    could not decide whether the device computes what was proven, as with a runtime that was not
    recorded, `try_undecided` lets the trial decide; without it such a device refuses.
    """

    soak_s: float = 60.0
    timeout_s: float = 600.0
    min_inferred: int = 50
    max_error_rate: float = 0.01
    min_confident_ratio: float = 0.8
    max_latency_p95_ratio: float = 3.0
    latency_slack_ms: float = 5.0
    try_undecided: bool = True


class DesiredModel(msgspec.Struct, frozen=True, kw_only=True):
    """The release of one model that a device shall run.

    `release` and `variant` are digests (`sha256:...`). A higher `attempt` lifts the block
    that a rollback of the same release left on the device. `data_budget_bytes` is what the rollout
    may cost this device on the network, 0 for no bound; the device's own `DataBudget` is narrower.

    `until` is how far the device goes with it before a later state says more, for devices that
    switch together: `prepared` is tested and not live yet, `trial` live and not committed, even
    when the trial has passed. A device that is prepared goes live at `switch_at`, Unix
    seconds by the fleet's time; at once where that is past, 0, or the device's clock is not proven.
    After `switch_by` it does not, for its group will have gone back, until it hears more; 0: ever.
    """

    release: Digest
    variant: Digest
    release_version: Name
    rollout: Name = ""
    attempt: int = 1
    nonce: Name = ""
    trial: TrialPolicy = TrialPolicy()
    data_budget_bytes: Bytes = 0
    until: Literal["", "prepared", "trial"] = ""
    switch_at: float = 0.0
    switch_by: float = 0.0


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where frames come from: a `uri` (`file:///belt.mp4`), the model they go to, the pace."""

    name: Name
    uri: Address
    model: Name
    fps: float | None = None
    loop: bool = True


class DataBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What a device may send and receive, in bytes as the kernel counts them, headers and all.

    `month_bytes` bounds everything in a month, which begins on day `month_begins` (UTC);
    `rollout_bytes` bounds the updates of one rollout and stands in place of what its policy says.
    None is no bound. An update that does not fit waits for the next month or a larger budget, or
    is refused, as `when_spent` says.
    """

    month_bytes: Bytes | None = None
    rollout_bytes: Bytes | None = None
    month_begins: Annotated[int, Meta(ge=1, le=28)] = 1
    when_spent: Literal["wait", "refuse"] = "wait"


class CapturePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which frames of a model a device keeps on its disk, for whoever trains the next release.

    Those that failed or whose result is not confident, where `unsure`, and one of every `one_in`,
    whatever it is, 0 for none; at most one in `every_s` seconds, and `keep_mb` of each model: the
    oldest make room. They stay on the device, unless `upload` has it bring them to the fleet, at
    most `upload_mb_a_day`.
    """

    unsure: bool = True
    one_in: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    every_s: Annotated[float, Meta(ge=0)] = 10.0
    keep_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 100
    upload: bool = False
    upload_mb_a_day: Annotated[int, Meta(ge=1, le=1 << 20)] = 100


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A device's configuration; `site` holds, per model, the parameters a release lets it set.

    `mirrors` are registries that are asked, in order, before the fleet's own;
    `max_download_bytes_s` is the rate that a download does not exceed, 0 for none. An update
    begins, and goes on until it is live, in one of `update_windows`; where there is none, at any
    time. One that goes back to what ran before waits for nothing. `capture` says, per model,
    which frames are kept; of a model that is not named none are.
    """

    config_version: int = 0
    sources: Annotated[tuple[SourceConfig, ...], Meta(max_length=MAX_ENTRIES)] = ()
    telemetry_every_s: float = 10.0
    site: Annotated[dict[Name, Site], Meta(max_length=MAX_ENTRIES)] = {}
    data_budget: DataBudget = DataBudget()
    mirrors: Annotated[tuple[Address, ...], Meta(max_length=16)] = ()
    max_download_bytes_s: Bytes = 0
    update_windows: Annotated[tuple[UpdateWindow, ...], Meta(max_length=64)] = ()
    capture: Annotated[dict[Name, CapturePolicy], Meta(max_length=MAX_ENTRIES)] = {}


class DesiredState(msgspec.Struct, frozen=True, kw_only=True):
    """All that the fleet wants of a device; (`epoch`, `counter`) only ever rises."""

    version: int = MESSAGE_VERSION
    device: DeviceId
    epoch: int
    counter: int
    issued_at: float
    expires_at: float
    models: Annotated[dict[Name, DesiredModel], Meta(max_length=MAX_ENTRIES)] = {}
    configuration: Configuration = Configuration()


class ReportedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of one model: what runs, and where an update of it stands.

    `running_*` are empty until a first release is live. `release` and `variant` are those
    of the update that `phase` speaks of. `cause` is a `RollbackCause` where that is `rolled_back`;
    an older agent leaves it empty.
    """

    phase: Phase
    running_release: Digest = ""
    running_variant: Digest = ""
    running_version: Name = ""
    release: Digest = ""
    variant: Digest = ""
    release_version: Name = ""
    rollout: Name = ""
    attempt: int = 0
    reason: Text = ""
    cause: Name = ""


class ReportedSource(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is: `starting`, `running`, `stalled`, `lost` or `ended`, why, for how long."""

    model: Name
    state: Name
    reason: Text = ""
    seconds: float = 0.0


class ReportedState(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says it is; `sources` are by name, as they are at this moment."""

    desired_epoch: int = 0
    desired_counter: int = 0
    config_version: int = 0
    config_error: Text = ""
    models: Annotated[dict[Name, ReportedModel], Meta(max_length=MAX_ENTRIES)] = {}
    sources: Annotated[dict[Name, ReportedSource], Meta(max_length=MAX_ENTRIES)] = {}


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Sent on every connect: who the device is, and the last signed state it accepted.

    `counter` rises with each hello of one boot, over restarts of the agent: its monotonic clock
    in nanoseconds. A hello that is late or comes again is known by it. 0 says nothing. `online` is
    False where a device only tells what it is, when it is enrolled, and does not run yet.
    `utc_offset_s` is how far the local time is ahead of UTC, in seconds: maintenance windows
    are in device time. `features` are what this agent can do that older ones cannot.
    """

    version: int = MESSAGE_VERSION
    device: DeviceId
    agent_version: Name
    boot_id: Name
    stream: Name
    capabilities: Capabilities
    reported: ReportedState
    accepted: Annotated[str, Meta(max_length=MAX_MESSAGE_BYTES)] = (
        ""  # the DSSE envelope, as JSON, of the last desired state accepted
    )
    counter: int = 0
    online: bool = True
    utc_offset_s: int | None = None
    features: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one model's reported state."""

    model: Name
    state: ReportedModel
    desired_epoch: int = 0
    desired_counter: int = 0


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A metric that was measured `n` times: the values' sum, the least and the most."""

    n: Annotated[int, Meta(ge=1)]
    sum: float
    min: float
    max: float

    def merged(self, other: "Measure") -> "Measure":
        """What both have together."""
        return Measure(
            n=self.n + other.n,
            sum=self.sum + other.sum,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
        )


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Telemetry of one model on one source over `seconds`; latencies in ms, by stage.

    accepted = inferred + empty + errors + replaced, up to the frame in flight.
    `empty` are frames in which the pipeline located nothing to infer. `duty` is the share of its
    time that the model may infer, less than 1 on a device that is too hot. `energy_j` is what the
    device used in that time, shared out over the sources by their inferences; with another model
    at work beside it, it holds what that used, too. It is null where nothing measures energy.
    `metrics` are `temperature_c`, where the kernel tells it, and what programs on the device gave
    the agent's local API, by name.
    """

    model: Name
    source: Name
    release: Digest
    variant: Digest
    release_version: Name = ""
    runtime: Name = ""
    seconds: float
    accepted: int
    replaced: int
    inferred: int
    empty: int = 0
    errors: int = 0
    confident: int = 0
    classes: Annotated[dict[Name, int], Meta(max_length=MAX_RECORDS)] = {}
    latency: Annotated[dict[Name, Sketch], Meta(max_length=MAX_ENTRIES)] = {}
    rss_bytes: int = 0
    duty: float = 1.0
    energy_j: float | None = None
    metrics: Annotated[dict[Name, Measure], Meta(max_length=MAX_METRICS)] = {}


class SecurityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a device refused; the fleet makes a security event of it."""

    kind: SecurityKind
    model: Name
    release: Digest
    detail: Text


class Cause(StrEnum):
    """What the network was used for.

    `retry` is what was spent again or for nothing: the requests after a cut, and all that had to
    be thrown away.
    """

    FULL = "full"
    DELTA = "delta"
    RETRY = "retry"
    METADATA = "metadata"
    TELEMETRY = "telemetry"
    SAMPLES = "samples"


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a device spent in all in one month (`2026-11`) on one rollout for one cause, in bytes.

    `failures` counts deltas that did not work out, `note` says why the last one did not.
    """

    month: Annotated[str, Meta(max_length=7)]
    rollout: Annotated[str, Meta(max_length=64)]
    cause: Cause
    sent: int
    received: int
    failures: int = 0
    note: Annotated[str, Meta(max_length=500)] = ""


class LedgerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of a device's ledger that have changed; `ledger` is its random id.

    They are totals and only rise: a record that comes late or again changes nothing.
    """

    ledger: Annotated[str, Meta(max_length=64)]
    entries: Annotated[tuple[LedgerEntry, ...], Meta(max_length=MAX_ENTRIES)]


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Records that were dropped at the outbox's bound: nothing is missing unaccounted."""

    first: int
    last: int
    dropped: int
    reason: Text


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a device's outbox.

    `seq` counts up within the stream; `at` is the device's wall clock in Unix seconds (None
    while it is not known), `monotonic` its monotonic clock. `body` is the JSON of a `StateRecord`,
    `Window`, `Evidence`, `SecurityRecord`, `CommandResult`, `LedgerRecord` or
    `Gap`, as `kind` says; a newer device may send kinds that this fleet does not know yet.
    """

    seq: int
    kind: Annotated[str, Meta(extra_json_schema={"enum": [str(kind) for kind in RecordKind]})]
    at: float | None
    monotonic: float
    body: msgspec.Raw


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one stream on their way up."""

    version: int = MESSAGE_VERSION
    device: DeviceId
    stream: Name
    boot_id: Name
    records: Annotated[tuple[Record, ...], Meta(max_length=MAX_RECORDS)]


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """Sent after the commit: of `stream`, all up to `through` and the `ranges` above are stored.

    `at` is the fleet's time in Unix seconds; 0 where it does not say.
    """

    version: int = MESSAGE_VERSION
    device: DeviceId
    stream: Name
    through: int
    ranges: Annotated[tuple[tuple[int, int], ...], Meta(max_length=MAX_RECORDS)] = ()
    at: float = 0.0


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Online or offline; retained, unsigned, a hint and no proof."""

    version: int = MESSAGE_VERSION
    online: bool
    boot_id: Name = ""


class EnrollRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time token and a certificate signing request (PEM)."""

    version: int = MESSAGE_VERSION
    token: Name
    csr: Pem


class MqttAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How a device reaches the broker; with TLS the certificate speaks and `password` is empty.

    `ca` is the authority (PEM) that vouches for the broker; empty where it is the fleet's own.
    """

    url: Address  # mqtts://host:port, wss://host:port/path; plain only on loopback
    username: Name = ""
    password: Name = ""
    ca: Pem = ""


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an enrolment: certificate chain, CA and director key, all PEM.

    `root` is the TUF root (JSON) by which releases are trusted; empty where they are not signed.
    """

    version: int = MESSAGE_VERSION
    device: DeviceId
    certificate: Pem
    ca: Pem
    director_key: Pem
    mqtt: MqttAccess
    root: Annotated[str, Meta(max_length=MAX_MESSAGE_BYTES)] = ""


M = TypeVar("M", bound=msgspec.Struct)


class UnknownVersion(RemoteError):  # noqa: N818 -- what came, more than a fault
    """A message of a version that this edgeml does not speak."""


class _Versioned(msgspec.Struct):
    version: int = MESSAGE_VERSION


def topic(device: str, name: Up | Down) -> str:
    """The full topic of a device's message: `edgeml/v1/cam-1/up/hello`."""
    return f"{TOPIC_ROOT}/{device}/{name}"


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message as JSON, fields in the order of their definition."""
    return msgspec.json.encode(message)


def decode(data: bytes, kind: type[M]) -> M:
    """Decode and validate a message.

    Raises:
        UnknownVersion: it is of another version, whatever else it holds.
        RemoteError: the message is too large, not JSON or not of this kind; the sentence says
            which.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteError(
            f"A {kind.__name__} message of {len(data)} bytes was refused.",
            why=f"The limit is {MAX_MESSAGE_BYTES} bytes.",
        )
    try:
        # First, and by itself: what another version holds need not look like this one.
        version = msgspec.json.decode(data, type=_Versioned).version
        if version == MESSAGE_VERSION or "version" not in kind.__struct_fields__:
            return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise RemoteError(
            f"A {kind.__name__} message could not be read.", why=f"{error}."
        ) from None
    raise UnknownVersion(
        f"A {kind.__name__} message of version {version} was refused.",
        why=f"This edgeml speaks version {MESSAGE_VERSION}.",
        fix="Update the older side.",
    )
