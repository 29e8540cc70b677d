"""moat-lib-mqtt as a process: `moat_host.py PORT ACCOUNTS.json` (its own virtual environment)."""

# ruff: noqa: ANN001, ANN201, ANN204, ARG002, D101, D102, D103, INP001
# mypy: ignore-errors

import json
import sys
from pathlib import Path

import anyio
from moat.lib.mqtt import ReasonCode
from moat.lib.mqtt.async_broker import AsyncMQTTBroker, MQTTAuthenticator, MQTTAuthorizer

FLEET = "edgeml-fleet"


class Accounts(MQTTAuthenticator):
    def __init__(self, path):
        self.path = path

    async def authenticate(self, client_id, username, password, stream):
        known = json.loads(self.path.read_text())
        if username in known and known[username] == password and client_id == username:
            return None
        return ReasonCode.NOT_AUTHORIZED


class Own(MQTTAuthorizer):
    async def authorize_publish(self, topic, client_id, username, stream):
        return None if own(username, topic) else ReasonCode.NOT_AUTHORIZED

    async def authorize_subscribe(self, pattern, client_id, username, stream):
        return None if own(username, pattern.pattern) else ReasonCode.NOT_AUTHORIZED


def own(username, topic):
    return username == FLEET or topic.startswith(f"edgeml/v1/{username}/")


anyio.run(
    AsyncMQTTBroker(
        ("127.0.0.1", int(sys.argv[1])),
        authenticators=[Accounts(Path(sys.argv[2]))],
        authorizers=[Own()],
    ).serve
)
