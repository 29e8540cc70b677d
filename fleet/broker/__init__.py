"""The embedded MQTT broker that `edgeml fleet up` runs on loopback.

broker = await start("127.0.0.1", 1883, credentials)   # port 0: any free port
broker.url                                             # "mqtt://127.0.0.1:1883"
await broker.stop()
"""

from fleet.broker.credentials import SUPERUSER, Credentials
from fleet.broker.embedded import EmbeddedBroker, start

__all__ = ["SUPERUSER", "Credentials", "EmbeddedBroker", "start"]
