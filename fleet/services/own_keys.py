"""The fleet's own keys, the director's and the CA's: what devices know of them, and rotation.

Both are TUF targets. A new key is announced first and signs as soon as the announcement is
public; the one before stays good until it is withdrawn. A device that meets a key that it does
not know asks TUF, so that one which was away meanwhile follows, too.
"""

import re
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from tuf.api.metadata import Root, Targets

from cloud_sync.messages import encode
from cloud_sync.release import write_atomically
from cloud_sync.trust import PayloadType, key_id, sign
from cloud_sync.trust.keys import fingerprint
from cloud_sync.trust.messages import RootStatement
from cloud_sync.trust.releases import AUTHORITIES, DIRECTOR
from edgeml.errors import UserError
from fleet.ring import Ring
from fleet.services import revoked
from fleet.services.context import Services
from fleet.trust.status import OwnKeyInfo

_KEY_ID = re.compile(r"[0-9A-Za-z]{1,128}")


class OwnKey(StrEnum):
    """A key of the fleet that devices know."""

    DIRECTOR = "director"
    CA = "ca"


def files(services: Services) -> dict[str, bytes]:
    """What the fleet says of itself under TUF."""
    keys = services.keys
    return {DIRECTOR: keys.director_pem.encode(), AUTHORITIES: keys.authorities.encode()}


def told(services: Services) -> str:
    """The fingerprint of both, by which devices notice that there is something to learn."""
    return fingerprint(services.keys.director_pem, services.keys.authorities)


def ring(services: Services, which: OwnKey) -> Ring:
    """The key's ring, as it is now on the disk."""
    services.keys.refresh()
    return services.keys.directors if which is OwnKey.DIRECTOR else services.keys.cas


def described(services: Services) -> list[OwnKeyInfo]:
    """The keys for people: which signs, and whether others are announced or still good."""
    found = []
    for which in OwnKey:
        kept = ring(services, which)
        found.append(
            OwnKeyInfo(
                key=which.value,
                id=key_id(kept.current.key.public_key()),
                announced=kept.coming is not None,
                retired=len(kept.retired),
            )
        )
    return found


def begin(services: Services, which: OwnKey) -> None:
    """Announce the next key.

    Raises:
        UserError: there is no root, so that no device could follow, or a rotation is under way.
    """
    found = ring(services, which)
    if not services.trust.is_initialised:
        raise UserError(
            f"The {which} cannot be rotated yet.",
            why="Devices learn of the new key by TUF, and there is no root.",
            fix="Begin to sign: edgeml trust init; devices take the root at their next hello.",
        )
    if found.coming is not None:
        raise UserError(
            f"The {which} is being rotated already.",
            why="Its announcement waits for signatures.",
            fix="See whose: edgeml trust show. To give it up: edgeml trust discard",
        )
    if which is OwnKey.CA and found.retired:
        raise UserError(
            "The CA cannot be rotated yet.",
            why="The one before is still good.",
            fix="Withdraw it first: edgeml trust withdraw-key ca",
        )
    found.announce()


def withdraw(services: Services, which: OwnKey) -> int:
    """Have nothing but the present key be good; returns how many no longer are.

    Raises:
        UserError: there is none to withdraw, or the next one is not in force yet.
    """
    found = ring(services, which)
    if found.coming is not None:
        raise UserError(
            f"The {which} before cannot be withdrawn yet.",
            why="The next one is announced, and waits for signatures.",
            fix="See whose: edgeml trust show",
        )
    if not found.retired:
        raise UserError(
            f"There is no older key of the {which} to withdraw.",
            fix=f"Rotate first: edgeml trust rotate-key {which}",
        )
    return len(found.withdraw())


def settle(services: Services) -> None:
    """Act on what became public: announced keys begin to sign, the root is stated for devices."""
    if not services.trust.is_initialised:
        return
    _state_root(services)
    published = services.trust.published(Targets.type)
    targets = published.signed.targets if published else {}
    wanted = files(services)
    for which, path in ((OwnKey.DIRECTOR, DIRECTOR), (OwnKey.CA, AUTHORITIES)):
        found = ring(services, which)
        if found.coming is None:
            continue
        target = targets.get(path)
        if target is not None and _is(target.hashes, wanted[path]):
            found.promote()
            if which is OwnKey.CA:
                revoked.write(services)  # a broker lets in nobody whose authority has no list
        elif services.trust.staged(Targets.type) is None:
            found.give_up()  # its announcement was discarded
    services.keys.write_authorities()
    _state_root(services)


def root_statement(services: Services, director: str) -> bytes | None:
    """The root as a director's key once stated it, in an envelope; None if it never did."""
    if not _KEY_ID.fullmatch(director):
        return None
    path = _statement(services, director)
    return path.read_bytes() if path.exists() else None


def _state_root(services: Services) -> None:
    """Have the present director state the root, while its key is there to sign that.

    A device that was enrolled before there was a root, and was away while the director's key
    rotated, knows the key of that time alone.
    """
    root = services.trust.store.published(Root.type)
    path = _statement(services, services.keys.director_id)
    if root is None or path.exists():
        return
    statement = RootStatement(root=root.decode())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sign(encode(statement), PayloadType.ROOT, services.keys.director))


def _statement(services: Services, director: str) -> Path:
    return services.trust.store.folder / "statements" / f"{director}.json"


def _is(hashes: dict[str, str], data: bytes) -> bool:
    return hashes.get("sha256") == sha256(data).hexdigest()
