"""How a simulated device's records leave it: over MQTT soon, over HTTPS where no ack comes."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.messages import Ack, Batch, RecordKind, Up, decode, encode, topic
from cloud_sync.trust import PayloadType, PrivateKey, generate, open_envelope, sign
from edgeml.errors import EdgemlError
from fleet.simulator.mqtt import Session
from fleet.simulator.outbox import MemoryOutbox
from fleet.simulator.population import Fault

if TYPE_CHECKING:
    from fleet.simulator.site import Site

ACK_PATIENCE_S = 30.0
FLUSH_S = 0.1
_TOPICS = {
    Up.STATE: frozenset((RecordKind.STATE, RecordKind.LEDGER)),
    Up.EVIDENCE: frozenset((RecordKind.EVIDENCE,)),
    Up.RESULT: frozenset((RecordKind.RESULT,)),
    Up.TELEMETRY: frozenset((RecordKind.TELEMETRY,)),
}
_ALL = frozenset().union(*_TOPICS.values())


class Sender:
    """See the module.

    Args:
        device: the device's name.
        key: signs what it sends.
        fault: a liar's evidence is signed with another key.
        outbox: what waits to be sent.
        site: what all devices share.
        session: the connection of this moment; None where there is none.
    """

    __slots__ = (
        "_device",
        "_fault",
        "_flushing",
        "_key",
        "_late",
        "_session",
        "_site",
        "outbox",
    )

    def __init__(
        self,
        device: str,
        key: PrivateKey,
        fault: Fault | None,
        outbox: MemoryOutbox,
        site: "Site",
        *,
        session: Callable[[], Session | None],
    ) -> None:
        self.outbox = outbox
        self._device = device
        self._key = key
        self._fault = fault
        self._site = site
        self._session = session
        self._flushing: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None

    def add(self, kind: RecordKind, body: msgspec.Struct, at: float | None) -> None:
        """Keep a record, and send it soon, with what else there is by then."""
        self.outbox.append(kind, body, at)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self, *, again: bool = False) -> None:
        """Send what was not sent, each kind on its topic; with `again` what was, too."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        session = self._session()
        if session is None:
            return
        for name, kinds in _TOPICS.items():
            while (batch := self.outbox.batch(kinds, again=again)) is not None:
                envelope = sign(encode(batch), PayloadType.BATCH, self._key_for(name, batch))
                session.publish(topic(self._device, name), envelope)
                self._site.tally.add("messages_sent")
                if again:
                    break
        self._watch()

    def acknowledged(self, envelope: bytes) -> None:
        """Let go of what the fleet has stored.

        Raises:
            TrustError: the director did not sign it.
            RemoteError: it cannot be read.
        """
        ack = decode(open_envelope(envelope, self._site.directors, PayloadType.ACK), Ack)
        before = len(self.outbox)
        self.outbox.acknowledge(ack)
        self._site.tally.add("acknowledged", before - len(self.outbox))
        self._be_patient()
        self._watch()

    def close(self) -> None:
        """Send what there is, and nothing after."""
        self.flush()
        self._be_patient()

    def _key_for(self, name: Up, batch: Batch) -> PrivateKey:
        if self._fault is not Fault.LIES or name is not Up.EVIDENCE:
            return self._key
        self.outbox.forget(batch)  # it will never be acknowledged
        return generate()

    def _be_patient(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _watch(self) -> None:
        """Look in a while whether what was sent has arrived."""
        if self._late is None and len(self.outbox):
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(ACK_PATIENCE_S, self._resend_soon)

    def _resend_soon(self) -> None:
        self._late = None
        self._site.spawn(self._resend())

    async def _resend(self) -> None:
        """What MQTT has swallowed goes over HTTPS."""
        try:
            async with self._site.web.errand(self._device, self._key) as errand:
                batch = self.outbox.batch(_ALL, again=True)
                if batch is not None:
                    self._site.tally.add("resent")
                    self.acknowledged(await errand.send(batch))
        except (EdgemlError, OSError) as error:
            self._site.tally.failed(error)
            self._watch()
