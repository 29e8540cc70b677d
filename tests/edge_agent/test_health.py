"""What the agent does about itself: word to the watchdog, the memory ceiling, the heat."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import health
from edge_agent.health import Beats, Health, Marker
from tests.edge_agent.test_heat import board


class Asked:
    """What was asked of the agent."""

    def __init__(self) -> None:
        self.duties: list[float] = []
        self.renewed = 0
        self.given_up: list[str] = []

    def renew(self) -> None:
        self.renewed += 1


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[bytes]]]:
    """A supervisor that waits for word; gives what it heard."""
    name = f"edgeml-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        monkeypatch.setenv("WATCHDOG_USEC", "1000")

        def heard() -> list[bytes]:
            found = []
            while True:
                try:
                    found.append(listener.recv(4096))
                except BlockingIOError:
                    return found

        yield heard


def make(asked: Asked, beats: Beats, ceiling: int = 0, root: Path = Path("/nowhere")) -> Health:
    return Health(
        beats,
        ceiling=ceiling,
        set_duty=asked.duties.append,
        renew=asked.renew,
        give_up=asked.given_up.append,
        root=root,
    )


def test_the_watchdog_hears_from_an_agent_whose_loops_turn(
    asked: Asked, watchdog: Callable[[], list[bytes]]
) -> None:
    beats = Beats()
    beats.beat("link", 60.0)
    make(asked, beats).turn()
    assert watchdog() == [b"WATCHDOG=1"]


def test_the_watchdog_hears_nothing_while_one_loop_hangs(
    asked: Asked, watchdog: Callable[[], list[bytes]]
) -> None:
    beats = Beats()
    beats.beat("link", 0.0)
    beats.beat("telemetry", 60.0)
    time.sleep(0.002)
    made = make(asked, beats)
    made.turn()
    assert list(beats.late()) == ["link"]
    assert watchdog() == []
    beats.beat("link", 60.0)
    made.turn()
    assert watchdog() == [b"WATCHDOG=1"]
    beats.end("link")
    assert beats.late() == {}


def test_over_its_memory_ceiling_inference_is_started_anew_and_then_the_process(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MEMORY_EVERY_S", 0.0)
    made = make(asked, Beats(), ceiling=1 << 20)  # no Python fits in that
    made.turn()
    assert (asked.renewed, asked.given_up) == (1, [])
    made.turn()
    assert (asked.renewed, asked.given_up) == (1, [])  # it has time to take effect
    monkeypatch.setattr(health, "RENEWED_S", 0.0)
    made.turn()
    assert asked.renewed == 1
    assert "memory_mb is 1" in asked.given_up[0]


def test_below_its_ceiling_it_is_left_alone(asked: Asked) -> None:
    make(asked, Beats(), ceiling=1 << 40).turn()
    assert (asked.renewed, asked.given_up) == (0, [])


def test_a_device_that_gets_hot_works_less_and_more_again_when_it_cooled(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(health, "HEAT_EVERY_S", 0.0)
    made = make(asked, Beats(), root=board(tmp_path, celsius=50.0))
    made.turn()
    assert asked.duties == []
    board(tmp_path, celsius=90.0)
    made.turn()
    made.turn()
    board(tmp_path, celsius=50.0)
    made.turn()
    assert asked.duties == [0.8, 0.64, 0.74]


def test_only_an_end_that_nobody_asked_for_within_one_boot_is_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "running"
    first = Marker(path, "boot-1")
    assert not first.crashed
    first.set()
    assert Marker(path, "boot-1").crashed
    assert not Marker(path, "boot-2").crashed  # the power was gone
    first.clear()
    assert not Marker(path, "boot-1").crashed
    Marker(path, "").set()
    assert not Marker(path, "").crashed  # a kernel that does not tell boots apart
