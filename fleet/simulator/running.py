"""Runs many simulated devices: enrols those that are new, lets all of them live, says how it goes.

options = Options(fleet="http://127.0.0.1:8081", identities=Path("sim"), devices=100)
simulator = Simulator(options, enroll=lambda names: fleet_client.enroll_many(...))
summary = await simulator.run(stop)
"""

import asyncio
import contextlib
import random
import resource
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cloud_sync.address import require_private
from cloud_sync.messages import Enrolled, EnrollRequest
from cloud_sync.trust import generate
from cloud_sync.trust.identity import make_request
from edgeml.errors import UserError
from fleet.simulator.device import Device
from fleet.simulator.hardware_classes import HardwareClass
from fleet.simulator.http import Web
from fleet.simulator.identities import Identities, Identity
from fleet.simulator.population import Fault, Member, populate
from fleet.simulator.site import Site
from fleet.simulator.tally import Summary

_TOKENS_TOGETHER = 1000
_KEPT_TOGETHER = 100
_SPARE_FILES = 200

# Makes a one-time token for each device, with its labels: `FleetClient.enroll_many`, or the like.
MakeTokens = Callable[[Mapping[str, Mapping[str, str]]], Mapping[str, str]]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate; `fleet` is the address of the listener that devices talk to.

    `ramp_s` is the time over which the devices come up; the rest is as `edgeml simulate --help`.
    """

    fleet: str
    identities: Path
    devices: int = 100
    seed: int = 1
    prefix: str = "sim"
    faults: dict[Fault, float] = {}
    labels: dict[str, str] = {}
    sites: int = 10
    http_at_once: int = 64
    ramp_s: float = 0.0
    poll_s: float = 300.0
    telemetry_s: float | None = None
    fps: float = 10.0
    late_s: float = 30.0
    tuf: bool = False
    ca: str = ""


class Simulator:
    """See the module.

    Args:
        options: what to simulate.
        kinds: the hardware classes.
        tokens: makes enrolment tokens; asked for devices that are not enrolled yet.

    Raises:
        UserError: an option is wrong, or this process may not open so many files.
    """

    def __init__(
        self, options: Options, kinds: Sequence[HardwareClass], tokens: MakeTokens
    ) -> None:
        require_files(options.devices + options.http_at_once)
        self.options = options
        self.members = populate(
            options.devices, kinds, options.faults, seed=options.seed, prefix=options.prefix
        )
        self._capabilities = {kind.name: kind.capabilities() for kind in kinds}
        self._tokens = tokens
        self._begun = time.monotonic()
        self._site: Site | None = None
        self._devices: list[Device] = []
        self.enrolled = 0

    async def run(
        self, stop: asyncio.Event, tell: Callable[[Summary], None] = lambda _: None
    ) -> Summary:
        """Enrol what is new, and let all devices live until `stop` is set.

        Args:
            stop: ends the run.
            tell: called once a second with how it goes.

        Raises:
            EdgemlError: no device can be enrolled.
        """
        options = self.options
        identities = Identities(options.identities, options.fleet)
        web = Web(options.fleet, _tls(options), options.http_at_once)
        try:
            await self._until(stop, self._enroll(web, identities, tell))
            fleet = identities.fleet
            if fleet is None:
                return self.summary()
            site = self._site = Site(
                fleet,
                identities,
                web,
                self._capabilities,
                poll_s=options.poll_s,
                telemetry_s=options.telemetry_s,
                fps=options.fps,
                late_s=options.late_s,
                tuf=options.tuf,
            )
            known = ((member, identities.get(member.device)) for member in self.members)
            self._devices = [Device(member, found, site) for member, found in known if found]
            summary = await self._live(site, stop, tell)
            self.keep(identities)
            return summary
        finally:
            identities.close()

    def keep(self, identities: Identities) -> None:
        """Write what the devices remember."""
        identities.keep(
            msgspec.structs.replace(device.identity, memory=device.memory)
            for device in self._devices
            if not device.wiped
        )

    def summary(self) -> Summary:
        """How it goes."""
        site = self._site
        count = site.tally.counts if site else Counter[str]()
        web = site.web.counted if site else None
        return Summary(
            devices=len(self.members),
            enrolled=self.enrolled,
            connected=sum(device.connected for device in self._devices),
            seconds=round(time.monotonic() - self._begun, 3),
            faults=dict(Counter(str(m.fault) for m in self.members if m.fault)),
            classes=dict(Counter(m.kind.name for m in self.members)),
            phases={str(p): n for p, n in site.tally.phases.items() if n} if site else {},
            running={name: n for name, n in site.tally.running.items() if n} if site else {},
            desired_accepted=count["desired_accepted"],
            desired_refused=count["desired_refused"],
            updates=count["updates"],
            downloads=count["downloads"],
            downloaded_bytes=web.downloaded_bytes if web else 0,
            http_requests=web.requests if web else 0,
            http_connections=web.connections if web else 0,
            messages_sent=count["messages_sent"],
            acknowledged=count["acknowledged"],
            waiting_records=sum(len(device.outbox) for device in self._devices),
            dropped_records=sum(device.outbox.dropped for device in self._devices),
            errors=site.tally.errors() if site else {},
            rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        )

    async def _live(
        self, site: Site, stop: asyncio.Event, tell: Callable[[Summary], None]
    ) -> Summary:
        """Let all devices live; how it was at the end."""
        every = self.options.ramp_s / max(1, len(self._devices))
        for number, device in enumerate(self._devices):
            site.spawn(device.live(number * every))
        try:
            while not stop.is_set():
                tell(self.summary())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await stop.wait()
            return self.summary()
        finally:
            await site.end()
            for device in self._devices:
                device.close()
            await asyncio.sleep(0.2)  # what was written last goes out
            site.close()

    async def _enroll(
        self, web: Web, identities: Identities, tell: Callable[[Summary], None]
    ) -> None:
        """Enrol who is not yet, some at a time; what was done is kept whatever follows."""
        known = identities.names()
        new = [member for member in self.members if member.device not in known]
        self.enrolled = len(self.members) - len(new)
        for at in range(0, len(new), _TOKENS_TOGETHER):
            group = new[at : at + _TOKENS_TOGETHER]
            labels = {member.device: self._labels(member) for member in group}
            tokens = await asyncio.to_thread(self._tokens, labels)
            for begin in range(0, len(group), _KEPT_TOGETHER):
                some = group[begin : begin + _KEPT_TOGETHER]
                await self._enroll_some(web, identities, tokens, some)
                tell(self.summary())

    async def _enroll_some(
        self,
        web: Web,
        identities: Identities,
        tokens: Mapping[str, str],
        members: Sequence[Member],
    ) -> None:
        done = await asyncio.gather(
            *(_enroll_one(web, member.device, tokens[member.device]) for member in members),
            return_exceptions=True,
        )
        good = [found for found in done if isinstance(found, tuple)]
        if good:
            identities.keep(
                (identity for identity, _ in good),
                msgspec.structs.replace(good[-1][1], certificate=""),
            )
            self.enrolled += len(good)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    def _labels(self, member: Member) -> dict[str, str]:
        chance = random.Random(member.seed)  # noqa: S311 -- a simulation is to be repeatable
        site = chance.randrange(max(1, self.options.sites))
        return {"simulated": "yes", "site": f"site-{site}", **self.options.labels}

    @staticmethod
    async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
        """Do something unless `stop` is set before it is done."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        task.result()


