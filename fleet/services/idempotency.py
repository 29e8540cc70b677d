"""Requests that are done once: their keys, and the answers that they got.

An answer may hold a secret that is shown once (an enrolment token). It is therefore kept
encrypted with the client's own key, of which only a hash is kept, and the fleet's secret beside
the database: neither a copy of the database nor the data folder alone gives it away.
"""

import hashlib
import hmac
import secrets

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from fleet.db import tables
from fleet.problem import Conflict
from fleet.services.context import Services

KEEP_S = 24 * 3600.0
_NONCE = 12


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was answered."""

    status: int
    headers: dict[str, str]
    body: bytes


def begin(services: Services, actor: str, key: str, fingerprint: str) -> Answer | None:
    """Reserve a key for a request; returns the answer where it was done before.

    Args:
        services: the fleet.
        actor: whose key it is: two people may use the same.
        key: the client's.
        fingerprint: a hash of the request.

    Raises:
        Conflict: another request has used the key, or this one was begun and its end is not
            known (yet).
    """
    name, now = _name(actor, key), services.now()
    try:
        with services.database.write() as session:
            table = tables.IdempotencyKey
            session.execute(delete(table).where(table.expires_at <= now))
            session.add(
                table(
                    name=name,
                    fingerprint=fingerprint,
                    created_at=now,
                    expires_at=now + KEEP_S,
                    answer=None,
                )
            )
    except IntegrityError:
        return _known(services, actor, key, fingerprint)
    return None


def finish(services: Services, actor: str, key: str, answer: Answer) -> None:
    """Keep what a request was answered."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = nonce + _cipher(services, key).encrypt(nonce, msgspec.msgpack.encode(answer), None)
    with services.database.write() as session:
        row = session.get(tables.IdempotencyKey, _name(actor, key))
        if row is not None:
            row.answer = sealed


def forget(services: Services, actor: str, key: str) -> None:
    """Give a key back whose request was refused before anything was done."""
    table = tables.IdempotencyKey
    with services.database.write() as session:
        session.execute(delete(table).where(table.name == _name(actor, key)))


def _known(services: Services, actor: str, key: str, fingerprint: str) -> Answer:
    with services.database.read() as session:
        row = session.get(tables.IdempotencyKey, _name(actor, key))
    if row is not None and row.fingerprint != fingerprint:
        raise Conflict(
            "The Idempotency-Key was used for another request.",
            why="A key belongs to one request, with its path and body.",
            fix="Use a new random key for each thing that is to be done.",
        )
    if row is None or row.answer is None:
        raise Conflict(
            "The request with this Idempotency-Key was begun, and its end is not known.",
            why="It is under way, or the fleet was stopped in the middle of it.",
            fix="Send it again in a moment; if this stays, look at what is there, and send it "
            "with a new key if it was not done.",
        )
    try:
        plain = _cipher(services, key).decrypt(row.answer[:_NONCE], row.answer[_NONCE:], None)
    except InvalidTag:
        raise Conflict(
            "The answer to this Idempotency-Key cannot be read any more.",
            why="The fleet's secret beside the database is another one.",
            fix="Look at what is there, and send it with a new key if it was not done.",
        ) from None
    return msgspec.msgpack.decode(plain, type=Answer)


def _name(actor: str, key: str) -> str:
    return hashlib.sha256(f"{len(actor)} {actor} {key}".encode()).hexdigest()


def _cipher(services: Services, key: str) -> AESGCM:
    secret = services.keys.session_secret
    return AESGCM(hmac.digest(secret, b"idempotency\0" + key.encode(), "sha256"))
