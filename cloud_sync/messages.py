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
| `up/presence` | device (will) | `Presence`, retained |
| `down/desired` | fleet | `DesiredState` |
| `down/ack` | fleet | `Ack` |

Unknown fields pass; an unknown `version` is refused with a reason.
"""

from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from cloud_sync.sketch import Sketch
from edgeml.errors import RemoteError
from hardware.capabilities import Capabilities

MESSAGE_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
TOPIC_ROOT = "edgeml/v1"


class Up(StrEnum):
    """Topics that a device publishes on, below `edgeml/v1/{device}/`."""

    HELLO = "up/hello"
    STATE = "up/state"
    TELEMETRY = "up/telemetry"
    EVIDENCE = "up/evidence"
    SECURITY = "up/security"
    PRESENCE = "up/presence"


class Down(StrEnum):
    """Topics that the fleet publishes on, below `edgeml/v1/{device}/`."""

    DESIRED = "down/desired"
    ACK = "down/ack"


class RecordKind(StrEnum):
    """What a record in the outbox holds; each kind has its topic."""

    STATE = "state"
    TELEMETRY = "telemetry"
    EVIDENCE = "evidence"
    SECURITY = "security"
    GAP = "gap"


class SecurityKind(StrEnum):
    """What a device refused that no honest party would have sent."""

    UNTRUSTED_RELEASE = "untrusted-release"


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
    that a rollback of the same release left on the device.
    """

    release: str
    variant: str
    release_version: str
    rollout: str = ""
    attempt: int = 1
    nonce: str = ""
    trial: TrialPolicy = TrialPolicy()


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where frames come from: a `uri` (`file:///belt.mp4`), the model they go to, the pace."""

    name: str
    uri: str
    model: str
    fps: float | None = None
    loop: bool = True


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A device's configuration; `site` holds, per model, the parameters a release lets it set."""

    config_version: int = 0
    sources: tuple[SourceConfig, ...] = ()
    telemetry_every_s: float = 10.0
    site: dict[str, dict[str, Any]] = {}


class DesiredState(msgspec.Struct, frozen=True, kw_only=True):
    """All that the fleet wants of a device; (`epoch`, `counter`) only ever rises."""

    version: int = MESSAGE_VERSION
    device: str
    epoch: int
    counter: int
    issued_at: float
    expires_at: float
    models: dict[str, DesiredModel] = {}
    configuration: Configuration = Configuration()


class ReportedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of one model: what runs, and where an update of it stands.

    `running_*` are empty until a first release is live. `release` and `variant` are those
    of the update that `phase` speaks of.
    """

    phase: Phase
    running_release: str = ""
    running_variant: str = ""
    running_version: str = ""
    release: str = ""
    variant: str = ""
    release_version: str = ""
    rollout: str = ""
    attempt: int = 0
    reason: str = ""


class ReportedSource(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is: `starting`, `running`, `stalled`, `lost` or `ended`, why, for how long."""

    model: str
    state: str
    reason: str = ""
    seconds: float = 0.0


