"""The device's link to the fleet: hello, desired states in, records out, until acknowledged.

MQTT carries what it can; HTTPS is asked at every start, when MQTT is away, and when MQTT has
not brought an acknowledgement in time. Runs on the thread that calls `turn`. Where the fleet
does not answer, the pauses grow, with jitter: devices that lost one fleet together must not
come back together.
"""

import contextlib
import json
import logging
import queue
import random
import time
from collections.abc import Callable

from cloud_sync.desired import Clock, accept
from cloud_sync.device_api import DeviceClient
from cloud_sync.messages import (
    Ack,
    Batch,
    DesiredState,
    Down,
    Hello,
    Presence,
    RecordKind,
    Up,
    decode,
    encode,
    topic,
)
from cloud_sync.mqtt_session import MqttSession, Will
from cloud_sync.outbox import Outbox
from cloud_sync.trust import PayloadType, open_envelope, sign
from edge_agent.identity import Identity
from edge_agent.update.journal import DeviceState
from edgeml.errors import EdgemlError, RemoteError, TrustError

log = logging.getLogger(__name__)

POLL_CONNECTED_S = 30.0
POLL_ALONE_S = 5.0
ACK_PATIENCE_S = 8.0
HTTP_PAUSE_S = (1.0, 30.0)

_TOPICS = {
    Up.SECURITY: (RecordKind.SECURITY,),
    Up.STATE: (RecordKind.STATE,),
    Up.EVIDENCE: (RecordKind.EVIDENCE,),
    Up.TELEMETRY: (RecordKind.TELEMETRY, RecordKind.GAP),
}


