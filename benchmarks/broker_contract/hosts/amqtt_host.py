"""amqtt as a process: `amqtt_host.py PORT ACCOUNTS.json`, with plugins for accounts and topics."""

# ruff: noqa: ANN001, ANN201, ARG002, ASYNC240, D101, D102, D103, D106, INP001
# mypy: ignore-errors

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

FLEET = "edgeml-fleet"


class Accounts(BaseAuthPlugin):
    @dataclass
    class Config:
        path: str = ""

    async def authenticate(self, *, session):
        known = json.loads(Path(self.config.path).read_text())
        right = known.get(session.username or "") == session.password
        return right and session.client_id == session.username


class Own(BaseTopicPlugin):
    @dataclass
    class Config:
        fleet: str = FLEET

    async def topic_filtering(self, *, session=None, topic=None, action=None):
        if session is None or session.username == self.config.fleet:
            return True
        return bool(topic and topic.startswith(f"edgeml/v1/{session.username}/"))


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
            "plugins": {"__main__.Accounts": {"path": sys.argv[2]}, "__main__.Own": {}},
        }
    )
    await broker.start()
    await stop.wait()
    await broker.shutdown()


asyncio.run(main())
