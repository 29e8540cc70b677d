"""What the fleet can do, as functions that REST, command line and console share.

Each takes `Services` first: the database, the keys, the registry and the clock.

    from fleet.services import Services, devices
    devices.show(services, "cam-1")
"""

from fleet.services.context import Caller, Services

__all__ = ["Caller", "Services"]
