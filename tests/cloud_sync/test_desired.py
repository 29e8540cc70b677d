"""Whether a device takes a desired state."""

import base64
import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.desired import accept
from cloud_sync.messages import DesiredState, encode
from cloud_sync.trust import PayloadType, generate, key_id, sign
from edgeml.errors import TrustError

KEY, OTHER = generate(), generate()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}


def state(device: str = "cam-1", epoch: int = 1, counter: int = 5, expires: float = 100) -> bytes:
    wanted = DesiredState(
        device=device, epoch=epoch, counter=counter, issued_at=0, expires_at=expires
    )
    return sign(encode(wanted), PayloadType.DESIRED, KEY)


def accepted(
    envelope: bytes, last: tuple[int, int] = (1, 4), now: float | None = 50
) -> DesiredState:
    return accept(envelope, device="cam-1", keys=KEYS, last=last, now=now)


def test_a_newer_state_is_accepted_and_the_same_one_again() -> None:
    assert accepted(state()).counter == 5
    assert accepted(state(), last=(1, 5))
    assert accepted(state(epoch=2, counter=1), last=(1, 900))


@pytest.mark.parametrize(
    ("envelope", "last", "now", "word"),
    [
        (state(device="cam-2"), (1, 4), 50.0, "is for 'cam-2'"),
        (state(), (1, 6), 50.0, "older"),
        (state(), (2, 0), 50.0, "older"),
        (state(expires=10), (1, 4), 50.0, "expired"),
        (sign(b"{}", PayloadType.DESIRED, KEY), (0, 0), 50.0, "missing required"),
        (sign(b"{}", PayloadType.ACK, KEY), (0, 0), 50.0, "holds"),
    ],
)
def test_what_is_not_for_this_device_now_is_refused(
    envelope: bytes, last: tuple[int, int], now: float, word: str
) -> None:
    with pytest.raises(TrustError, match=word):
        accepted(envelope, last, now)


def test_expiry_is_not_judged_without_a_clock_nor_for_what_is_held_already() -> None:
    assert accepted(state(expires=10), now=None)
    assert accepted(state(expires=10), last=(1, 5), now=50)


def test_a_state_that_another_key_signed_is_refused() -> None:
    payload = encode(accepted(state()))
    with pytest.raises(TrustError, match="None of the keys"):
        accepted(sign(payload, PayloadType.DESIRED, OTHER))


def test_what_expired_before_a_proven_time_is_refused_whoever_says_it() -> None:
    for now in (900.0, 1000.0):
        with pytest.raises(TrustError, match="expired"):
            accepted(state(expires=800.0), now=now)


VERSIONS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(VERSIONS, VERSIONS, st.floats(0, 200), st.none() | st.floats(0, 200))
def test_it_is_accepted_exactly_when_it_is_no_older_and_not_expired(
    version: tuple[int, int], last: tuple[int, int], expires: float, now: float | None
) -> None:
    good = version == last or (version > last and (now is None or now <= expires))
    envelope = state(epoch=version[0], counter=version[1], expires=expires)
    with contextlib.nullcontext() if good else pytest.raises(TrustError):
        assert (accepted(envelope, last, now).epoch, good) == (version[0], True)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_our_error(data: bytes) -> None:
    with contextlib.suppress(TrustError):
        accepted(data)
    with contextlib.suppress(TrustError):
        accepted(sign(data, PayloadType.DESIRED, KEY))


@given(st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    good = state()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TrustError):
        assert accepted(bytes(bad)) == accepted(good)


@given(st.data())
def test_a_changed_payload_is_always_refused(data: st.DataObject) -> None:
    envelope = msgspec.json.decode(state())
    payload = bytearray(base64.b64decode(envelope["payload"]))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(TrustError):
        accepted(msgspec.json.encode(envelope))
