"""The fleet's director as this device knows it: its keys, its time, and what it may not say.

Keys rotate: a message by a key that is not known is held, TUF is asked, and then it is taken or
refused. What is refused the fleet hears of as a security event, bounded in number; but an older
state soon after a newer one, or after the start, is one that was late. The time is
asked for with a nonce at the first contact and every hour, and the device's own certificate is
renewed when it is due.
"""

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cloud_sync.desired import Refusal, StateError, accept
from cloud_sync.messages import DesiredState, SecurityKind, SecurityRecord, decode
from cloud_sync.trust import PayloadType, PublicKey, is_by_another, open_envelope
from cloud_sync.trust.keys import fingerprint, public_pem
from cloud_sync.trust.messages import RootStatement, SignedTime
from edge_agent.trust.identity import Identity, save_authority
from edge_agent.trust.renewal import is_due, renew
from edge_agent.trust.trusted_clock import TrustedClock
from edge_agent.update.journal import DeviceState
from edgeml.errors import RemoteError, TrustError

if TYPE_CHECKING:
    from cloud_sync.device_api import DeviceClient
    from cloud_sync.trust.releases import ReleaseTrust

log = logging.getLogger(__name__)

ASK_EVERY_S = 3600.0
AGAIN_S = 30.0
TELL_EVERY_S = 600.0
LATE_S = 600.0
# After a hint that there are other keys: when TUF is asked, so that not all devices come at once,
# and how soon again where that brought none.
HINTED_S = 60.0
HINTED_AGAIN_S = 600.0
_NONCE_BYTES = 24
_MAX_HELD = 8
_KINDS = {
    PayloadType.DESIRED: SecurityKind.REFUSED_STATE,
    PayloadType.ACK: SecurityKind.REFUSED_ACK,
}


class UnknownKeyError(RemoteError):
    """Signed by a key that this device does not know yet; TUF is asked for it."""


