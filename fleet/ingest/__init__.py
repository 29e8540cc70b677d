"""Takes what devices send: from the bus and over HTTPS, through one queue and one writer.

    bus, HTTPS ──▶ Waiting ──▶ opened (verified, decoded) ──▶ stored in one transaction ──▶ acks
                   bounded     processes, when it is much      one group at a time

A message of the bus is acknowledged to the broker when it is stored, so that what the database
cannot follow waits at the broker, which gives no more than the receive maximum. Several such
consumers may share one database and one subscription (`subscriptions(shared=True)`).
"""

from fleet.ingest.service import Ingest
from fleet.ingest.topics import Address, parse_topic, subscriptions
from fleet.ingest.waiting import (
    MAX_TOGETHER,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    RECEIVE_MAXIMUM,
    Message,
)

__all__ = [
    "MAX_TOGETHER",
    "MAX_WAITING",
    "MAX_WAITING_BYTES",
    "RECEIVE_MAXIMUM",
    "Address",
    "Ingest",
    "Message",
    "parse_topic",
    "subscriptions",
]
