"""Brings captured frames to the fleet, where the capture policy of their model says so.

The oldest goes first: it is the next that would have to make room. A frame is offered, sent in
pieces from where the fleet says that it stands, and deleted when the fleet has stored it: whatever
ends this in between, it goes on there. It goes after everything else: not while an update or a
trial is at work, and of the month's data budget it takes no more than the part that has passed.
What a model may send in a day is written down before it is sent, so after `kill -9` at most one
frame too much counts as sent, never too little.
"""

import json
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.data_budget import cost
from cloud_sync.messages import CapturePolicy, Cause
from cloud_sync.metering import Meter
from cloud_sync.release import write_atomically
from cloud_sync.release.blobs import file_digest
from cloud_sync.samples import (
    MAX_LINE_BYTES,
    MAX_SAMPLE_BYTES,
    MediaType,
    SampleHeld,
    SampleOffer,
    reason_of,
)
from cloud_sync.update_machine import IN_MOTION, is_held, waits
from edge_agent.budget import refusal, share_of_month
from edge_agent.captured import named
from edge_agent.failpoints import reach
from edgeml.errors import DeviceError, RemoteError, TrustError

if TYPE_CHECKING:
    from cloud_sync.device_api import DeviceClient
    from edge_agent.ledger import Ledger
    from edge_agent.update.journal import DeviceState

log = logging.getLogger(__name__)

PIECE_BYTES = 64 << 10
LOOK_S = 10.0
TURN_S = 60.0
PAUSE_S = (1.0, 120.0)
REFUSED = ".refused"  # what the fleet never takes stays on the device under this name

Connect = Callable[[Meter], "DeviceClient | None"]


class Sent(msgspec.Struct, kw_only=True):
    """How many bytes each model has sent on a day (UTC)."""

    day: str = ""
    models: dict[str, int] = {}