class ReportedState(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says it is; `sources` are by name, as they are at this moment."""

    desired_epoch: int = 0
    desired_counter: int = 0
    config_version: int = 0
    config_error: str = ""
    models: dict[str, ReportedModel] = {}
    sources: dict[str, ReportedSource] = {}


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Sent on every connect: who the device is, and the last signed state it accepted.

    `counter` rises with each hello of one boot, over restarts of the agent: its monotonic clock
    in nanoseconds. A hello that is late or comes again is known by it. 0 says nothing.
    """

    version: int = MESSAGE_VERSION
    device: str
    agent_version: str
    boot_id: str
    stream: str
    capabilities: Capabilities
    reported: ReportedState
    accepted: str = ""  # the DSSE envelope, as JSON, of the last desired state accepted
    counter: int = 0


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one model's reported state."""

    model: str
    state: ReportedModel
    desired_epoch: int = 0
    desired_counter: int = 0


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Telemetry of one model on one source over `seconds`; latencies in ms, by stage.

    accepted = inferred + empty + errors + replaced, up to the frame in flight.
    `empty` are frames in which the pipeline located nothing to infer. `duty` is the share of its
    time that the model may infer, less than 1 on a device that is too hot.
    """

    model: str
    source: str
    release: str
    variant: str
    release_version: str = ""
    runtime: str = ""
    seconds: float
    accepted: int
    replaced: int
    inferred: int
    empty: int = 0
    errors: int = 0
    confident: int = 0
    classes: dict[str, int] = {}
    latency: dict[str, Sketch] = {}
    rss_bytes: int = 0
    duty: float = 1.0


class SecurityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a device refused; the fleet makes a security event of it."""

    kind: SecurityKind
    model: str
    release: str
    detail: str


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Records that were dropped at the outbox's bound: nothing is missing unaccounted."""

    first: int
    last: int
    dropped: int
    reason: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a device's outbox.

    `seq` counts up within the stream; `at` is the device's wall clock in Unix seconds (None
    while it is not known), `monotonic` its monotonic clock. `body` is the JSON of a `StateRecord`,
    `Window`, `Evidence`, `SecurityRecord` or `Gap`, as `kind` says.
    """

    seq: int
    kind: RecordKind
    at: float | None
    monotonic: float
    body: msgspec.Raw


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one stream on their way up."""

    version: int = MESSAGE_VERSION
    device: str
    stream: str
    boot_id: str
    records: tuple[Record, ...]


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """Sent after the commit: of `stream`, all up to `through` and the `ranges` above are stored.

    `at` is the fleet's time in Unix seconds; 0 where it does not say.
    """

    version: int = MESSAGE_VERSION
    device: str
    stream: str
    through: int
    ranges: tuple[tuple[int, int], ...] = ()
    at: float = 0.0


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Online or offline; retained, unsigned, a hint and no proof."""

    version: int = MESSAGE_VERSION
    online: bool
    boot_id: str = ""


class EnrollRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time token and a certificate signing request (PEM)."""

    version: int = MESSAGE_VERSION
    token: str
    csr: str


class MqttAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How a device reaches the broker; with TLS the certificate speaks and `password` is empty.

    `ca` is the authority (PEM) that vouches for the broker; empty where it is the fleet's own.
    """

    url: str  # mqtt://host:port or mqtts://host:port
    username: str = ""
    password: str = ""
    ca: str = ""


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an enrolment: certificate chain, CA and director key, all PEM.

    `root` is the TUF root (JSON) by which releases are trusted; empty where they are not signed.
    """

    version: int = MESSAGE_VERSION
    device: str
    certificate: str
    ca: str
    director_key: str
    mqtt: MqttAccess
    root: str = ""


M = TypeVar("M", bound=msgspec.Struct)


def topic(device: str, name: Up | Down) -> str:
    """The full topic of a device's message: `edgeml/v1/cam-1/up/hello`."""
    return f"{TOPIC_ROOT}/{device}/{name}"


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message as JSON, fields in the order of their definition."""
    return msgspec.json.encode(message)


def decode(data: bytes, kind: type[M]) -> M:
    """Decode and validate a message.

    Raises:
        RemoteError: the message is too large, not JSON, of an unknown version or not of
            this kind; the sentence says which.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteError(
            f"A {kind.__name__} message of {len(data)} bytes was refused.",
            why=f"The limit is {MAX_MESSAGE_BYTES} bytes.",
        )
    try:
        message = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise RemoteError(
            f"A {kind.__name__} message could not be read.", why=f"{error}."
        ) from None
    version = getattr(message, "version", MESSAGE_VERSION)
    if version != MESSAGE_VERSION:
        raise RemoteError(
            f"A {kind.__name__} message of version {version} was refused.",
            why=f"This edgeml speaks version {MESSAGE_VERSION}.",
            fix="Update the older side.",
        )
    return message
