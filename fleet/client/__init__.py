"""The fleet's REST API as typed Python calls; the command line is written over it.

    with FleetClient("http://127.0.0.1:8080", token) as fleet:
        fleet.push(Path("release"))
        fleet.create_rollout("digits", "1.2.0", policy=Path("policy.toml").read_text())

Errors of the fleet come back as the same `EdgemlError` classes, with what, why and fix.
"""

from fleet.client.access import AccessCalls
from fleet.client.alerts import AlertCalls
from fleet.client.configurations import ConfigurationCalls
from fleet.client.connection import BearerAuth, error_of
from fleet.client.devices import DeviceCalls
from fleet.client.observed import ObservedCalls
from fleet.client.releases import ReleaseCalls
from fleet.client.rollouts import RolloutCalls
from fleet.client.samples import SampleCalls
from fleet.client.system import SystemCalls
from fleet.client.trust import TrustCalls
from fleet.client.webhooks import WebhookCalls

__all__ = ["BearerAuth", "FleetClient", "error_of"]


class FleetClient(
    AccessCalls,
    DeviceCalls,
    ConfigurationCalls,
    ReleaseCalls,
    RolloutCalls,
    TrustCalls,
    ObservedCalls,
    SampleCalls,
    AlertCalls,
    WebhookCalls,
    SystemCalls,
):
    """See the module; safe to use from several threads."""
