"""What the fleet says of its trust: who signs, until when, and what waits for whom."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from tuf.api.metadata import Root, Targets

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict

from fleet.trust.differences import differences, key_name
from fleet.trust.repository import ONLINE, TOP, Repository

UNSIGNED = "Releases are not signed. Begin with it: edgeml trust init"
_ONLINE = "Releases are signed by keys online: fine to try, not for production (docs/trust.md)."
_OFFLINE = "Releases are signed by keys that the fleet does not hold."
_TEAMS = "Releases are signed; the fleet holds some of the keys: {} (docs/trust.md)."
_WAITING = "Releases are not signed yet: the first root waits for signatures (edgeml trust export)."
_SOON_S = 60 * 86400.0


class KeyInfo(TypedDict):
    """A public key of a role; `online` where the fleet holds its private half."""

    id: str
    name: str
    online: bool


class RoleInfo(TypedDict):
    """A role as it is published."""

    role: str
    version: int
    expires_at: float
    threshold: int
    keys: list[KeyInfo]
    models: list[str]
    targets: int


class WaitingInfo(TypedDict):
    """The next version of a role, that waits: what it changes, who signed, who may still."""

    role: str
    version: int
    changes: list[str]
    signed: list[str]
    may_sign: list[str]
    missing: int


class OwnKeyInfo(TypedDict):
    """The director's key or the CA's; `retired` are those before it that are still good.

    `announced` where the next one waits for the signatures that make it public.
    """

    key: str
    id: str
    announced: bool
    retired: int


class TrustInfo(TypedDict):
    """All of it. `state` is `unsigned`, `waiting`, `online` or `offline`."""

    state: str
    sentence: str
    warnings: list[str]
    roles: list[RoleInfo]
    waiting: list[WaitingInfo]
    own_keys: list[OwnKeyInfo]


def show(repository: Repository, own_keys: Sequence[OwnKeyInfo] = ()) -> TrustInfo:
    """The state of a repository, and of the keys that it announces."""
    roles = [r for role in (*TOP, *repository.teams()) if (r := _role(repository, role))]
    state, sentence = _state(repository, roles)
    waiting = [_waiting(repository, role) for role in repository.store.staged_roles()]
    return {
        "state": state,
        "sentence": sentence,
        "warnings": _warnings(repository, roles),
        "roles": roles,
        "waiting": [found for found in waiting if found],
        "own_keys": list(own_keys),
    }


def _state(repository: Repository, roles: list[RoleInfo]) -> tuple[str, str]:
    """By what is public: a rotation that waits changes nothing yet."""
    if not repository.is_initialised:
        if repository.latest(Root.type) is not None:
            return "waiting", _WAITING
        return "unsigned", UNSIGNED
    online = [
        role["role"]
        for role in roles
        if role["role"] not in ONLINE
        and sum(key["online"] for key in role["keys"]) >= role["threshold"]
    ]
    if Root.type in online:
        return "online", _ONLINE
    if online:
        return "online", _TEAMS.format(", ".join(online))
    return "offline", _OFFLINE


def _warnings(repository: Repository, roles: list[RoleInfo]) -> list[str]:
    found = []
    for role in roles:
        left = role["expires_at"] - repository.now()
        if role["role"] in ONLINE or left > _SOON_S or repository.is_online(role["role"]):
            continue
        day = dt.datetime.fromtimestamp(role["expires_at"], dt.UTC).date()
        verb = "expires" if left > 0 else "expired"
        found.append(
            f"{role['role']} {verb} on {day}; after that no device takes a new release. "
            f"Sign it anew: edgeml trust refresh --role {role['role']}"
        )
    return found


def _role(repository: Repository, role: str) -> RoleInfo | None:
    found = repository.published(role)
    delegator = repository.published(Root.type if role in TOP else Targets.type)
    if found is None or delegator is None:
        return None
    held = repository.store.signers()
    rule: Any = delegator.signed.get_delegated_role(role)
    keys = [delegator.signed.get_key(keyid) for keyid in rule.keyids]
    return {
        "role": role,
        "version": found.signed.version,
        "expires_at": found.signed.expires.timestamp(),
        "threshold": rule.threshold,
        "keys": [
            {"id": key.keyid, "name": key_name(key), "online": key.keyid in held} for key in keys
        ],
        "models": [path.removesuffix("/*") for path in getattr(rule, "paths", None) or ()],
        "targets": len(getattr(found.signed, "targets", ())),
    }


def _waiting(repository: Repository, role: str) -> WaitingInfo | None:
    staged, known = repository.staged(role), repository.published(role)
    if staged is None:
        return None
    results = repository.verification(role)
    keys = {keyid: key for result in results for keyid, key in result.unsigned.items()}
    done = {keyid: key for result in results for keyid, key in result.signed.items()}
    return {
        "role": role,
        "version": staged.signed.version,
        "changes": differences(known.signed if known else None, staged.signed),
        "signed": sorted(key_name(key) for key in done.values()),
        "may_sign": sorted(key_name(key) for key in keys.values()),
        "missing": max((result.missing for result in results), default=1),
    }