class Director:
    """See the module. Safe to use from several threads.

    Args:
        identity: who this device is.
        state: the device's journalled state of this moment.
        trust: gives the TUF client of this device for its root, made when it is needed.
        tell: takes what the fleet should hear of.
        monotonic: the clock of pauses, in seconds.
    """

    def __init__(
        self,
        identity: Identity,
        state: Callable[[], DeviceState],
        trust: "Callable[[bytes], ReleaseTrust]",
        tell: Callable[[SecurityRecord], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self._state = state
        self._trust = trust
        self._tell = tell
        self._monotonic = monotonic
        proven = max(state().proven, identity.enrolled_at)
        self.clock = TrustedClock(identity.data / "identity" / "time.json", proven)
        self._lock = threading.Lock()
        self._held: list[tuple[bytes, PayloadType]] = []
        self._told: dict[str, float] = {}
        self._learned = False
        self._accepted_at = monotonic()
        self._followed = -AGAIN_S
        self._next_time = self._next_renewal = now = monotonic()
        # python-tuf takes 3 MB: a device that knows the root asks when it has to, or in a while.
        spread = random.uniform(0.1, 1.0)  # noqa: S311 -- spreads load, guards nothing
        self._next_keys = now + (ASK_EVERY_S * spread if identity.root is not None else 0.0)

    @property
    def keys(self) -> Mapping[str, PublicKey]:
        """The keys whose word this device takes, by key id."""
        return self.identity.director_keys

    @property
    def root(self) -> bytes | None:
        """The TUF root; None where this device knows none."""
        return self.identity.root

    def now(self) -> float | None:
        """The trusted time, in Unix seconds; None while it has to be asked for."""
        return self.clock.now()

    def open(self, envelope: bytes, kind: PayloadType) -> bytes:
        """The payload of an envelope that the director signed.

        Raises:
            UnknownKeyError: by a key that may be new; it is asked for.
            TrustError: it is forged; the fleet is told.
        """
        keys = self.keys
        try:
            return open_envelope(envelope, keys, kind)
        except TrustError as error:
            self._hold(envelope, kind, keys, error)
            raise

    def hinted(self, keys: str) -> None:
        """Take a hint at the fleet's own keys (`DeviceClient.keys`): TUF is asked soon if need be.

        Nobody has signed it; whoever forges one has a device ask TUF every ten minutes.
        """
        mine = self.identity
        known = "".join(map(public_pem, mine.director_keys.values()))
        if keys in {"", fingerprint(known, mine.authorities)} or mine.root is None:
            return
        early = self._followed + HINTED_AGAIN_S if self._followed >= 0 else 0.0
        soon = self._monotonic() + random.uniform(0, HINTED_S)  # noqa: S311 -- as above
        self._next_keys = min(self._next_keys, max(early, soon))

    def command(self, envelope: bytes) -> bytes:
        """The payload of a command's envelope; as `open`."""
        return self.open(envelope, PayloadType.COMMAND)

    def accept(self, envelope: bytes, *, asked: bool) -> DesiredState:
        """Judge a desired state; `asked` says that it is the answer to this device's question.

        Raises:
            UnknownKeyError: by a key that may be new; it is asked for.
            RemoteError: this device knows no time, and has to ask for it first.
            StateError: it is refused; the fleet is told.
        """
        return self._judge(envelope, self._time_of(asked=asked))

    def brought(self, envelope: bytes, trust: "Callable[[bytes], ReleaseTrust]") -> DesiredState:
        """Judge a desired state that somebody has brought to this device, which may be offline.

        Where it knows no time, the floor decides: what was replaced is refused all the same. A
        key that is not known is looked for in TUF's files that came with it.

        Args:
            envelope: the state's.
            trust: gives the TUF client of those files, for this device's root.

        Raises:
            UnknownKeyError: by a key that may be new, and this device has no root to learn it by.
            TrustError: what came as the fleet's word is forged or stale.
            RemoteError: it is not whole.
            StateError: it is refused; the fleet is told.
        """
        if self.identity.root is not None and is_by_another(envelope, self.keys):
            self._learn(trust(self.identity.root))
        return self._judge(envelope, self.clock.of_tls())

    def _judge(self, envelope: bytes, now: float) -> DesiredState:
        state = self._state()
        try:
            return self._accepted(envelope, state, now)
        except StateError as error:
            if error.refusal is Refusal.FORGED:
                self._hold(envelope, PayloadType.DESIRED, self.keys, error)
            elif error.refusal is not Refusal.OLDER or not self._may_be_late():
                self._report(SecurityKind.REFUSED_STATE, error.refusal, f"{error}")
            raise

    def turn(self, client: "DeviceClient") -> Identity | None:
        """Do what is due: ask the time, follow keys, renew; a new identity after a renewal.

        Raises:
            EdgemlError: one of them failed; it is tried again.
            OSError: the disk cannot be used.
        """
        now = self._monotonic()
        if now >= self._next_time:
            self._next_time = now + AGAIN_S
            self.ask_time(client)
            self._next_time = now + ASK_EVERY_S
        if now >= self._next_keys or (self._held and now >= self._followed + AGAIN_S):
            self._followed, self._next_keys = now, now + ASK_EVERY_S
            self.follow(client)
        if now >= self._next_renewal and is_due(self.identity, self.clock.of_tls()):
            self._next_renewal = now + AGAIN_S
            self.identity = renew(self.identity, client)
            return self.identity
        return None

    def learned(self) -> bool:
        """Whether a new key was learned since this was last asked."""
        learned, self._learned = self._learned, False
        return learned

    def ask_time(self, client: "DeviceClient") -> None:
        """Ask for the time with a nonce.

        Raises:
            TrustError: the answer is forged, or one to another question.
            RemoteError: the fleet cannot be asked.
        """
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        answer = decode(self.open(client.time(nonce), PayloadType.TIME), SignedTime)
        if (answer.device, answer.nonce) != (self.identity.config.device, nonce):
            raise TrustError("A time was refused.", why="It answers another question.")
        if self.clock.tell(answer):
            log.warning("the fleet has reset the proven time to %.0f", answer.at)

    def follow(self, client: "DeviceClient") -> None:
        """Learn by TUF which keys are good now, and judge what was held for it.

        Raises:
            TrustError: what is offered as the fleet's word is forged or stale.
            RemoteError: the fleet cannot be asked.
        """
        if self.identity.root is None:
            self._adopt_root(client)
        if self.identity.root is not None:
            self._learn(self._trust(self.identity.root))
        held, self._held = self._held, []
        for envelope, kind in held:
            try:
                open_envelope(envelope, self.keys, kind)
            except TrustError as error:
                self._report_forged(kind, error)

    def _learn(self, trust: "ReleaseTrust") -> None:
        before, keys, authorities = self.keys, trust.director_keys(), trust.authorities()
        self.identity = save_authority(self.identity, keys, authorities)
        self._learned |= set(self.keys) != set(before)

    def _adopt_root(self, client: "DeviceClient") -> None:
        """Take the root that a director's key, known since the enrolment, has stated."""
        for director in self.keys:
            envelope = client.root(director)
            if envelope is not None:
                stated = decode(open_envelope(envelope, self.keys, PayloadType.ROOT), RootStatement)
                self.identity = save_authority(self.identity, root=stated.root.encode())
                log.info("the fleet signs releases now; its root is taken")
                return

    def _time_of(self, *, asked: bool) -> float:
        now = self.clock.now()
        if now is None:
            self._next_time = min(self._next_time, self._monotonic())
            raise RemoteError(
                "A desired state waits.",
                why="This device's clock is wrong, and the fleet has not told the time yet.",
            )
        # An answer to this device's own question was not held back: a wall clock that may be far
        # ahead does not make it late.
        return self.clock.floor() if asked and not self.clock.is_told else now

    def _accepted(self, envelope: bytes, state: DeviceState, now: float) -> DesiredState:
        device, last = self.identity.config.device, (state.epoch, state.counter)
        try:
            found = accept(envelope, device=device, keys=self.keys, last=last, now=now)
        except StateError as error:
            if error.refusal is not Refusal.OLDER or self._still_stands(state):
                raise
            # What this device holds was signed by a key that was withdrawn, perhaps stolen: no
            # version of it may keep the honest ones out.
            found = accept(envelope, device=device, keys=self.keys, last=(0, 0), now=now)
        self.clock.prove(found.issued_at)
        if (found.epoch, found.counter) != last:
            self._accepted_at = self._monotonic()
        return found

    def _may_be_late(self) -> bool:
        """Whether an older state may have been on its way, by another one that was quicker."""
        return self._monotonic() < self._accepted_at + LATE_S

    def _still_stands(self, state: DeviceState) -> bool:
        try:
            open_envelope(state.accepted.encode(), self.keys, PayloadType.DESIRED)
        except TrustError:
            return False
        return True

    def _hold(
        self,
        envelope: bytes,
        kind: PayloadType,
        keys: Mapping[str, PublicKey],
        error: TrustError,
    ) -> None:
        if not is_by_another(envelope, keys):
            self._report_forged(kind, error)
            return
        with self._lock:
            if len(self._held) < _MAX_HELD:
                self._held.append((envelope, kind))
        raise UnknownKeyError(
            "A message waits.", why="A key has signed it that this device does not know."
        ) from error

    def _report_forged(self, kind: PayloadType, error: TrustError) -> None:
        if kind in _KINDS:
            self._report(_KINDS[kind], Refusal.FORGED, f"{error}")

    def _report(self, kind: SecurityKind, what: str, detail: str) -> None:
        """Tell the fleet, of each kind one in some minutes."""
        with self._lock:
            now, name = self._monotonic(), f"{kind} {what}"
            if now - self._told.get(name, -TELL_EVERY_S) < TELL_EVERY_S:
                return
            self._told[name] = now
        log.warning("refused (%s): %s", what, detail)
        self._tell(SecurityRecord(kind=kind, model="", release="", detail=f"{what}: {detail}"))
