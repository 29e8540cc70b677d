"""Keys, envelopes, certificates, tokens and desired states: who said it, and is it still so."""

import contextlib
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.desired import accept
from cloud_sync.messages import Ack, DesiredModel, DesiredState, Hello, decode, encode
from cloud_sync.trust import (
    PayloadType,
    generate,
    key_id,
    load_key,
    open_envelope,
    save_key,
    sign,
)
from cloud_sync.trust.device_token import (
    CHALLENGE_SECONDS,
    check_token,
    claimed_device,
    make_challenge,
    make_token,
)
from cloud_sync.trust.identity import issue, make_ca, make_request, read_request, verify_issued
from cloud_sync.trust.keys import load_public, public_pem
from edgeml.errors import EdgemlError, RemoteError, TrustError, UserError

KEY, OTHER = generate(), generate()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SECRET = b"secret"


def state(device: str = "cam-1", epoch: int = 1, counter: int = 5, expires: float = 100) -> bytes:
    wanted = DesiredState(
        device=device, epoch=epoch, counter=counter, issued_at=0, expires_at=expires
    )
    return sign(encode(wanted), PayloadType.DESIRED, KEY)


def accepted(envelope: bytes, last: tuple[int, int] = (1, 4), now: float | None = 50) -> object:
    return accept(envelope, device="cam-1", keys=KEYS, last=last, now=now)


def test_an_envelope_opens_for_the_right_key_and_kind() -> None:
    data = sign(b"payload", PayloadType.ACK, KEY)
    assert open_envelope(data, KEYS, PayloadType.ACK) == b"payload"


def test_another_key_another_kind_and_a_changed_payload_are_refused() -> None:
    with pytest.raises(TrustError, match="None of the keys"):
        open_envelope(sign(b"p", PayloadType.ACK, OTHER), KEYS, PayloadType.ACK)
    with pytest.raises(TrustError, match="It holds"):
        open_envelope(sign(b"p", PayloadType.ACK, KEY), KEYS, PayloadType.DESIRED)
    forged = msgspec.json.decode(sign(b"p", PayloadType.ACK, KEY))
    forged["payload"] = "cQ=="
    with pytest.raises(TrustError):
        open_envelope(msgspec.json.encode(forged), KEYS, PayloadType.ACK)


def test_a_signature_under_a_borrowed_key_id_is_refused() -> None:
    forged = msgspec.json.decode(sign(b"p", PayloadType.ACK, OTHER))
    forged["signatures"][0]["keyid"] = key_id(KEY.public_key())
    with pytest.raises(TrustError):
        open_envelope(msgspec.json.encode(forged), KEYS, PayloadType.ACK)


@given(st.data())
def test_no_damaged_byte_changes_what_an_envelope_says(data: st.DataObject) -> None:
    good = bytearray(sign(b"what was said", PayloadType.ACK, KEY))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TrustError):
        assert open_envelope(bytes(good), KEYS, PayloadType.ACK) == b"what was said"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_our_error(data: bytes) -> None:
    reads: list[Callable[[], object]] = [
        lambda: open_envelope(data, KEYS, PayloadType.ACK),
        lambda: accepted(data),
        lambda: decode(data, Hello),
        lambda: decode(data, Ack),
        lambda: claimed_device("Edgeml-Device " + data.decode("latin1")),
        lambda: read_request(data.decode("latin1")),
        lambda: load_public(data.decode("latin1")),
    ]
    for read in reads:
        with contextlib.suppress(EdgemlError):
            read()


