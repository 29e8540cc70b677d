"""What the leader does goes on, whatever goes wrong in between."""

import threading
from typing import Any

import pytest

from fleet.alerts.watch import AlertWatch
from fleet.duties import Repeated

DEADLINE_S = 60.0


class Faulty:
    """Fails in a way that nobody has thought of, the first two times."""

    def __init__(self) -> None:
        self.times = 0
        self.well = threading.Event()

    def __call__(self, *_: Any) -> None:
        self.times += 1
        if self.times < 3:
            raise SystemError("bad argument to internal function")
        self.well.set()


def test_a_fault_ends_no_duty() -> None:
    action = Faulty()
    duty = Repeated("faulty", 0.01, action)
    duty.start()
    assert action.well.wait(DEADLINE_S)
    duty.stop()


def test_a_fault_ends_no_watch_over_alerts(services: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Faulty()
    monkeypatch.setattr("fleet.services.alerts.look", look)
    duty = AlertWatch(services, every_s=0.01)
    duty.start()
    assert look.well.wait(DEADLINE_S)
    duty.stop()
    assert services.counters.all()["alerts.faults"] == 2
