"""A device that does nothing but send: numbered records into its outbox, and that to the fleet.

    python -m tests.sim.sender AGENT_TOML OUTBOX RECORDS

It has the agent's own outbox and link. Killed and started again it goes on where it was, and it
ends when the fleet has acknowledged the last of its records. A record's number stands in its body,
too: `number_in` reads it.
"""

import sys
from pathlib import Path

import msgspec

from cloud_sync import mqtt_session, outbox
from cloud_sync.messages import (
    Hello,
    Phase,
    RecordKind,
    ReportedModel,
    ReportedState,
    StateRecord,
    Window,
)
from cloud_sync.outbox import Outbox
from cloud_sync.trust.releases import ReleaseTrust
from edge_agent import link
from edge_agent.link import FleetLink
from edge_agent.trust.director import Director
from edge_agent.trust.identity import load_identity
from edge_agent.update.journal import DeviceState
from edgeml.errors import RemoteError
from hardware.capabilities import Capabilities, Cpu

BOOT = "boot-of-the-sender"
STATE_EVERY = 100
TOGETHER = 100
WAITING = 4000


def record_of(number: int) -> tuple[RecordKind, msgspec.Struct]:
    """The record of a number: telemetry, and now and then a state."""
    if number % STATE_EVERY == 0:
        state = ReportedModel(phase=Phase.IDLE, attempt=number)
        return RecordKind.STATE, StateRecord(model="toy", state=state)
    return RecordKind.TELEMETRY, Window(
        model="toy",
        source="belt",
        release="",
        variant="",
        seconds=1.0,
        accepted=number,
        replaced=0,
        inferred=number,
    )


def number_in(body: bytes) -> int:
    """The number that stands in a stored record."""
    found = msgspec.json.decode(body)
    return int(found["accepted"] if "accepted" in found else found["state"]["attempt"])


def hello(device: str, stream: str) -> Hello:
    """What such a device says of itself."""
    return Hello(
        device=device,
        agent_version="0",
        boot_id=BOOT,
        stream=stream,
        capabilities=Capabilities(hardware_class="sender", cpu=Cpu(), memory_bytes=1 << 30),
        reported=ReportedState(),
    )


def _no_releases(_root: bytes) -> ReleaseTrust:
    raise RemoteError("This device has no releases.")


def send(config: Path, file: Path, records: int) -> None:
    """Append what is missing up to `records`, and send until all is acknowledged."""
    identity = load_identity(config)
    device = identity.config.device
    box = Outbox(file, device, BOOT, max_bytes=1 << 30)
    fleet = FleetLink(
        identity,
        Director(identity, DeviceState, _no_releases, lambda _refused: None),
        lambda: box,
        hello=lambda stream: hello(device, stream),
        state=DeviceState,
        on_desired=lambda _state, _envelope: None,
        on_command=lambda _envelope, _asked: None,
        boot_id=BOOT,
    )
    fleet.start()
    at = box.following
    while at <= records or box.depth():
        if at <= records and box.depth() < WAITING:
            at = box.extend([record_of(n) for n in range(at, min(at + TOGETHER, records + 1))]).stop
        fleet.turn(0.005)


if __name__ == "__main__":
    # A test has no time for the pauses that spare a real network.
    link.ACK_PATIENCE_S, link.HTTP_PAUSE_S, link.POLL_ALONE_S = 1.5, (0.1, 0.5), 1.0
    outbox.RESEND_AFTER_S = 3.0
    mqtt_session.RECONNECT_S = (0.2, 1.0)
    send(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