class FleetLink:
    """See the module.

    Args:
        identity: who this device is.
        outbox: what waits to be sent; None while it cannot be used.
        hello: makes the hello of this moment, with the outbox's stream.
        state: the device's state of this moment.
        on_desired: called with an accepted state and its envelope's JSON.
        boot_id: the kernel's id of this boot.
    """

    def __init__(
        self,
        identity: Identity,
        outbox: Callable[[], Outbox | None],
        *,
        hello: Callable[[str], Hello],
        state: Callable[[], DeviceState],
        on_desired: Callable[[DesiredState, str], None],
        boot_id: str,
    ) -> None:
        self._identity = identity
        self._outbox = outbox
        self._hello = hello
        self._state = state
        self._on_desired = on_desired
        self._device = identity.config.device
        self._inbox: queue.Queue[tuple[str, bytes]] = queue.Queue(maxsize=1000)
        self._http = DeviceClient(identity.config.fleet_url, self._device, identity.key)
        offline = encode(Presence(online=False, boot_id=boot_id))
        self._online = encode(Presence(online=True, boot_id=boot_id))
        self._presence = topic(self._device, Up.PRESENCE)
        self._mqtt = MqttSession(
            identity.mqtt.url,
            self._device,
            username=identity.mqtt.username,
            password=identity.mqtt.password,
            will=Will(topic=self._presence, payload=offline),
            on_message=self._received,
            on_connect=lambda: self._inbox.put_nowait(("connected", b"")),
            subscriptions=[topic(self._device, Down.DESIRED), topic(self._device, Down.ACK)],
            tls=identity.tls_files,
        )
        self._offline = offline
        self._http_pause = HTTP_PAUSE_S[0]
        self._http_at = 0.0
        self._polled = -POLL_CONNECTED_S
        self._waiting_since: float | None = None
        self._last_warning = ""

    @property
    def auth(self) -> DeviceClient:
        """The HTTP client, whose credentials the registry takes, too."""
        return self._http

    def start(self) -> None:
        """Begin to connect."""
        self._mqtt.start()

    def turn(self, timeout_s: float) -> None:
        """Take what came in, say hello when it is time, and send what waits."""
        self._take(timeout_s)
        now = time.monotonic()
        # What the broker would have told is asked for soon after it went.
        every = POLL_CONNECTED_S if self._mqtt.connected else POLL_ALONE_S
        if now >= self._polled + every:
            self._polled = now
            self._say_hello()
        self._flush()

    def close(self) -> None:
        """Say that this device goes, send what can be sent, and disconnect.

        May take as long as the network lets it; whoever is in a hurry waits no longer.
        """
        with contextlib.suppress(EdgemlError):
            self._flush()
        self._mqtt.publish(self._presence, self._offline, retain=True)
        self._mqtt.close()
        self._http.close()

    def _received(self, name: str, payload: bytes) -> None:
        # Full only when nothing is taken any more; the fleet repeats what matters.
        with contextlib.suppress(queue.Full):
            self._inbox.put_nowait((name, payload))

    def _take(self, timeout_s: float) -> None:
        try:
            name, payload = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return
        while True:
            self._handle(name, payload)
            try:
                name, payload = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _handle(self, name: str, payload: bytes) -> None:
        try:
            if name == "connected":
                self._mqtt.publish(self._presence, self._online, retain=True)
                outbox = self._outbox()
                if outbox is not None:
                    hello = encode(self._hello(outbox.stream))
                    signed = sign(hello, PayloadType.HELLO, self._identity.key)
                    self._mqtt.publish(topic(self._device, Up.HELLO), signed)
            elif name == topic(self._device, Down.DESIRED):
                self._desired(payload, asked=False)
            elif name == topic(self._device, Down.ACK):
                self._acknowledged(payload)
        except EdgemlError as error:
            self._warn(error)

    def _desired(self, envelope: bytes, *, asked: bool) -> None:
        state = self._state()
        clock = Clock(wall=time.time(), proven=max(state.proven, self._identity.enrolled_at))
        wanted = accept(
            envelope,
            device=self._device,
            keys=self._identity.director_keys,
            last=(state.epoch, state.counter),
            now=clock.of_answer if asked else clock.of_hint,
        )
        if (wanted.epoch, wanted.counter) != (state.epoch, state.counter):
            self._on_desired(wanted, json.dumps(json.loads(envelope)))

    def _acknowledged(self, envelope: bytes) -> None:
        keys = self._identity.director_keys
        ack = decode(open_envelope(envelope, keys, PayloadType.ACK), Ack)
        outbox = self._outbox()
        if outbox is not None:
            outbox.acknowledge(ack)
        self._waiting_since = None

    def _say_hello(self) -> None:
        outbox = self._outbox()
        try:
            # A hello without the stream would look like another device's.
            if outbox is None:
                envelope = self._http.desired()
            else:
                envelope = self._http.hello(self._hello(outbox.stream))
                self._ask_the_time(outbox)
            self._http_answered()
            if envelope is not None:
                self._desired(envelope, asked=True)
            self._last_warning = ""
        except RemoteError as error:
            self._http_failed(error)
        except EdgemlError as error:
            self._warn(error)

    def _ask_the_time(self, outbox: Outbox) -> None:
        """The ack of an empty batch tells it before any record is dated; all goes on without."""
        if (question := outbox.question()) is not None:
            try:
                self._acknowledged(self._http.send(question))
            except EdgemlError as error:
                self._warn(error)

    def _flush(self) -> None:
        outbox = self._outbox()
        if outbox is None:
            return
        now = time.monotonic()
        late = self._waiting_since is not None and now - self._waiting_since > ACK_PATIENCE_S
        for name, kinds in _TOPICS.items():
            while self._may_send(late=late):
                batch = outbox.batch(kinds)
                if batch is None:
                    break
                sent = self._mqtt.connected and not late and self._by_mqtt(name, batch)
                if not sent and not self._by_http(outbox, batch):
                    return
                if sent and self._waiting_since is None:
                    self._waiting_since = now

    def _may_send(self, *, late: bool) -> bool:
        return (self._mqtt.connected and not late) or time.monotonic() >= self._http_at

    def _by_mqtt(self, name: Up, batch: Batch) -> bool:
        envelope = sign(encode(batch), PayloadType.BATCH, self._identity.key)
        return self._mqtt.publish(topic(self._device, name), envelope)

    def _by_http(self, outbox: Outbox, batch: Batch) -> bool:
        try:
            self._acknowledged(self._http.send(batch))
        except (RemoteError, TrustError) as error:
            outbox.failed(batch)
            self._http_failed(error)
            return False
        self._http_answered()
        return True

    def _http_answered(self) -> None:
        self._http_pause, self._http_at = HTTP_PAUSE_S[0], 0.0

    def _http_failed(self, error: EdgemlError) -> None:
        self._warn(error)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, guards nothing
        self._http_at = time.monotonic() + self._http_pause * jitter
        self._http_pause = min(self._http_pause * 2, HTTP_PAUSE_S[1])

    def _warn(self, error: EdgemlError) -> None:
        if str(error) != self._last_warning:
            log.warning("fleet: %s", error)
            self._last_warning = str(error)