def test_a_key_file_is_private_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "k.key"
    save_key(KEY, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_id(load_key(path).public_key()) == key_id(KEY.public_key())
    path.chmod(0o644)
    with pytest.raises(TrustError, match="read by others"):
        load_key(path)


def test_a_damaged_or_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k.key"
    with pytest.raises(TrustError, match="cannot be read"):
        load_key(path)
    path.write_bytes(b"garbage")
    path.chmod(0o600)
    with pytest.raises(TrustError, match="damaged"):
        load_key(path)


def test_a_public_key_comes_back_from_its_pem() -> None:
    assert key_id(load_public(public_pem(KEY.public_key()))) == key_id(KEY.public_key())


def test_a_device_gets_a_certificate_with_its_name() -> None:
    ca_key = generate()
    ca = make_ca(ca_key, NOW)
    device, key = read_request(make_request("cam-1", KEY))
    certificate = issue(device, key, ca, ca_key, NOW)
    assert verify_issued(certificate, ca) == "cam-1"
    with pytest.raises(TrustError):
        verify_issued(certificate, make_ca(generate(), NOW))


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "-x", "x" * 65])
def test_a_name_that_would_break_a_topic_is_no_device(name: str) -> None:
    with pytest.raises((UserError, TrustError, ValueError)):
        read_request(make_request(name, KEY))


def test_a_token_proves_a_device_for_a_while() -> None:
    token = make_token("cam-1", make_challenge(SECRET, 1000), KEY)
    assert claimed_device(token) == "cam-1"
    assert check_token(token, KEY.public_key(), SECRET, 1000 + CHALLENGE_SECONDS) == "cam-1"


@pytest.mark.parametrize("now", [999.0, 1001 + CHALLENGE_SECONDS])
def test_a_token_of_another_time_is_refused(now: float) -> None:
    token = make_token("cam-1", make_challenge(SECRET, 1000), KEY)
    with pytest.raises(TrustError, match="too old"):
        check_token(token, KEY.public_key(), SECRET, now)


def test_a_token_of_another_key_or_with_a_made_up_challenge_is_refused() -> None:
    challenge = make_challenge(SECRET, 1000)
    with pytest.raises(TrustError):
        check_token(make_token("cam-1", challenge, OTHER), KEY.public_key(), SECRET, 1000)
    made_up = make_token("cam-1", make_challenge(b"guess", 1000), KEY)
    with pytest.raises(TrustError, match="not ours"):
        check_token(made_up, KEY.public_key(), SECRET, 1000)


def test_a_newer_desired_state_is_accepted_and_the_same_one_again() -> None:
    assert accepted(state())
    assert accepted(state(), last=(1, 5))
    assert accepted(state(epoch=2, counter=1), last=(1, 900))


@pytest.mark.parametrize(
    ("envelope", "last", "now", "word"),
    [
        (state(device="cam-2"), (1, 4), 50.0, "is for 'cam-2'"),
        (state(), (1, 6), 50.0, "older"),
        (state(), (2, 0), 50.0, "older"),
        (state(expires=10), (1, 4), 50.0, "expired"),
    ],
)
def test_another_devices_an_older_and_an_expired_state_are_refused(
    envelope: bytes, last: tuple[int, int], now: float, word: str
) -> None:
    with pytest.raises(TrustError, match=word):
        accepted(envelope, last, now)


def test_expiry_is_not_judged_without_a_clock_nor_for_what_is_held_already() -> None:
    assert accepted(state(expires=10), now=None)
    assert accepted(state(expires=10), last=(1, 5), now=50)


def test_an_unknown_version_of_a_message_is_refused_and_unknown_fields_pass() -> None:
    ack = msgspec.json.decode(encode(Ack(device="d", stream="s", through=1)))
    assert decode(msgspec.json.encode({**ack, "later": 1}), Ack).through == 1
    with pytest.raises(RemoteError, match="version 9"):
        decode(msgspec.json.encode({**ack, "version": 9}), Ack)


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(RemoteError, match="limit"):
        decode(b" " * (2 << 20), Ack)


def test_what_is_wanted_of_a_model_survives_the_wire() -> None:
    wanted = DesiredModel(release="sha256:a", variant="sha256:b", release_version="1", attempt=3)
    assert msgspec.json.decode(msgspec.json.encode(wanted), type=DesiredModel) == wanted
