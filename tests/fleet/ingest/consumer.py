"""One consumer of a shared subscription, as a process: `python consumer.py DATA URL PORT NAME`."""

import datetime as dt
import sys
import threading
import time
from pathlib import Path

from cloud_sync.mqtt_session import MqttSession
from fleet.db import Database
from fleet.incarnation import HeadFile
from fleet.ingest import RECEIVE_MAXIMUM, Ingest, subscriptions
from fleet.keys import load_or_create
from fleet.registry import Registry
from fleet.services import Services
from fleet.trust import Repository


def main() -> None:
    """Consume until the process is killed."""
    folder, url, port, name = sys.argv[1:]
    data = Path(folder)
    services = Services(
        database=Database(url),
        keys=load_or_create(data, dt.datetime.now(dt.UTC)),
        registry=Registry(data / "registry"),
        head=HeadFile(data / "keys" / "head.json"),
        trust=Repository(data / "trust", time.time),
    )
    ingest = Ingest(services)
    ingest.start()
    bus = MqttSession(
        f"mqtt://127.0.0.1:{port}",
        name,
        on_delivery=ingest.on_delivery,
        receive_maximum=RECEIVE_MAXIMUM,
        subscriptions=subscriptions(shared=True),
    )
    bus.start()
    services.publisher.attach(bus)
    if bus.wait_connected(60):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
