"""One simulated device: what the agent says and does on the wire, without a model that infers.

It connects, says hello, judges every desired state by the fleet's director key, and brings each
model to what is wanted (`update`). It polls over HTTPS as the agent does, and records leave it
only when the fleet has acknowledged them. Its fault strikes where the agent's would.
"""

import asyncio
import json
import random
import secrets
import time

import msgspec

from cloud_sync.commands import (
    Command,
    CommandKind,
    CommandResult,
    CommandStatus,
    accept_command,
)
from cloud_sync.desired import accept
from cloud_sync.messages import (
    Cause,
    Configuration,
    DesiredState,
    Down,
    Hello,
    LedgerEntry,
    LedgerRecord,
    Presence,
    RecordKind,
    ReportedModel,
    ReportedState,
    StateRecord,
    Up,
    decode,
    encode,
    topic,
)
from cloud_sync.trust import PayloadType, is_by_another, open_envelope, sign
from cloud_sync.trust.messages import SignedTime
from cloud_sync.update_machine import FEATURES
from edgeml.errors import EdgemlError, RemoteError, TrustError
from fleet.simulator import behaviour
from fleet.simulator.http import Errand
from fleet.simulator.identities import Identity, Memory
from fleet.simulator.mqtt import Session, connect
from fleet.simulator.outbox import MemoryOutbox
from fleet.simulator.population import Fault, Member
from fleet.simulator.sending import Sender
from fleet.simulator.site import AGENT_VERSION, Site
from fleet.simulator.update import ModelUpdate

CONNECT_S = 60.0
BACKOFF_S = (1.0, 60.0)
CLOCK_OFF_S = -400 * 86400.0
_NONCE_BYTES = 24


