"""Which devices are there, kept by the one process of several that leads.

Presence is retained at the broker, and a shared subscription is given nothing that is retained:
whoever takes the lead subscribes for itself, and is told of every device first.
"""

from collections.abc import Callable, Sequence

from cloud_sync.messages import TOPIC_ROOT, Up
from cloud_sync.mqtt_session import MqttSession, OnDelivery
from fleet.ingest import Ingest
from fleet.services.context import Services

_TOPIC = f"{TOPIC_ROOT}/+/{Up.PRESENCE}"


class Presence:
    """See the module.

    Args:
        services: where it is kept.
        connect: makes a session of this process's own with the broker.
    """

    def __init__(
        self, services: Services, connect: Callable[[OnDelivery, Sequence[str]], MqttSession]
    ) -> None:
        self._ingest = Ingest(services)
        self._bus = connect(self._ingest.on_delivery, (_TOPIC,))

    def start(self) -> None:
        """Begin."""
        self._ingest.start()
        self._bus.start()

    def stop(self) -> None:
        """End."""
        self._bus.close()
        self._ingest.stop()
