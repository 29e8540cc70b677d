"""The client says again what was lost on the way, and the fleet does it once."""

import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from fleet.client import FleetClient


class Losing:
    """A connection to a fleet that loses the first answers after the fleet has sent them."""

    def __init__(self, target: str, lost: int) -> None:
        self.lost = lost
        self._target = (urlsplit(target).hostname, urlsplit(target).port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as fleet:
            up = threading.Thread(target=self._copy, args=(client, fleet), daemon=True)
            up.start()
            while answer := fleet.recv(65536):
                if self.lost:
                    self.lost -= 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(answer)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def losing(fleet: Any) -> Iterator[Losing]:
    made = Losing(fleet.operators, lost=2)
    yield made
    made.close()


def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(
    fleet: Any, losing: Losing
) -> None:
    with FleetClient(losing.url, fleet.services.keys.operator_token) as client:
        token = client.enroll("cam-1", {}, 60.0)
    assert token["device"] == "cam-1"
    assert losing.lost == 0
    made = [entry for entry in fleet.client.audit() if entry["subject"] == "cam-1"]
    assert len(made) == 1
