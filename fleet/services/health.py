"""Whether the parts of the fleet work, and what they counted."""

from fleet.resources import Health
from fleet.services import devices, facts, trust
from fleet.services.context import Services
from fleet.version import version


def show(services: Services) -> Health:
    """The fleet's health."""
    total, online = devices.count(services)
    with services.database.read() as session:
        frozen = facts.get(session, facts.FROZEN)
        epoch = facts.epoch(session)
    connected = services.publisher.connected
    return {
        "status": "frozen" if frozen else "ok" if connected else "degraded",
        "version": version(),
        "started_at": services.started_at,
        "broker": services.mqtt_url,
        "broker_connected": connected,
        "frozen": frozen,
        "trust": trust.show(services)["sentence"],
        "epoch": epoch,
        "devices": total,
        "online": online,
        "counters": services.counters.all(),
    }
