"""A socket is open for as long as whoever opened it may have it open."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from fleet.access import Access, AccessMiddleware, door
from fleet.services import Services, credentials
from fleet.services.credentials import Kind

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_RECHECK_S", 0.01)


async def listening(_scope: Scope, receive: Receive, send: Send) -> None:
    """An application that sends back what comes, until the socket ends."""
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["type"]})


def open_socket(
    services: Services, cookie: str, then: Callable[[], None], origin: str = "http://fleet"
) -> list[Message]:
    """What is sent on a socket that hears nothing more after `then`, until it ends."""
    sent: list[Message] = []
    headers = [("cookie", f"edgeml_session={cookie}"), ("origin", origin), ("host", "fleet")]

    async def run() -> None:
        incoming: asyncio.Queue[Message] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})
        incoming.put_nowait({"type": "websocket.receive", "text": "one"})

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 2:
                await asyncio.to_thread(then)

        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/console/socket",
            "scheme": "ws",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
        middleware = AccessMiddleware(listening, Access(services))
        await asyncio.wait_for(middleware(scope, incoming.get, send), 60)

    asyncio.run(run())
    return sent


def test_a_socket_ends_with_its_session(services: Services) -> None:
    secret = Access(services).make_session()
    found = credentials.find(services, secret, Kind.SESSION)
    assert found is not None

    def log_out() -> None:
        with services.database.write() as session:
            credentials.end_session(session, found)

    sent = open_socket(services, secret, log_out)
    assert [m["type"] for m in sent] == ["websocket.send", "websocket.send", "websocket.close"]
    assert sent[-1]["code"] == 1008


def test_a_socket_of_a_stranger_or_of_another_sites_page_is_closed(services: Services) -> None:
    secret = Access(services).make_session()
    for cookie, origin in (("forged", "http://fleet"), (secret, "http://evil.example")):
        sent = open_socket(services, cookie, lambda: None, origin)
        assert sent == [{"type": "websocket.close", "code": 1008}]
