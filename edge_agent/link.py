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
from cloud_sync.metering import Meter
from cloud_sync.mqtt_session import MqttSession, NotTaken, Will
from cloud_sync.outbox import Outbox
from cloud_sync.trust import PayloadType, sign
from edge_agent.trust.director import Director
from edge_agent.trust.identity import Identity
from edge_agent.update.journal import DeviceState
from edgeml.errors import DeviceError, EdgemlError, RemoteError, TrustError

log = logging.getLogger(__name__)

POLL_CONNECTED_S = 30.0
POLL_ALONE_S = 5.0
ACK_PATIENCE_S = 8.0
FLUSH_S = 1.0
HTTP_PAUSE_S = (1.0, 30.0)

_TOPICS = {
    Up.SECURITY: (RecordKind.SECURITY,),
    Up.STATE: (RecordKind.STATE, RecordKind.LEDGER),
    Up.EVIDENCE: (RecordKind.EVIDENCE,),
    Up.RESULT: (RecordKind.RESULT,),
    Up.TELEMETRY: (RecordKind.TELEMETRY, RecordKind.GAP),
}


class FleetLink:
    """See the module.

    Args:
        identity: who this device is.
        director: judges what the fleet says.
        outbox: what waits to be sent; None while it cannot be used.
        hello: makes the hello of this moment, with the outbox's stream.
        state: the device's state of this moment.
        on_desired: called with an accepted state and its envelope's JSON.
        on_command: called with a command's envelope, and whether this device had asked for it;
            when it returns the command is kept. Its DeviceError means not now.
        boot_id: the kernel's id of this boot.
        meter: counts what the link costs.
        hold_telemetry: whether telemetry has to wait, for the sake of the data budget.
    """

    def __init__(
        self,
        identity: Identity,
        director: Director,
        outbox: Callable[[], Outbox | None],
        *,
        hello: Callable[[str], Hello],
        state: Callable[[], DeviceState],
        on_desired: Callable[[DesiredState, str], None],
        on_command: Callable[[bytes, bool], None],
        boot_id: str,
        meter: Meter | None = None,
        hold_telemetry: Callable[[], bool] = lambda: False,
    ) -> None:
        self._director = director
        self._meter = meter or Meter()
        self._hold_telemetry = hold_telemetry
        self._outbox = outbox
        self._hello = hello
        self._state = state
        self._on_desired = on_desired
        self._on_command = on_command
        self._device = identity.config.device
        self._inbox: queue.Queue[tuple[str, bytes]] = queue.Queue(maxsize=1000)
        self._http = DeviceClient(
            identity.config.fleet_url,
            self._device,
            identity.key,
            meter=self._meter,
            now=director.clock.of_tls,
        )
        self._online = encode(Presence(online=True, boot_id=boot_id))
        self._presence = topic(self._device, Up.PRESENCE)
        self._offline = encode(Presence(online=False, boot_id=boot_id))
        self._mqtt = self._session(identity)
        self._http_pause = HTTP_PAUSE_S[0]
        self._http_at = 0.0
        self._polled = -POLL_CONNECTED_S
        self._configured: tuple[int, str] | None = None
        self._waiting_since: float | None = None
        self._last_warning = ""

    def _session(self, identity: Identity) -> MqttSession:
        return MqttSession(
            identity.mqtt.url,
            self._device,
            username=identity.mqtt.username,
            password=identity.mqtt.password,
            will=Will(topic=self._presence, payload=self._offline),
            on_message=self._received,
            on_connect=lambda: self._inbox.put_nowait(("connected", b"")),
            subscriptions=[topic(self._device, name) for name in Down],
            tls=identity.tls_files,
            meter=self._meter,
            now=self._director.clock.of_tls,
        )

    @property
    def auth(self) -> DeviceClient:
        """The HTTP client, whose credentials the registry takes, too."""
        return self._http

    def another(self, meter: Meter) -> DeviceClient:
        """A second client with connections of its own, for what may take long."""
        return self._http.twin(meter)

    def start(self) -> None:
        """Begin to connect."""
        self._mqtt.start()

    def turn(self, timeout_s: float) -> None:
        """Take what came in, say hello when it is time, and send what waits."""
        self._take(timeout_s)
        self._chores()
        now = time.monotonic()
        # What the broker would have told is asked for soon after it went.
        every = POLL_CONNECTED_S if self._mqtt.connected else POLL_ALONE_S
        if now >= self._polled + every:
            self._polled = now
            self._say_hello()
        self._answer()
        self._flush()

    def _answer(self) -> None:
        """Say soon what became of a configuration: a rollout of it waits for that."""
        state = self._state()
        configured = (state.configuration.config_version, state.config_error)
        before, self._configured = self._configured, configured
        if before not in {None, configured} and not self._hello_by_mqtt():
            self._say_hello()

    def _chores(self) -> None:
        """What the director needs: the time, keys, a renewal of this device's certificate."""
        try:
            renewed = self._director.turn(self._http)
        except (EdgemlError, OSError) as error:
            self._warn(error)
            return
        if self._director.learned():
            self._polled = -POLL_CONNECTED_S
        if renewed is not None and renewed.mqtt.url.startswith(("mqtts:", "wss:")):
            # The broker knows this device by its certificate.
            self._mqtt.close()
            self._mqtt = self._session(renewed)
            self._mqtt.start()

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
        """Take a message of the broker's, on its thread; a command is kept before it returns.

        Raises:
            NotTaken: a command could not be kept.
        """
        if name == topic(self._device, Down.COMMAND):
            try:
                self._on_command(payload, False)
            except DeviceError as error:
                raise NotTaken(str(error)) from error
            except RemoteError as error:
                log.warning("a command waits, HTTPS brings it again: %s", error)
            return
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
                self._hello_by_mqtt()
            elif name == topic(self._device, Down.DESIRED):
                self._desired(payload, asked=False)
            elif name == topic(self._device, Down.ACK):
                self._acknowledged(payload)
        except EdgemlError as error:
            self._warn(error)

    def _desired(self, envelope: bytes, *, asked: bool) -> None:
        state = self._state()
        wanted = self._director.accept(envelope, asked=asked)
        if (wanted.epoch, wanted.counter) != (state.epoch, state.counter):
            self._on_desired(wanted, json.dumps(json.loads(envelope)))

    def _acknowledged(self, envelope: bytes) -> None:
        ack = decode(self._director.open(envelope, PayloadType.ACK), Ack)
        outbox = self._outbox()
        if outbox is not None:
            outbox.acknowledge(ack)
        self._waiting_since = None

    def _hello_by_mqtt(self) -> bool:
        outbox = self._outbox()
        if outbox is None or not self._mqtt.connected:
            return False
        signed = sign(encode(self._hello(outbox.stream)), PayloadType.HELLO, self._http.key)
        return self._mqtt.publish(topic(self._device, Up.HELLO), signed)

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
            self._director.hinted(self._http.keys)
            if envelope is not None:
                self._desired(envelope, asked=True)
            if self._http.commands_wait:
                for command in self._http.commands():
                    self._on_command(command, True)
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
        if late:
            # An ack of HTTPS ends the lateness: what MQTT swallows has to go along before.
            outbox.resend()
        for name, kinds in _TOPICS.items():
            if name is Up.TELEMETRY and self._hold_telemetry():
                continue
            while self._may_send(late=late):
                batch = outbox.batch(kinds)
                if batch is None:
                    break
                sent = self._mqtt.connected and not late and self._by_mqtt(name, batch)
                if not sent and not self._by_http(outbox, batch):
                    return
                if sent and self._waiting_since is None:
                    self._waiting_since = now
                if time.monotonic() > now + FLUSH_S:
                    return  # more telemetry came meanwhile; what matters more may wait by now

    def _may_send(self, *, late: bool) -> bool:
        return (self._mqtt.connected and not late) or time.monotonic() >= self._http_at

    def _by_mqtt(self, name: Up, batch: Batch) -> bool:
        envelope = sign(encode(batch), PayloadType.BATCH, self._http.key)
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

    def _warn(self, error: Exception) -> None:
        if str(error) != self._last_warning:
            log.warning("fleet: %s", error)
            self._last_warning = str(error)