async def _enroll_one(web: Web, device: str, token: str) -> tuple[Identity, Enrolled]:
    key = generate()
    request = EnrollRequest(token=token, csr=make_request(device, key))
    enrolled = await web.enroll(request, device, key)
    return Identity.of(key, enrolled), enrolled


def require_files(connections: int) -> None:
    """Raise this process's limit of open files to what so many connections need.

    Raises:
        UserError: it may not be raised so far.
    """
    needed = connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed and hard != unlimited and hard < needed:
        raise UserError(
            f"So many devices need {needed} open files, this process may have {hard}.",
            why="Each device has a connection to the broker, and those that download another.",
            fix=f"Run: ulimit -n {needed} (as root, or set nofile in /etc/security/limits.conf), "
            "or simulate fewer devices.",
        )
    if soft != unlimited and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == unlimited else hard, hard))


def _tls(options: Options) -> ssl.SSLContext | None:
    parts = urlsplit(options.fleet)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(
            f"{options.fleet[:80]!r} is no address of a fleet's device listener.",
            fix="Write http://127.0.0.1:8081 or https://fleet.example:8081.",
        )
    require_private(parts.scheme, parts.hostname, of="fleet")
    if parts.scheme == "http":
        return None
    try:
        return ssl.create_default_context(cafile=options.ca or None)
    except OSError as error:
        raise UserError(f"{options.ca} cannot be read.", why=f"{error}.") from None
