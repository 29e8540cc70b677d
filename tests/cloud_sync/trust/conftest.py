"""A device that trusts a simulated repository, without a network and over real HTTP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from cloud_sync.address import http_client
from cloud_sync.trust.fetcher import HttpxFetcher
from cloud_sync.trust.releases import ReleaseTrust
from tests.cloud_sync.trust.simulator import NOW, SIM, Direct, RepositorySimulator, served


@dataclass
class Device:
    """A device's trust, the simulator that it asks, and the clock that it goes by."""

    sim: RepositorySimulator
    trust: ReleaseTrust
    folder: Path
    clock: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(now=NOW))

    def stored(self) -> dict[str, bytes]:
        """What the device keeps."""
        return {path.name: path.read_bytes() for path in self.folder.glob("metadata/*.json")}


@pytest.fixture
def sim() -> RepositorySimulator:
    return RepositorySimulator()


@pytest.fixture(params=["simulator", "http"])
def device(
    request: pytest.FixtureRequest, sim: RepositorySimulator, tmp_path: Path
) -> Iterator[Device]:
    clock = SimpleNamespace(now=NOW)
    read: Callable[[], float | None] = lambda: clock.now  # noqa: E731
    with ExitStack() as stack:
        if request.param == "simulator":
            url, fetcher = SIM, Direct(sim)
        else:
            url = stack.enter_context(served(sim))
            timeout = httpx.Timeout(5.0)
            client = stack.enter_context(http_client(url, None, timeout, of="fleet"))
            fetcher = HttpxFetcher(client)
        trust = ReleaseTrust(tmp_path, sim.roots[0], read, fetcher, url)
        yield Device(sim, trust, tmp_path, clock)
