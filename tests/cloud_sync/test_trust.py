"""Keys, envelopes, certificates and tokens: who said it, and is it still so."""

import base64
import contextlib
import datetime as dt
import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from cloud_sync.trust.envelope import pae
from cloud_sync.trust.identity import issue, make_ca, make_request, read_request, verify_issued
from cloud_sync.trust.keys import load_public, public_pem
from edgeml.errors import EdgemlError, TrustError, UserError
from tests.needs import module, program

KEY, OTHER = generate(), generate()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SECRET = b"secret"


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


def test_a_key_id_is_a_hint_that_may_be_absent() -> None:
    envelope = msgspec.json.decode(sign(b"p", PayloadType.ACK, KEY))
    del envelope["signatures"][0]["keyid"]
    data = msgspec.json.encode(envelope)
    both = {key_id(OTHER.public_key()): OTHER.public_key()} | KEYS
    assert open_envelope(data, both, PayloadType.ACK) == b"p"
    with pytest.raises(TrustError):
        open_envelope(data, {"x": OTHER.public_key()}, PayloadType.ACK)


def test_one_good_signature_beside_strange_ones_is_enough() -> None:
    envelope = msgspec.json.decode(sign(b"p", PayloadType.ACK, KEY))
    strange = [{"keyid": "unknown", "sig": "AAAA"}, {"sig": "!"}, {"keyid": "", "sig": "AA=="}]
    envelope["signatures"] = strange + envelope["signatures"]
    assert open_envelope(msgspec.json.encode(envelope), KEYS, PayloadType.ACK) == b"p"


def test_more_signatures_than_anyone_needs_or_none_are_refused() -> None:
    envelope = msgspec.json.decode(sign(b"p", PayloadType.ACK, KEY))
    for number in (0, 1000):
        many = envelope | {"signatures": envelope["signatures"] * number}
        with pytest.raises(TrustError, match="could not be read"):
            open_envelope(msgspec.json.encode(many), KEYS, PayloadType.ACK)


def test_base64_of_the_url_safe_alphabet_is_read_too() -> None:
    payload = b"\xfb\xff\xfe"
    data = sign(payload, PayloadType.ACK, KEY)
    assert b"+" in data or b"/" in data
    url_safe = msgspec.json.decode(data)
    for holder, name in ((url_safe, "payload"), (url_safe["signatures"][0], "sig")):
        holder[name] = holder[name].replace("+", "-").replace("/", "_")
    assert open_envelope(msgspec.json.encode(url_safe), KEYS, PayloadType.ACK) == payload


@given(payload=st.binary(max_size=60))
@settings(deadline=None)
def test_another_implementation_of_dsse_agrees(payload: bytes) -> None:
    dsse = module("securesystemslib.dsse")
    signer = module("securesystemslib.signer")
    theirs = dsse.Envelope.from_dict(msgspec.json.decode(sign(payload, PayloadType.ACK, KEY)))
    raw = KEY.public_key().public_bytes_raw().hex()
    keyid = key_id(KEY.public_key())
    key = signer.SSlibKey(keyid, "ed25519", "ed25519", {"public": raw})
    assert theirs.pae() == pae(PayloadType.ACK, payload)
    assert theirs.verify([key], 1)
    made = dsse.Envelope(payload, str(PayloadType.ACK), {})
    made.sign(signer.CryptoSigner(KEY, key))
    assert open_envelope(msgspec.json.encode(made.to_dict()), KEYS, PayloadType.ACK) == payload


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


def damaged(data: st.DataObject, pem: str) -> str:
    first, *lines, last = pem.strip().splitlines()
    der = bytearray(base64.b64decode("".join(lines)))
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    return f"{first}\n{base64.encodebytes(der).decode()}{last}\n"


@functools.cache
def issued() -> tuple[str, str, str]:
    """A request, its certificate and the CA, the same for every draw: their lengths vary."""
    ca_key = generate()
    ca = make_ca(ca_key, NOW)
    certificate = issue("cam-1", KEY.public_key(), ca, ca_key, NOW)
    return make_request("cam-1", KEY), certificate, ca


@settings(deadline=None)
@given(st.data())
def test_no_damaged_request_or_certificate_passes_for_another(data: st.DataObject) -> None:
    request, certificate, ca = issued()
    with contextlib.suppress(EdgemlError):
        assert read_request(damaged(data, request))[0] == "cam-1"
    with contextlib.suppress(EdgemlError):
        assert verify_issued(damaged(data, certificate), ca) == "cam-1"


def test_openssl_accepts_the_chain_under_its_strict_rules(tmp_path: Path) -> None:
    ca_key = generate()
    (tmp_path / "ca.pem").write_text(make_ca(ca_key, NOW))
    certificate = issue("cam-1", KEY.public_key(), make_ca(ca_key, NOW), ca_key, NOW)
    (tmp_path / "cam.pem").write_text(certificate)
    answer = subprocess.run(
        [
            *(program("openssl", "openssl"), "verify", "-x509_strict", "-purpose", "sslclient"),
            *("-attime", str(int(NOW.timestamp())), "-CAfile", "ca.pem", "cam.pem"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "cam.pem: OK\n", answer.stderr


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
