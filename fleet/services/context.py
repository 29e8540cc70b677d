"""What every service function works with."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from fleet.changes import Changes
from fleet.db import Database
from fleet.identity_ledger import Ledger
from fleet.incarnation import HeadFile
from fleet.keys import FleetKeys
from fleet.registry import Registry
from fleet.roles import Role, person_of
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.samples import SampleFolder
from fleet.trust import Repository

_MAX_NAMES = 10_000
GRACE_S = 365 * 86400.0


@dataclass(frozen=True)
class Caller:
    """Who does something, and why: both go into the audit log; and what they may.

    `actor` is a user, `alice`, her token, `alice/ci`, or a part of the fleet itself. `scope`
    selects the devices that the caller may see; empty, all of them.
    """

    actor: str
    reason: str = ""
    role: Role = Role.ADMIN
    scope: Selector = EVERYTHING

    @property
    def person(self) -> str:
        """Whose doing it is, whichever token they used."""
        return person_of(self.actor)


class Bus(Protocol):
    """The fleet's own client of the broker; `cloud_sync.mqtt_session.MqttSession` is one."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        ...

    def publish(
        self, topic: str, payload: bytes, *, expires_s: float | None = None, patient: bool = False
    ) -> bool:
        """Publish; returns whether the client took it. A patient one waits for room."""
        ...


class Publisher:
    """Where services publish: nowhere, until the bus is attached.

    What is lost on the way is asked for again over HTTPS.
    """

    def __init__(self) -> None:
        self._bus: Bus | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a bus and it has its broker."""
        return self._bus is not None and self._bus.connected

    def attach(self, bus: Bus | None) -> None:
        """Set where messages go."""
        self._bus = bus

    def __call__(
        self, topic: str, payload: bytes, *, expires_s: float | None = None, patient: bool = False
    ) -> bool:
        """Publish, if there is a bus; the broker drops what waits for longer than `expires_s`."""
        return self._bus is not None and self._bus.publish(
            topic, payload, expires_s=expires_s, patient=patient
        )


class Replaced:
    """Tells who has to know that a device got a new identity, and its old one is good no more."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []

    def tell(self, listener: Callable[[str], None]) -> None:
        """Have a function called with the id of each such device, on any thread."""
        self._listeners.append(listener)

    def __call__(self, device: str) -> None:
        """Tell all of them."""
        for listener in tuple(self._listeners):
            listener(device)


class Told:
    """Tells who has to know that the list of revoked certificates is another."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def tell(self, listener: Callable[[], None]) -> None:
        """Have a function called each time, on any thread."""
        self._listeners.append(listener)

    def __call__(self) -> None:
        """Tell all of them."""
        for listener in tuple(self._listeners):
            listener()


class Counters:
    """Counts what happened since the start; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[name] += number

    def is_due(self, name: str, every_s: float) -> bool:
        """Whether this was not said within the last seconds; notes that it is said now."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(name, -every_s) < every_s:
                return False
            if len(self._last) > _MAX_NAMES:
                self._last.clear()
            self._last[name] = now
            return True

    def all(self) -> dict[str, int]:
        """All counts, by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))


@dataclass(frozen=True)
class Services:
    """The database, the keys, the registry, what is signed, the clock, where changes are told.

    `mqtt_url` is what devices are told at enrolment, with `mqtt_ca` where the broker's authority
    (PEM) is not the fleet's own; `console_url` is where the console is;
    `head` is the file beside the keys that a restored database does not agree with;
    `grace_s` is how long after its end a device's certificate is still renewed.
    """

    database: Database
    keys: FleetKeys
    registry: Registry
    head: HeadFile
    trust: Repository
    mqtt_url: str = ""
    mqtt_ca: str = ""
    console_url: str = ""
    grace_s: float = GRACE_S
    now: Callable[[], float] = time.time
    changes: Changes = field(default_factory=Changes)
    publisher: Publisher = field(default_factory=Publisher)
    counters: Counters = field(default_factory=Counters)
    gauges: dict[str, Callable[[], float]] = field(default_factory=dict)
    replaced: Replaced = field(default_factory=Replaced)
    revoked: Told = field(default_factory=Told)
    started_at: float = field(default_factory=time.time)

    @cached_property
    def ledger(self) -> Ledger:
        """What a restored database must not forget, beside the keys."""
        return Ledger(self.keys.folder / "ledger.jsonl")

    @cached_property
    def samples(self) -> SampleFolder:
        """The frames that devices brought up, beside the registry."""
        return SampleFolder(self.registry.folder.parent / "samples")
