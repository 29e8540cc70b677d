"""The first hello of a device, sent when it is enrolled: what it is, so that it can be planned for.

A device that has no network after its enrolment never says another; without this one the fleet
could choose no variant for it, and export no bundle.
"""

import time
from pathlib import Path

from cloud_sync.device_api import DeviceClient
from cloud_sync.messages import Hello, ReportedState
from cloud_sync.outbox import Outbox
from cloud_sync.update_machine import FEATURES
from edge_agent.trust.identity import load_identity
from hardware.probes import agent_version, boot_id, probe


def greet(config: Path) -> None:
    """Say hello once.

    Raises:
        RemoteError: the fleet cannot be reached; the agent will say it when it runs.
        TrustError: the fleet does not know this device.
    """
    identity = load_identity(config)
    device, boot = identity.config.device, boot_id()
    outbox = Outbox(identity.data / "outbox.db", device, boot)
    try:
        hello = Hello(
            device=device,
            agent_version=agent_version(),
            boot_id=boot,
            counter=time.monotonic_ns(),
            stream=outbox.stream,
            capabilities=probe(),
            reported=ReportedState(),
            online=False,
            utc_offset_s=time.localtime().tm_gmtoff,
            features=FEATURES,
        )
    finally:
        outbox.close()
    client = DeviceClient(identity.config.fleet_url, device, identity.key)
    try:
        client.hello(hello)
    finally:
        client.close()
