"""Listeners under strangers that hold what they can, over real sockets."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fleet.listeners import Listener, take
from fleet.serving import Limits, served

HEAD = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n"
HALF = {
    "nothing": b"",
    "half a head": HEAD[:30],
    "half a body": HEAD + b"x" * 10,
    "a body that nobody reads": HEAD.replace(b"/body", b"/refused"),
    "half a second request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD[:30],
}


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


async def slow(_request: Request) -> Response:
    await asyncio.sleep(2.0)
    return PlainTextResponse("slow")


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def refused(_request: Request) -> Response:
    return PlainTextResponse("no", 401)


APP = Starlette(
    routes=[
        Route("/", hello),
        Route("/slow", slow),
        Route("/body", body, methods=["POST"]),
        Route("/refused", refused, methods=["POST"]),
    ]
)


@contextmanager
def serving(limits: Limits) -> Iterator[int]:
    """A listener on a thread of its own; gives its port."""
    taken = take(Listener("listener", "127.0.0.1", 0, "--port"))
    up, stop = threading.Event(), threading.Event()

    async def run() -> None:
        async with served(APP, taken, None, asyncio.Event(), limits):
            up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert up.wait(10)
        yield taken.getsockname()[1]
    finally:
        stop.set()
        thread.join()


def hold(port: int, said: bytes, number: int, stack: ExitStack) -> list[socket.socket]:
    held = []
    for _ in range(number):
        one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        one.sendall(said)
        held.append(one)
    return held


def ended(one: socket.socket, within_s: float) -> bool:
    """Whether the server ends a connection in time."""
    one.settimeout(within_s)
    try:
        while one.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("said", HALF.values(), ids=list(HALF))
def test_a_request_that_does_not_come_is_not_waited_for(said: bytes) -> None:
    with serving(Limits(bodies=True, patience_s=0.3)) as port, ExitStack() as stack:
        (one,) = hold(port, said, 1, stack)
        assert ended(one, 5)


def test_a_client_that_speaks_now_and_then_and_one_that_waits_for_us_are_not_late() -> None:
    with (
        serving(Limits(bodies=True, patience_s=1.2)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        with ExitStack() as stack:
            (kept,) = hold(port, b"", 1, stack)
            for _ in range(5):
                time.sleep(0.5)
                kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                said = kept.recv(4096)
                while not said.endswith(b"hello"):
                    said += kept.recv(4096)
        assert client.get("/slow").text == "slow"


def test_a_large_release_may_take_its_time() -> None:
    with (
        serving(Limits(bodies=False, patience_s=0.3)) as port,
        ExitStack() as stack,
    ):
        (one,) = hold(port, HEAD, 1, stack)
        for _ in range(4):
            time.sleep(0.4)
            one.sendall(b"x" * 500)
        said = one.recv(4096)
        while not said.endswith(b"2000"):
            said += one.recv(4096)


@pytest.mark.parametrize("said", HALF.values(), ids=list(HALF))
def test_a_listener_full_of_strangers_answers_whoever_asks(said: bytes) -> None:
    limits = Limits(bodies=True, patience_s=60, connections=20)
    with serving(limits) as port, ExitStack() as stack:
        held = hold(port, said, 60, stack)
        eventually(lambda: sum(ended(one, 0.01) for one in held) >= 40)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            assert [client.get("/").text for _ in range(5)] == ["hello"] * 5
        assert sum(not ended(one, 0.01) for one in held) >= 15


def eventually(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end, "it did not happen in time"
