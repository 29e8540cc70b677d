"""A whole staged rollout to simulated devices, beside the least that its parts would take.

Everything runs on this machine: Mosquitto, the fleet in one process with TLS, and the simulator,
whose devices each follow TUF, download a variant of 1 MB over a TLS connection of their own,
verify it, and send signed states and evidence. There are four waves and no soak. The bound is what
the same handshakes, bytes, signatures, refreshes and messages take by themselves
(`benchmarks.fleet_bounds`), on all cores, with nothing else to do: no HTTP, no JSON, no database.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.fleet_bounds import Counts, Signed, beside_s, measure, parts_s
from benchmarks.fleet_site import MODEL, POLICY, Running, Site, until
from benchmarks.measure import Row
from edgeml.errors import RemoteError
from fleet.client import FleetClient

DEVICES, QUICK_DEVICES = 10_000, 200
VARIANT_BYTES = 1_000_000
MESSAGE_BYTES = 1500
GOAL = 2.0
_PROCESSES = ("server", "simulator", "broker")
_SETTLED_S = 5.0
_STILL_S = 300.0
_LONGEST_S = 3600.0
_PAUSE_S = 0.2
_REQUESTS_BEFORE = 3


def rows(quick: bool, devices: int = 0) -> Iterator[Row]:
    """Measure one rollout; a quick run has fewer devices."""
    number = devices or (QUICK_DEVICES if quick else DEVICES)
    # What devices keep of TUF is synced to the disk by each of them; on their own disks, in truth.
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name,
        Site(Path(name)) as site,
    ):
        site.push("1.0.0", VARIANT_BYTES)
        with site.client() as client:
            digest = client.release(MODEL, "1.0.0")["digest"]
            idle = _Watch(site, client)
            with idle:
                time.sleep(5.0)
            yield from _rolled_out(site, client, number, digest, idle)


def _rolled_out(
    site: Site, client: FleetClient, number: int, digest: str, idle: "_Watch"
) -> Iterator[Row]:
    with site.simulator(number, "--tuf") as simulator:
        _settled(client)
        watch = _Watch(site, client)
        with watch:
            begun = _busy(site, simulator)
            seconds = _complete(client)
            took = {name: at - begun[name] for name, at in _busy(site, simulator).items()}
        summary = simulator.end()
    costs = measure(
        MESSAGE_BYTES,
        Signed(folder=site.folder / "fleet" / "trust", model=MODEL, version="1.0.0", digest=digest),
    )
    counts = _counts(summary, number)
    parts = parts_s(costs, counts)
    least = sum(parts.values())
    bound = least * number / len(os.sched_getaffinity(0))
    yield Row(
        metric="rollout_10k.time_vs_bound",
        value=seconds,
        unit=f"s for {number} devices",
        peer="cryptography, bytes and broker alone",
        peer_value=bound,
        ratio=seconds / bound,
        n=number,
        goal=f"at most {GOAL:g} x",
        holds=seconds <= GOAL * bound,
    )
    every = sum(took[name] for name in _PROCESSES) / number
    yield Row(
        metric="rollout_10k.cpu_vs_bound",
        value=1e3 * every,
        unit="ms of a core a device, of all processes",
        peer="the bound's",
        peer_value=1e3 * least,
        ratio=every / least,
        n=number,
    )
    for name, spent in took.items():
        process, _, part = name.partition("[")
        metric = f"rollout_10k.{process}_cpu_ms" + (f"[{part}" if part else "")
        yield _share(metric, spent / number, number)
    for name, spent in parts.items():
        yield _share(f"rollout_10k.bound_cpu_ms[{name}]", spent, number)
    for name, spent in beside_s(costs, counts).items():
        yield _share(f"rollout_10k.beside_cpu_ms[{name}]", spent, number)
    yield Row(
        metric="rollout_10k.simulator_mb",
        value=summary["rss_bytes"] / 1e6,
        unit="MB",
        n=number,
    )
    yield _api(watch, idle)
    yield Row(
        metric="server.rss_mb",
        value=watch.rss_bytes / 1e6,
        unit="MB",
        peer="the same with no device",
        peer_value=idle.rss_bytes / 1e6,
        ratio=watch.rss_bytes / idle.rss_bytes,
        n=number,
    )


def _settled(client: FleetClient) -> None:
    """Wait until the fleet has heard all that devices say when they come: no part of a rollout."""
    heard, before = -1, -2
    while heard != before:
        time.sleep(_SETTLED_S)
        heard, before = client.health()["counters"].get("hello", 0), heard


def _complete(client: FleetClient) -> float:
    """Roll out, and wait for the end; the seconds that it took."""
    begun = time.perf_counter()
    rollout = client.create_rollout(MODEL, "1.0.0", policy=POLICY)["id"]

    said, since = "", begun

    def ended() -> bool:
        nonlocal said, since
        [found] = [one for one in client.rollouts() if one["id"] == rollout]
        if found["sentence"] != said:
            said, since = found["sentence"], time.perf_counter()
        if time.perf_counter() > since + _STILL_S:
            raise RemoteError(f"Nothing happened in {_STILL_S:g} s of the rollout.", why=said)
        if found["status"] in {"halted", "aborted", "paused"}:
            raise RemoteError("The rollout was stopped.", why=found["sentence"])
        return found["status"] == "completed"

    until("the rollout to complete", ended, _LONGEST_S)
    return time.perf_counter() - begun


def _counts(summary: dict[str, Any], number: int) -> Counts:
    """What a device did for the rollout, but for what it did to be there."""
    sent = summary["messages_sent"] / number
    # It enrolled and said hello before, on a connection each.
    updates = summary["http_connections"] / number - 2
    return Counts(
        handshakes=updates,
        megabytes=summary["downloaded_bytes"] / 1e6 / number,
        # The state, each batch and its acknowledgement. The token it has since it said hello; it
        # is verified for each connection.
        signatures=1 + 2 * sent,
        verifications=1 + updates + 2 * sent,
        refreshes=1,
        messages=1 + 2 * sent,
        # It enrolled with one, and said hello with one that was challenged and one that was not.
        requests=summary["http_requests"] / number - _REQUESTS_BEFORE,
    )


def _busy(site: Site, simulator: Running) -> dict[str, float]:
    """The processor seconds of each process until now, and of the server's parts."""
    parts = site.cpu_s()
    return {
        "server": sum(parts.values()),
        **{f"server[{name}]": spent for name, spent in parts.items()},
        "simulator": simulator.cpu_s(),
        "broker": site.broker_cpu_s(),
    }


def _share(metric: str, seconds: float, number: int) -> Row:
    return Row(metric=metric, value=1e3 * seconds, unit="ms of a core a device", n=number)


def _api(watch: "_Watch", idle: "_Watch") -> Row:
    value, alone = (_p99(one.answers_s) * 1e3 for one in (watch, idle))
    return Row(
        metric="api.p99_ms_under_load",
        value=value,
        unit="ms",
        peer="the same requests, no device",
        peer_value=alone,
        ratio=value / alone,
        n=len(watch.answers_s),
    )


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]


class _Watch:
    """Asks the API again and again, and looks at what the fleet takes, until the block ends.

    Attributes:
        answers_s: how long each answer took.
        rss_bytes: the most memory that the fleet had.
    """

    def __init__(self, site: Site, client: FleetClient) -> None:
        self._site = site
        self._ask: tuple[Callable[[], object], ...] = (
            client.health,
            client.rollouts,
            lambda: client.audit(limit=20),
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers_s: list[float] = []
        self.rss_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            for ask in self._ask:
                begun = time.perf_counter()
                ask()
                self.answers_s.append(time.perf_counter() - begun)
            self.rss_bytes = max(self.rss_bytes, self._site.rss_bytes())
