"""The folder that travels to the keys, on a USB stick or by any other way.

It has the fleet's published metadata and what waits for signatures, laid out as the fleet's own
repository, without a key in it. Nothing in it is trusted: whoever signs is shown all that his
signature would say, beyond what he signed himself before.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root, Signed, Targets

from cloud_sync.release import write_atomically
from cloud_sync.trust import PrivateKey
from edgeml.errors import TrustError, UserError
from fleet.trust.differences import differences
from fleet.trust.repository import AnyMetadata, Repository

_FILE = r"(metadata/\d{1,20}\.|staged/)[a-z0-9]+([._-][a-z0-9]+)*\.json"


class ToSign(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for a key's signature.

    `since` says against what the changes stand: what this key signed before, or nothing.
    """

    role: str
    version: int
    expires: str
    changes: list[str]
    since: str


def bundle(repository: Repository) -> dict[str, str]:
    """The files of the folder, by path."""
    roles = (Root.type, Targets.type, *repository.teams())
    files: dict[str, str] = {}
    for role in roles:
        known = repository.published(role)
        if known is not None:
            path = f"metadata/{known.signed.version}.{role}.json"
            files[path] = known.to_bytes().decode()
    for role in repository.store.staged_roles():
        staged = repository.staged(role)
        if staged is not None:
            files[f"staged/{role}.json"] = staged.to_bytes().decode()
    return files


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write the folder.

    Raises:
        UserError: it holds something already, or cannot be written.
        TrustError: the fleet names a file that has no place in it.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"The folder {folder} is not empty.", fix="Name a new one.")
        for name, text in files.items():
            if not re.fullmatch(_FILE, name):
                raise TrustError(f"The fleet's file {name[:80]!r} was refused.")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written.", why=f"{error.strerror}: {error.filename}."
        ) from None


def read(folder: Path) -> Repository:
    """The folder as a repository, to look into and to sign.

    Raises:
        UserError: there is nothing to be signed in it.
    """
    repository = Repository(folder, lambda: 0.0)
    if not repository.store.staged_roles():
        raise UserError(
            f"There is nothing to sign in {folder}.",
            why="It was not written by `edgeml trust export`, or nothing waits.",
            fix="On a machine that reaches the fleet: edgeml trust export FOLDER",
        )
    return repository


def to_sign(repository: Repository, key: PrivateKey) -> list[ToSign]:
    """What in a folder a key may sign and has not, and what each signature would say.

    Raises:
        TrustError: a file is damaged, or the key belongs to none of the roles.
    """
    keyid = CryptoSigner(key).public_key.keyid
    found, belongs = [], False
    try:
        for role in repository.store.staged_roles():
            staged, allowed = repository.staged(role), repository.keys(role)
            if staged is None or keyid not in allowed:
                continue
            belongs = True
            if keyid not in staged.signatures:
                found.append(_describe(repository, role, staged, allowed[keyid]))
    except (RepositoryError, ValueError) as error:
        raise _damaged(repository, error) from None
    if not belongs:
        raise TrustError(
            f"The key {keyid[:8]} signs nothing of what waits here.",
            why="It belongs to none of the roles that have something waiting.",
            fix="See whose signatures are missing: edgeml trust show",
        )
    return found


def _describe(repository: Repository, role: str, staged: AnyMetadata, key: Key) -> ToSign:
    known = repository.published(role)
    before: Signed | None = None
    number = 0
    if known is not None and _signed_by(known, key):
        before, number = known.signed, known.signed.version
    since = f"changes since version {number}, which this key signed"
    return ToSign(
        role=role,
        version=staged.signed.version,
        expires=f"{staged.signed.expires:%Y-%m-%d}",
        changes=differences(before, staged.signed),
        since=since if before else "this key has signed nothing before it: all of it is listed",
    )


def _signed_by(metadata: AnyMetadata, key: Key) -> bool:
    try:
        key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
    except (KeyError, UnverifiedSignatureError, VerificationError):
        return False
    return True


def sign(repository: Repository, role: str, key: PrivateKey) -> int:
    """Sign what waits as a role; returns how many signatures it lacks then."""
    repository.sign(role, CryptoSigner(key))
    return max((result.missing for result in repository.verification(role)), default=0)


def signatures(repository: Repository) -> dict[str, dict[str, str]]:
    """The signatures in a folder, by role and key id.

    Raises:
        TrustError: a file is damaged.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        for role in repository.store.staged_roles():
            staged = repository.staged(role)
            if staged is not None and staged.signatures:
                found[role] = {k: s.signature for k, s in staged.signatures.items()}
    except (RepositoryError, ValueError) as error:
        raise _damaged(repository, error) from None
    return found


def _damaged(repository: Repository, error: Exception) -> TrustError:
    return TrustError(
        f"{repository.store.folder} cannot be read.",
        why=f"{str(error).rstrip('.')}.",
        fix="Export it again.",
    )
