"""Whether the parts of the fleet work, and what they counted."""

from fleet.resources import Health
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services import devices, facts, trust
from fleet.services.context import Services
from fleet.version import version


def show(services: Services, scope: Selector = EVERYTHING) -> Health:
    """The fleet's health, with the devices of a scope.

    Why it is frozen may name a device, and what was counted is of all: both are for who sees all.
    """
    total, online = devices.count(services, scope)
    with services.database.read() as session:
        frozen = facts.get(session, facts.FROZEN)
        if frozen and scope.requirements:
            frozen = "Rollouts are frozen: whoever sees the whole fleet sees why."
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
        "counters": {} if scope.requirements else services.counters.all(),
    }
