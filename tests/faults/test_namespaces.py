"""A device in a network namespace of its own, on a veth whose cable is pulled.

No packet comes and no reset: both ends believe in their connections until their own patience
ends. The device speaks to its loopback, where a relay leads through the veth to the fleet.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import network
from tests.faults.site import DEVICE, Site
from tests.needs import allowed
from tests.sim.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
RELAY = """
import sys, threading
from tests.sim.proxy import Proxy
for port, target in zip(map(int, sys.argv[2::2]), map(int, sys.argv[3::2])):
    Proxy(target, port=port, to=sys.argv[1])
print("ready", flush=True)
threading.Event().wait()
"""


class Cable:
    """A namespace and its veth; `pull` takes the link away."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name = f"edgeml{number}"
        self.host, self.device = f"10.213.{number}.1", f"10.213.{number}.2"
        self._veth = f"edgeml{number}h"
        allowed("ip", "netns", "add", self.name)
        try:
            _ip("link", "add", self._veth, "type", "veth", "peer", "eth0", "netns", self.name)
            _ip("addr", "add", f"{self.host}/24", "dev", self._veth)
            _ip("-n", self.name, "addr", "add", f"{self.device}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", self.name, "link", "set", device, "up")
            self.plug()
        except BaseException:
            self.remove()
            raise

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command in the namespace."""
        return ("ip", "netns", "exec", self.name)

    def pull(self) -> None:
        _ip("link", "set", self._veth, "down")

    def plug(self) -> None:
        _ip("link", "set", self._veth, "up")

    def remove(self) -> None:
        _ip("netns", "del", self.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def alone() -> Iterator[None]:
    with network.changing():
        yield


@pytest.fixture
def cable(alone: None, site: Site) -> Iterator[Cable]:
    made = Cable()
    outer = [Proxy(port, host=made.host) for port in (site.http.port, site.mqtt.port)]
    pairs = [
        str(p)
        for link, o in zip((site.http, site.mqtt), outer, strict=True)
        for p in (link.port, o.port)
    ]
    relay = subprocess.Popen(
        [*made.inside, sys.executable, "-c", RELAY, made.host, *pairs], stdout=subprocess.PIPE
    )
    assert relay.stdout is not None
    assert relay.stdout.readline() == b"ready\n"
    site.kill(DEVICE)
    site.inside = made.inside
    site.start_agent()
    yield made
    site.inside = ()
    site.restart_agent()
    relay.kill()
    relay.communicate()
    for proxy in outer:
        proxy.close()
    made.remove()


def test_a_pulled_cable_costs_nothing_when_it_is_plugged_in_again(site: Site, cable: Cable) -> None:
    site.settled()
    before = site.version
    update = site.update()
    update.reached("downloading")
    cable.pull()
    site.goes_on_in({before, update.version})
    cable.plug()
    site.settled(update)