class Days:
    """How much each model may still send today, on the disk before it is sent."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now

    def left(self, model: str, policy: CapturePolicy) -> int:
        """The bytes that a model may still send today."""
        return (policy.upload_mb_a_day << 20) - self._today().models.get(model, 0)

    def add(self, model: str, count: int) -> None:
        """Count bytes as sent, or, below 0, as not sent after all.

        Raises:
            DeviceError: the disk does not take it.
        """
        sent = self._today()
        sent.models[model] = max(0, sent.models.get(model, 0) + count)
        try:
            write_atomically(self._path, msgspec.json.encode(sent), 0o600)
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be written.", why=f"{error}.") from error

    def _today(self) -> Sent:
        day = f"{datetime.fromtimestamp(self._now(), UTC):%Y-%m-%d}"
        try:
            sent = msgspec.json.decode(self._path.read_bytes(), type=Sent)
        except (OSError, msgspec.DecodeError):
            sent = Sent()
        return sent if sent.day == day else Sent(day=day)


class SampleUpload:
    """See the module; `turn` is for one thread, `cut` for any.

    Args:
        folder: where captured frames are, a folder for each model.
        days: what was sent today.
        policies: the policies of this moment, by model.
        is_busy: whether something is at work that goes before.
        connect: the client whose connections a meter counts; None while there is none.
        ledger: what it costs is charged to.
        now: Unix seconds.
        stop: set when the agent ends.
    """

    def __init__(
        self,
        folder: Path,
        days: Days,
        *,
        policies: Callable[[], Mapping[str, CapturePolicy]],
        is_busy: Callable[[], bool],
        connect: Connect,
        ledger: "Ledger",
        now: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._folder = folder
        self._days = days
        self._policies = policies
        self._is_busy = is_busy
        self._connect = connect
        self._ledger = ledger
        self._now = now
        self._stop = stop
        self._meter = Meter()
        self._account = ledger.account(self._meter, Cause.SAMPLES)
        self._client: DeviceClient | None = None
        self._found: deque[tuple[str, Path]] = deque()
        self._pause_s = PAUSE_S[0]
        self._warned = ""

    def turn(self) -> None:
        """Bring the oldest frame up, or as much of it as may go now; or wait for one."""
        if not self._found:
            self._found.extend(self._look())
        if not self._found or self._is_busy():
            self._stop.wait(LOOK_S)
            return
        if self._client is None:
            self._client = self._connect(self._meter)
            if self._client is None:
                self._stop.wait(LOOK_S)
                return
        model, said = self._found.popleft()
        try:
            self._bring(self._client, model, said)
            self._warned, self._pause_s = "", PAUSE_S[0]
        except (RemoteError, TrustError, DeviceError, OSError) as error:
            self._failed(error)

    def cut(self) -> None:
        """Cut the connections: whoever waits for one finds it closed."""
        self._meter.cut()

    def close(self) -> None:
        """Close the connections, when no turn lasts any more."""
        if self._client is not None:
            self._client.close()

    def _look(self) -> Iterator[tuple[str, Path]]:
        """The frames that may be brought up today, the oldest first: their names begin with it."""
        found = [
            (model, path)
            for model, policy in self._policies().items()
            if policy.upload and self._days.left(model, policy) > 0
            for path in (self._folder / named(model)).glob("*.json")
            if not path.name.startswith(".")
        ]
        yield from sorted(found, key=lambda one: one[1].name)

    def _bring(self, client: "DeviceClient", model: str, said: Path) -> None:
        """Have the fleet store a frame, and delete it; what is gone meanwhile is passed over."""
        policy = self._policies().get(model)
        kinds = (kind for kind in MediaType if said.with_suffix(kind.suffix).exists())
        kind = next(kinds, None)
        if policy is None or not policy.upload:
            return
        if kind is None:
            said.unlink(missing_ok=True)
            return
        frame = said.with_suffix(kind.suffix)
        try:
            offer = _offer(client.device, model, kind, said)
        except FileNotFoundError:
            return  # it had to make room
        except ValueError as error:
            _put_aside(said, error)
            return
        from cloud_sync.device_api import Unfit

        try:
            if _is_too_large(offer):
                raise Unfit("It is larger than the fleet takes.")
            is_stored = self._send(client, offer, frame, policy)
        except Unfit as error:
            _put_aside(said, error)
            return
        finally:
            self._account.ended()
        if not is_stored:
            self._found.clear()  # it goes on with the oldest, when more may go
            return
        reach("sample-stored")
        frame.unlink(missing_ok=True)
        said.unlink(missing_ok=True)

    def _send(
        self, client: "DeviceClient", offer: SampleOffer, frame: Path, policy: CapturePolicy
    ) -> bool:
        """Send what the fleet lacks of a frame, as far as it may go now; whether it is stored."""
        self._require_share(offer.size)
        self._account.attempt(1, offer.size)
        held = client.offer_sample(offer)
        if held.stored:
            return True
        begun, until = held.size, time.monotonic() + TURN_S
        end = begun + max(0, min(offer.size - begun, self._days.left(offer.model, policy)))
        self._days.add(offer.model, end - begun)
        try:
            with frame.open("rb") as stream:
                while held.size < end and not self._has_to_end(until):
                    stream.seek(held.size)
                    piece = stream.read(min(PIECE_BYTES, end - held.size))
                    held = self._piece(client, offer, held, piece)
        finally:
            self._days.add(offer.model, min(held.size, end) - end)
            if held.size > begun:
                self._pause_s = PAUSE_S[0]
        return held.stored

    def _piece(
        self, client: "DeviceClient", offer: SampleOffer, held: SampleHeld, piece: bytes
    ) -> SampleHeld:
        reach("sample-piece")
        after = client.send_sample(offer, held.size, piece)
        self._account.arrived(len(piece))
        if after.size <= held.size:
            raise RemoteError("The fleet did not take a piece of a captured frame.")
        return after

    def _has_to_end(self, until: float) -> bool:
        return self._stop.is_set() or time.monotonic() > until or self._is_busy()

    def _require_share(self, size: int) -> None:
        """Check that the month's budget has so much for what may as well wait."""
        budget = self._ledger.budget()
        if budget.month_bytes is None:
            return
        share = share_of_month(self._now(), budget.month_begins)
        bound = int(budget.month_bytes * share)
        left = bound - self._ledger.spent(month=self._ledger.month())
        if cost(size) > left:
            raise refusal(cost(size), left, bound, "for the days until now", waits=True)

    def _failed(self, error: Exception) -> None:
        """Wait longer and longer; the frame is found again after the others."""
        what = getattr(error, "what", str(error))  # how much room there is changes all the time
        if what != self._warned and not self._stop.is_set():
            log.warning("captured frames wait: %s", error)
            self._warned = what
        self._stop.wait(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads load
        self._pause_s = min(2 * self._pause_s, PAUSE_S[1])


def at_work(state: "DeviceState", closed: Callable[[], str]) -> bool:
    """Whether an update, or a trial of a release or a configuration, is at work.

    Args:
        state: the device's.
        closed: why no update may go on now; empty where one may.
    """
    return state.trying is not None or any(
        model.phase in IN_MOTION and not waits(model) and not (is_held(model) and closed())
        for model in state.models.values()
    )


def _put_aside(said: Path, error: Exception) -> None:
    """Leave a frame that is never taken on the device, and offer it no more."""
    log.warning("the captured frame %s stays on this device: %s", said.stem, error)
    said.replace(said.with_suffix(REFUSED))


def _offer(device: str, model: str, kind: MediaType, said: Path) -> SampleOffer:
    """What is said of a frame.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: its line is damaged.
    """
    frame = said.with_suffix(kind.suffix)
    line = json.loads(said.read_bytes())
    if not isinstance(line, dict):
        raise ValueError("Its line is no object.")  # noqa: TRY004 -- as one that is no JSON
    return SampleOffer(
        device=device,
        model=model,
        digest=file_digest(frame),
        size=frame.stat().st_size,
        media_type=kind,
        reason=reason_of(line),
        line=line,
    )


def _is_too_large(offer: SampleOffer) -> bool:
    said = len(msgspec.json.encode(offer.line))
    return offer.size > MAX_SAMPLE_BYTES or said > MAX_LINE_BYTES
