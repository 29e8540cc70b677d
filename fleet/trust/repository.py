"""What may be published, and that it stays fresh.

A change makes the next version of a role and stages it, signed by the keys that the fleet holds.
What has signatures enough is published; the rest waits, and nothing of it is visible. A change
of keys and what must be signed anew with them become public together or not at all: what is
published always verifies, for that is the condition.

Snapshot and timestamp are the fleet's own, always online. Their versions are the time, so that
those of a fleet that was restored from a backup are not older than what devices have seen.
"""

import copy
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Key, Signature
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
    VerificationResult,
)

from edgeml.errors import TrustError
from fleet.shared_lock import SharedLock
from fleet.trust.store import Store

DAY_S = 86400.0
LIFE_S = {Timestamp.type: DAY_S, Snapshot.type: 7 * DAY_S}
OFFLINE_LIFE_S = 365 * DAY_S
RENEW_BEFORE_S = 90 * DAY_S
ONLINE = (Snapshot.type, Timestamp.type)
TOP = (Root.type, Targets.type, *ONLINE)

AnyMetadata = Metadata[Any]


class Repository:
    """See the module; safe to use from several threads and processes.

    Args:
        folder: where it is kept; nothing is there before `init`.
        now: the time in Unix seconds.
    """

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self.store = Store(folder)
        self.now = now
        self._lock = SharedLock(folder / "repository.lock")

    @property
    def is_initialised(self) -> bool:
        """Whether there is a root: from then on releases must be signed."""
        return self.store.published(Root.type) is not None

    def published(self, role: str) -> AnyMetadata | None:
        """The newest published version of a role."""
        return _parse(self.store.published(role))

    def staged(self, role: str) -> AnyMetadata | None:
        """The next version of a role, if one waits for signatures."""
        staged = _parse(self.store.staged(role))
        known = self.published(role)
        # One that was published just before the process ended waits no more.
        if staged and known and staged.signed.version <= known.signed.version:
            return None
        return staged

    def latest(self, role: str) -> AnyMetadata | None:
        """What the role is about to be: staged, else published."""
        return self.staged(role) or self.published(role)

    def teams(self) -> tuple[str, ...]:
        """The roles that the targets role delegates to, published or about to be."""
        return _teams(self.latest(Targets.type))

    def root(self) -> Root:
        """The root as it is about to be.

        Raises:
            TrustError: there is none.
        """
        found = self.latest(Root.type)
        if found is None:
            raise TrustError(
                "Releases are not signed here yet.",
                why="The fleet has no TUF root.",
                fix="Make one: edgeml trust init",
            )
        return cast("Root", found.signed)

    @contextmanager
    def edit(self, role: str, new: Signed | None = None) -> Iterator[Any]:
        """Change a role within the block; the result is staged as its next version.

        Signatures that were given for what waited before are given up with it.

        Args:
            role: the role.
            new: what it begins as, where there is none.
        """
        with self._lock:
            found = self.latest(role)
            signed: Any = copy.deepcopy(found.signed if found else new)
            yield signed
            known = self.published(role)
            signed.version = known.signed.version + 1 if known else 1
            signed.expires = self._after(OFFLINE_LIFE_S)
            metadata: AnyMetadata = Metadata(signed)
            if role == Root.type:
                self.store.stage(role, metadata.to_bytes())  # its own keys sign it, too
            self._sign(metadata, self.keys(role))
            self.store.stage(role, metadata.to_bytes())

    def keys(self, role: str) -> dict[str, Key]:
        """The keys that may sign for a role, as it is and as it is about to be, by key id."""
        found: dict[str, Key] = {}
        above = _delegator(role)
        for metadata in (self.published(above), self.staged(above)):
            if metadata is not None and _knows(metadata, role):
                ids = metadata.signed.get_delegated_role(role).keyids
                found |= {keyid: metadata.signed.get_key(keyid) for keyid in ids}
        return found

    def sign(self, role: str, signer: CryptoSigner) -> None:
        """Sign what waits with a key that its owner brought."""
        with self._lock:
            metadata = self.staged(role)
            assert metadata is not None
            metadata.sign(signer, append=True)
            self.store.stage(role, metadata.to_bytes())

    def discard(self) -> tuple[str, ...]:
        """Give up all that waits; returns its roles."""
        with self._lock:
            waiting = tuple(self.store.staged_roles())
            for role in waiting:
                self.store.unstage(role)
            return waiting

    def add_signatures(self, role: str, signatures: Mapping[str, str]) -> int:
        """Take signatures of what waits; returns how many were new.

        Args:
            role: the role that waits.
            signatures: hexadecimal signatures by key id.

        Raises:
            TrustError: nothing waits, or a signature is not one of it by a key of the role.
        """
        with self._lock:
            metadata = self.staged(role) if role in self.store.staged_roles() else None
            if metadata is None:
                raise TrustError(
                    f"Nothing waits for signatures as {role[:64]!r}.",
                    fix="See what does: edgeml trust show",
                )
            before = len(metadata.signatures)
            for keyid, signature in signatures.items():
                add_signature(metadata, self.keys(role), keyid, signature)
            self.store.stage(role, metadata.to_bytes())
            return len(metadata.signatures) - before

    def verification(self, role: str) -> tuple[VerificationResult, ...]:
        """Who signed what waits, for each rule that it must fulfil; () where nothing waits."""
        waiting = self._waiting()
        return self._results(role, waiting) if role in waiting else ()

    def publish(self, *, renew: bool = False) -> tuple[str, ...]:
        """Publish what has signatures enough; returns its roles.

        Args:
            renew: have snapshot and timestamp renewed when it is time, also if nothing waits.

        Raises:
            TrustError: the fleet holds too few of the keys of snapshot and timestamp.
        """
        with self._lock:
            chosen = self._publishable()
            root = chosen.get(Root.type) or self.published(Root.type)
            if root is None or not (chosen or renew):
                return ()
            self._require_online(root.signed)
            lists = (role for role in chosen if role != Root.type)
            for role in lists:
                self._put(role, chosen[role])
            snapshot = self._fresh_snapshot(root.signed)
            timestamp = self._fresh_timestamp(root.signed, snapshot)
            if Root.type in chosen:
                self._put(Root.type, root)
            if timestamp is not None:
                self._put(Timestamp.type, timestamp)
            for role in chosen:
                self.store.unstage(role)
            if chosen:
                self._drop_keys()
            return tuple(chosen)

    def refresh(self) -> tuple[str, ...]:
        """Renew what will expire and the fleet may sign; returns the roles it published anew.

        Raises:
            TrustError: the fleet holds too few of the keys of snapshot and timestamp.
        """
        with self._lock:
            for role in (Root.type, Targets.type, *self.teams()):
                found = self.published(role)
                if found and self._left(found) < RENEW_BEFORE_S and self.is_online(role):
                    with self.edit(role):
                        pass
            return self.publish(renew=True)

    def is_online(self, role: str) -> bool:
        """Whether the fleet holds keys enough to sign for a role alone."""
        held = self.store.signers()
        delegator = self.latest(_delegator(role))
        if delegator is None or not _knows(delegator, role):
            return False
        rule = delegator.signed.get_delegated_role(role)
        number = sum(keyid in held for keyid in rule.keyids)
        return bool(number >= rule.threshold)

    def _publishable(self) -> dict[str, AnyMetadata]:
        """The most of what waits that verifies together with what is public.

        What new keys must sign anew waits for the root or list that names them: published
        before under the old keys, there would be nothing left for the new ones to sign.
        """
        waiting = self._waiting()
        chosen = dict(waiting)
        while True:
            failing = self._first_failing(chosen) or self._first_early(chosen, waiting)
            if failing is None:
                return chosen
            # Either it lacks signatures, or whoever delegates to it asks for others than it has.
            blamed = failing if failing in chosen else _delegator(failing)
            if blamed not in chosen:
                return {}
            del chosen[blamed]

    def _first_failing(self, chosen: Mapping[str, AnyMetadata]) -> str | None:
        targets = chosen.get(Targets.type) or self.published(Targets.type)
        for role in (*chosen, Root.type, Targets.type, *_teams(targets)):
            results = self._results(role, chosen)
            if not results or not all(result.verified for result in results):
                return role
        return None

    def _first_early(
        self, chosen: Mapping[str, AnyMetadata], waiting: Mapping[str, AnyMetadata]
    ) -> str | None:
        for role in chosen:
            delegator = _delegator(role)
            if role != Root.type and delegator in waiting and delegator not in chosen:
                later = self._results(role, {**chosen, delegator: waiting[delegator]})
                if not all(result.verified for result in later):
                    return role
        return None

    def _waiting(self) -> dict[str, AnyMetadata]:
        return {role: found for role in self.store.staged_roles() if (found := self.staged(role))}

    def _results(
        self, role: str, chosen: Mapping[str, AnyMetadata]
    ) -> tuple[VerificationResult, ...]:
        """How a role verifies, if `chosen` were public; () where it cannot."""
        metadata = chosen.get(role) or self.published(role)
        above = _delegator(role)
        delegator = chosen.get(above) or self.published(above)
        if metadata is None or delegator is None or not _knows(delegator, role):
            return ()
        payload, signatures = metadata.signed_bytes, metadata.signatures
        if role == Root.type and role in chosen:
            known = self.published(role)
            both = metadata.signed.get_root_verification_result(
                known.signed if known else None, payload, signatures
            )
            return (both.first, both.second) if known else (both.second,)
        return (delegator.signed.get_verification_result(role, payload, signatures),)

    def _fresh_snapshot(self, root: Root) -> AnyMetadata:
        """The snapshot of what is published, a new one where it must be."""
        known = self.published(Snapshot.type)
        lists = (Targets.type, *_teams(self.published(Targets.type)))
        meta = {f"{role}.json": self._describe(role) for role in lists}
        if known is not None:
            # What was listed once stays listed: devices take its absence for an attack.
            meta = {**known.signed.meta, **meta}
            if known.signed.meta == meta and self._lasts(known, root):
                return known
        snapshot = Snapshot(self._by_time(known), expires=self._after(LIFE_S[Snapshot.type]))
        snapshot.meta = meta
        metadata = self._signed_online(root, snapshot)
        self._put(Snapshot.type, metadata)
        return metadata

    def _fresh_timestamp(self, root: Root, snapshot: AnyMetadata) -> AnyMetadata | None:
        known = self.published(Timestamp.type)
        meta = self._describe(Snapshot.type)
        if known and known.signed.snapshot_meta == meta and self._lasts(known, root):
            return None
        expires = self._after(LIFE_S[Timestamp.type])
        assert meta.version == snapshot.signed.version
        return self._signed_online(root, Timestamp(self._by_time(known), None, expires, meta))

    def _drop_keys(self) -> None:
        """Remove the fleet's keys that sign no more: what it does not hold cannot be stolen."""
        needed = {keyid for role in (*TOP, *self.teams()) for keyid in self.keys(role)}
        self.store.keep_keys(needed)

    def _require_online(self, root: Root) -> None:
        held = self.store.signers()
        for role in ONLINE:
            if sum(keyid in held for keyid in root.roles[role].keyids) < root.roles[role].threshold:
                raise TrustError(
                    f"The fleet cannot sign its {role}.",
                    why="It does not hold the keys of this role.",
                    fix=f"Restore {self.store.folder / 'keys'}, or give the role new keys: "
                    f"edgeml trust rotate {role}",
                )

    def _signed_online(self, root: Root, signed: Signed) -> AnyMetadata:
        metadata: AnyMetadata = Metadata(cast("Any", signed))
        self._sign(metadata, root.roles[signed.type].keyids)
        return metadata

    def _sign(self, metadata: AnyMetadata, keyids: Iterable[str]) -> None:
        held = self.store.signers()
        for keyid in keyids:
            if keyid in held:
                metadata.sign(held[keyid], append=True)

    def _describe(self, role: str) -> MetaFile:
        data = self.store.published(role)
        assert data is not None
        version = Metadata.from_bytes(data).signed.version
        return MetaFile.from_data(version, data, ["sha256"])

    def _put(self, role: str, metadata: AnyMetadata) -> None:
        self.store.publish(role, metadata.signed.version, metadata.to_bytes())

    def _lasts(self, metadata: AnyMetadata, root: Root) -> bool:
        """Whether it has over half of its life before it, and is signed by the keys of now."""
        role = metadata.signed.type
        result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        return result.verified and self._left(metadata) > LIFE_S[role] / 2

    def _left(self, metadata: AnyMetadata) -> float:
        expires: float = metadata.signed.expires.timestamp()
        return expires - self.now()

    def _by_time(self, known: AnyMetadata | None) -> int:
        return max(int(self.now()), known.signed.version + 1 if known else 1)

    def _after(self, seconds: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(int(self.now() + seconds), dt.UTC)


def add_signature(
    metadata: AnyMetadata, keys: Mapping[str, Key], keyid: str, signature: str
) -> None:
    """Add a signature to metadata, if it is one.

    Raises:
        TrustError: it is not one of this content by one of `keys`.
    """
    key = keys.get(keyid)
    try:
        if key is None:
            raise UnverifiedSignatureError("The key may not sign for this role")
        made = Signature(keyid, signature)
        key.verify_signature(made, metadata.signed_bytes)
    except (UnverifiedSignatureError, VerificationError, ValueError) as error:
        raise TrustError(
            f"A signature by {keyid[:8]} was refused.",
            why=f"{str(error).rstrip('.')}.",
            fix="If what waits was changed meanwhile, export it and sign it again.",
        ) from None
    metadata.signatures[keyid] = made


def _delegator(role: str) -> str:
    """The role that says whose keys sign for a role."""
    return Root.type if role in TOP else Targets.type


def _parse(data: bytes | None) -> AnyMetadata | None:
    return Metadata.from_bytes(data) if data is not None else None


def _knows(delegator: AnyMetadata, role: str) -> bool:
    if isinstance(delegator.signed, Root):
        return role in delegator.signed.roles
    return role in _teams(delegator)


def _teams(targets: AnyMetadata | None) -> tuple[str, ...]:
    if targets is None or not isinstance(targets.signed, Targets):
        return ()
    delegations = targets.signed.delegations
    return tuple(delegations.roles or ()) if delegations else ()