class Device:
    """See the module.

    Args:
        member: who it is, and what is wrong with it.
        identity: by its enrolment; None of it is shared.
        site: what all devices of the simulator share.
    """

    __slots__ = (
        "_boot_id",
        "_done",
        "_followed",
        "_gone",
        "_session",
        "_spent",
        "_telling",
        "accepted",
        "chance",
        "clock_off_s",
        "configuration",
        "counter",
        "epoch",
        "here",
        "identity",
        "key",
        "member",
        "models",
        "outbox",
        "sender",
        "site",
        "up",
        "wiped",
    )  # fmt: skip

    def __init__(self, member: Member, identity: Identity, site: Site) -> None:
        self.member = member
        self.identity = identity
        self.site = site
        self.key = identity.private_key()
        self.chance = random.Random(member.seed)  # noqa: S311 -- a simulation is to be repeatable
        self._boot_id = secrets.token_hex(8)
        self._spent: dict[str, int] = {}
        self.outbox = MemoryOutbox(member.device, secrets.token_hex(16), self._boot_id)
        self._session: Session | None = None
        self.sender = Sender(
            member.device, self.key, member.fault, self.outbox, site, session=lambda: self._session
        )
        memory = identity.memory
        self.epoch, self.counter, self.accepted = memory.epoch, memory.counter, memory.accepted
        self.configuration = Configuration()
        self._followed = (0, 0)
        self.models = {
            name: ModelUpdate(self, name, state) for name, state in memory.models.items()
        }
        self.clock_off_s = CLOCK_OFF_S if member.fault is Fault.CLOCK_OFF else 0.0
        self.wiped = False
        self.up = asyncio.Event()
        self.here = asyncio.Event()
        self.here.set()
        self._gone = asyncio.Event()
        self._telling: asyncio.TimerHandle | None = None
        self._done: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether it is on the bus."""
        return self._session is not None and self._session.connected

    @property
    def memory(self) -> Memory:
        """What it remembers over a restart."""
        return Memory(
            epoch=self.epoch,
            counter=self.counter,
            accepted=self.accepted,
            models={name: update.state for name, update in self.models.items()},
        )

    async def live(self, after_s: float) -> None:
        """Begin after so many seconds, and go on until it is cancelled or wiped."""
        await asyncio.sleep(after_s)
        pause = BACKOFF_S[0]
        while not self.wiped:
            await self.here.wait()
            try:
                await self._ask()
                await self._connect()
                pause = BACKOFF_S[0]
                await self._stay()
            except (EdgemlError, OSError) as error:
                self.site.tally.failed(error)
                await asyncio.sleep(pause * self.chance.uniform(0.5, 1.0))
                pause = min(2 * pause, BACKOFF_S[1])

    def lose_connection(self) -> None:
        """Be without power for a moment."""
        self.up.clear()
        if self._session is not None:
            self._session.vanish()
            self._session = None
        self._gone.set()

    def close(self) -> None:
        """Say that it goes, and disconnect."""
        for update in self.models.values():
            update.cancel()
        if self._telling is not None:
            self._telling.cancel()
        self.sender.close()
        if self._session is not None:
            self._session.publish(*self._presence(online=False), retain=True)
            self._session.close()
            self._session = None

    def report(self, model: str, state: ReportedModel) -> None:
        """Record a change of a model's state."""
        record = StateRecord(
            model=model, state=state, desired_epoch=self.epoch, desired_counter=self.counter
        )
        self.record(RecordKind.STATE, record)

    def record(self, kind: RecordKind, body: msgspec.Struct) -> None:
        """Put something into the outbox, and send it soon."""
        at = None if self.clock_off_s else time.time()
        self.sender.add(kind, body, at)

    def spent(self, rollout: str, size: int) -> None:
        """Report what a rollout's download has cost so far: what came of blobs, without headers."""
        total = self._spent[rollout] = self._spent.get(rollout, 0) + size
        month = time.strftime("%Y-%m", time.gmtime())
        entry = LedgerEntry(month=month, rollout=rollout, cause=Cause.FULL, sent=0, received=total)
        record = LedgerRecord(ledger=self.outbox.stream, entries=(entry,))
        self.record(RecordKind.LEDGER, record)

    async def _connect(self) -> None:
        site, name = self.site, self.member.device
        self._gone.clear()
        async with site.connecting:
            self._session = await connect(
                site.broker_host,
                site.broker_port,
                site.broker_tls(self.identity),
                CONNECT_S,
                device=name,
                password=self.identity.password,
                will=self._presence(online=False),
                on_message=self._received,
                on_lost=self._lost,
            )
        self._session.publish(*self._presence(online=True), retain=True)
        hello = sign(encode(self.hello()), PayloadType.HELLO, self.key)
        self._session.publish(topic(name, Up.HELLO), hello)
        self.up.set()
        self.sender.flush(again=True)
        self._tell_later()

    async def _stay(self) -> None:
        """Stay connected and ask over HTTPS now and then, until the connection is gone."""
        while not self._gone.is_set():
            try:
                async with asyncio.timeout(self.site.poll_s * self.chance.uniform(0.8, 1.2)):
                    await self._gone.wait()
            except TimeoutError:
                await self._ask()

    def _lost(self) -> None:
        self.up.clear()
        self._session = None
        self._gone.set()
        self.site.tally.add("lost")

    async def _ask(self) -> None:
        """Ask the time where it is not known, and say hello over HTTPS."""
        async with self.site.web.errand(self.member.device, self.key) as errand:
            if self.clock_off_s or not self.site.time_is_proven:
                await self._ask_the_time(errand)
            envelope = await errand.hello(self.hello())
            self.site.tally.add("polls")
            if envelope is not None:
                await self.site.know_signer(self.member.device, errand, envelope)
                self._desired(envelope)
            for command in await errand.commands() if errand.commands_wait else ():
                self._command(command)

    async def _ask_the_time(self, errand: Errand) -> None:
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        envelope = await errand.time(nonce)
        await self.site.know_signer(self.member.device, errand, envelope)
        answer = open_envelope(envelope, self.site.directors, PayloadType.TIME)
        told = decode(answer, SignedTime)
        if (told.device, told.nonce) != (self.member.device, nonce):
            raise TrustError("A time was refused.", why="It answers another question.")
        self.clock_off_s = 0.0
        self.site.time_is_proven = True

    def hello(self) -> Hello:
        """Who it is at this moment."""
        return Hello(
            device=self.member.device,
            agent_version=AGENT_VERSION,
            boot_id=self._boot_id,
            stream=self.outbox.stream,
            capabilities=self.site.capabilities[self.member.kind.name],
            reported=ReportedState(
                desired_epoch=self.epoch,
                desired_counter=self.counter,
                config_version=self.configuration.config_version,
                models={name: update.reported() for name, update in self.models.items()},
            ),
            accepted=self.accepted,
            counter=time.monotonic_ns(),
            utc_offset_s=time.localtime().tm_gmtoff,
            features=FEATURES,
        )

    def _presence(self, *, online: bool) -> tuple[str, bytes]:
        said = Presence(online=online, boot_id=self._boot_id)
        return topic(self.member.device, Up.PRESENCE), encode(said)

    def _received(self, name: str, payload: bytes) -> None:
        if is_by_another(payload, self.site.directors):
            self.site.spawn(self._learn(name, payload))
        else:
            self._take(name, payload)

    async def _learn(self, name: str, payload: bytes) -> None:
        """Ask which keys the fleet signs with now, and then take what waited for that."""
        try:
            async with self.site.web.errand(self.member.device, self.key) as errand:
                await self.site.know_signer(self.member.device, errand, payload)
        except (EdgemlError, OSError) as error:
            self.site.tally.failed(error)
        self._take(name, payload)

    def _take(self, name: str, payload: bytes) -> None:
        try:
            if name.endswith(Down.DESIRED):
                self._desired(payload)
            elif name.endswith(Down.ACK):
                self.sender.acknowledged(payload)
            elif name.endswith(Down.COMMAND):
                self._command(payload)
        except EdgemlError as error:
            self.site.tally.failed(error)

    def _desired(self, envelope: bytes) -> None:
        now = None if self.clock_off_s else time.time()
        if now is None:
            raise RemoteError("A desired state waits.", why="The clock is not known yet.")
        last = (self.epoch, self.counter)
        try:
            wanted = accept(
                envelope, device=self.member.device, keys=self.site.directors, last=last, now=now
            )
        except TrustError:
            self.site.tally.add("desired_refused")
            raise
        if (wanted.epoch, wanted.counter) != last:
            self.site.tally.add("desired_accepted")
            self.accepted = json.dumps(json.loads(envelope))
        if (wanted.epoch, wanted.counter) != self._followed:
            self._follow(wanted)

    def _follow(self, wanted: DesiredState) -> None:
        self._followed = (wanted.epoch, wanted.counter)
        self.epoch, self.counter = wanted.epoch, wanted.counter
        before, self.configuration = self.configuration, wanted.configuration
        for name in [name for name in self.models if name not in wanted.models]:
            self.models.pop(name).unwanted()
            self._say_hello()
        for name, desired in wanted.models.items():
            if name not in self.models:
                self.models[name] = ModelUpdate(self, name)
            self.models[name].want(desired)
        if self.configuration.config_version != before.config_version:
            self._say_hello()

    def _say_hello(self) -> None:
        if self._session is not None:
            hello = sign(encode(self.hello()), PayloadType.HELLO, self.key)
            self._session.publish(topic(self.member.device, Up.HELLO), hello)

    def _command(self, envelope: bytes) -> None:
        payload = open_envelope(envelope, self.site.directors, PayloadType.COMMAND)
        command = accept_command(payload, device=self.member.device, now=time.time())
        if command.id in self._done:
            return
        self._done.add(command.id)
        self.site.tally.add("commands")
        self.record(RecordKind.RESULT, self._answer(command))
        if command.kind == CommandKind.WIPE:
            asyncio.get_running_loop().call_later(1.0, self._wiped)

    @staticmethod
    def _answer(command: Command) -> CommandResult:
        done = command.kind in {CommandKind.RESTART, CommandKind.WIPE}
        return CommandResult(
            command=command.id,
            kind=command.kind,
            status=CommandStatus.DONE if done else CommandStatus.REFUSED,
            reason="" if done else f"A simulated device has no {command.kind}.",
        )

    def _wiped(self) -> None:
        self.wiped = True
        self.close()
        self.site.identities.forget(self.member.device)
        self._gone.set()

    def _tell_later(self) -> None:
        """Tell of what runs, at the rate that the fleet configures or the simulator's option."""
        if self._telling is not None:
            self._telling.cancel()
        every = self.site.telemetry_s
        if every is None:
            every = self.configuration.telemetry_every_s
        if every > 0:
            pause = every * self.chance.uniform(0.9, 1.1)
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(pause, self._tell, pause)

    def _tell(self, seconds: float) -> None:
        for name, update in self.models.items():
            if self.connected and update.running is not None:
                made = behaviour.window(self.member, update.running, name, seconds, self.site.fps)
                self.record(RecordKind.TELEMETRY, made)
        self._tell_later()
