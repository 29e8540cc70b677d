"""Who signs releases, as operators see and change it; each change is in the audit log.

What waits for signatures that the fleet cannot give is published when they have come.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import select
from tuf.api.metadata import Root, Targets

from cloud_sync.release import Release
from cloud_sync.trust.identity import is_issued_by
from edgeml.errors import UserError
from fleet.db import tables
from fleet.services import own_keys
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.own_keys import OwnKey
from fleet.trust import changes, check, offline, status
from fleet.trust.changes import RoleKeys
from fleet.trust.repository import TOP
from fleet.trust.status import TrustInfo

_FLEET = Caller("fleet")


def show(services: Services) -> TrustInfo:
    """Who signs, until when, and what waits for whom."""
    return status.show(services.trust, own_keys.described(services))


def init(services: Services, caller: Caller, root: RoleKeys, targets: RoleKeys) -> TrustInfo:
    """Make the first root, and have all registered releases signed.

    Raises:
        UserError: there is a root, or keys and thresholds do not fit.
    """
    with services.database.read() as session:
        documents = session.scalars(select(tables.Release.document))
        known = [msgspec.json.decode(document, type=Release) for document in documents]
    signed = {f"{found.model}/{found.version}": (found.digest, found.size) for found in known}
    return _changed(
        services,
        caller,
        ("init", Root.type),
        lambda: changes.init(services.trust, root, targets, signed, own_keys.files(services)),
    )


def add_key(services: Services, caller: Caller, role: str, given: RoleKeys) -> TrustInfo:
    """Let one more key sign for a role.

    Raises:
        UserError: there is no such role, or key and threshold do not fit.
    """
    return _changed(
        services,
        caller,
        ("add-key", role),
        lambda: changes.add_key(services.trust, role, given),
        keys=sorted(given.keys),
        threshold=given.threshold,
    )


def rotate(services: Services, caller: Caller, role: str, given: RoleKeys) -> TrustInfo:
    """Put new keys in place of a role's keys.

    Raises:
        UserError: there is no such role, or keys and threshold do not fit.
    """
    return _changed(
        services,
        caller,
        ("rotate", role),
        lambda: changes.rotate(services.trust, role, given),
        keys=sorted(given.keys),
        threshold=given.threshold,
    )


def delegate(
    services: Services, caller: Caller, team: str, models: list[str], given: RoleKeys
) -> TrustInfo:
    """Let a team sign the releases of some models.

    Raises:
        UserError: the name is taken, or keys and threshold do not fit.
        TrustError: there is no root.
    """
    services.trust.root()
    return _changed(
        services,
        caller,
        ("delegate", team),
        lambda: changes.delegate(services.trust, team, models, given),
        models=models,
        keys=sorted(given.keys),
        threshold=given.threshold,
    )


def refresh(services: Services, caller: Caller, role: str = "") -> TrustInfo:
    """Renew what will expire; of `role`, which may be signed offline, the next version.

    Raises:
        UserError: there is no such role.
        TrustError: there is no root, or the fleet lacks keys of its own roles.
    """
    services.trust.root()
    offline_roles = (Root.type, Targets.type, *services.trust.teams())
    if role and role not in offline_roles:
        why = f"There are {', '.join(offline_roles)}; {', '.join(TOP[2:])} renew themselves."
        raise UserError(f"There is no role {role[:64]!r} to renew.", why=why)

    def renew() -> None:
        if role:
            with services.trust.edit(role):
                pass
        services.trust.refresh()

    return _changed(services, caller, ("refresh", role or "all"), renew)


def bundle(services: Services) -> dict[str, str]:
    """The files that travel to whoever signs, by path.

    Raises:
        TrustError: there is no root.
    """
    services.trust.root()
    return offline.bundle(services.trust)


def discard(services: Services, caller: Caller) -> TrustInfo:
    """Give up all that waits for signatures."""
    waiting = ", ".join(services.trust.store.staged_roles())
    return _changed(services, caller, ("discard", waiting), services.trust.discard)


def add_signatures(
    services: Services, caller: Caller, role: str, signatures: Mapping[str, str]
) -> TrustInfo:
    """Take signatures of what waits, and publish it when they are enough.

    Raises:
        TrustError: nothing waits, or a signature is none of it by a key of the role.
    """
    return _changed(
        services,
        caller,
        ("sign", role),
        lambda: services.trust.add_signatures(role, signatures),
        keys=sorted(signatures),
    )


def sign_release(services: Services, caller: Caller, release: Release) -> None:
    """Have a registered release signed, where releases are."""
    if services.trust.latest(Root.type) is None:
        return
    path = f"{release.model}/{release.version}"
    role = changes.responsible(services.trust, path)
    found = services.trust.latest(role)
    if found is not None and path in found.signed.targets:
        return
    _changed(
        services,
        caller,
        ("release", release.name),
        lambda: changes.add_release(services.trust, path, release.digest, release.size),
        role=role,
        digest=release.digest,
    )


def require_signed(services: Services, model: str, version: str, digest: str) -> None:
    """Refuse a release that devices would refuse; where nothing is signed, all pass.

    Raises:
        TrustError: it is not signed, or what is published has expired.
    """
    if services.trust.is_initialised:
        check.check(services.trust, model, version, digest)


def standing(services: Services) -> Callable[[str, str], str]:
    """How releases stand, by model and version: `signed`, `waits for signatures`, `unsigned`."""
    trust = services.trust
    roles = (Targets.type, *trust.teams()) if trust.is_initialised else ()
    signed, waiting = set[str](), set[str]()
    for role in roles:
        known, staged = trust.published(role), trust.staged(role)
        signed |= set(known.signed.targets) if known else set()
        waiting |= set(staged.signed.targets) if staged else set()

    def of(model: str, version: str) -> str:
        path = f"{model}/{version}"
        if path in signed:
            return "signed"
        return "waits for signatures" if path in waiting else "unsigned"

    return of


def rotate_key(services: Services, caller: Caller, which: OwnKey) -> TrustInfo:
    """Put a new key in place of the director's or the CA's; the old one stays good meanwhile.

    Raises:
        UserError: there is no root yet, or a rotation is under way.
    """

    def change() -> None:
        own_keys.begin(services, which)
        changes.put_files(services.trust, own_keys.files(services))

    return _changed(services, caller, ("rotate-key", which), change)


def withdraw_key(
    services: Services, caller: Caller, which: OwnKey, *, force: bool = False
) -> TrustInfo:
    """Have the keys before the present one be good no more.

    Args:
        services: the fleet.
        caller: who and why.
        which: the director's key, or the CA's.
        force: withdraw a CA also while devices have certificates of it.

    Raises:
        UserError: there is none, or devices still need it.
    """
    if which is OwnKey.CA and not force:
        _require_renewed(services)

    def change() -> None:
        own_keys.withdraw(services, which)
        changes.put_files(services.trust, own_keys.files(services))

    return _changed(services, caller, ("withdraw-key", which), change, forced=force)


def _require_renewed(services: Services) -> None:
    """Refuse where devices have certificates that another than the present CA issued."""
    device = tables.Device
    query = select(device.id, device.certificate).where(device.revoked_at.is_(None))
    with services.database.read() as session:
        rows = session.execute(query).all()
    old = sorted(name for name, pem in rows if not is_issued_by(pem, services.keys.ca))
    if old:
        shown = ", ".join(old[:5]) + (" ..." if len(old) > len(old[:5]) else "")
        raise UserError(
            "The CA before was not withdrawn.",
            why=f"{len(old)} devices have not renewed their certificates yet: {shown}.",
            fix="They do so within an hour of being online. To cut them off: --force",
        )


def begin(services: Services, *, fresh: bool) -> None:
    """At the start of the fleet: a new one gets a repository with keys online, all are renewed."""
    if fresh:
        init(services, _FLEET, RoleKeys(), RoleKeys())
    elif services.trust.is_initialised:
        changes.put_files(services.trust, own_keys.files(services))
    keep_fresh(services)
    own_keys.settle(services)


def keep_fresh(services: Services) -> None:
    """Renew what will expire and the fleet may sign.

    Raises:
        TrustError: the fleet lacks keys of its own roles.
    """
    renewed = services.trust.refresh()
    if renewed:
        with audited(services, _FLEET, "trust.refresh", "all", published=list(renewed)):
            pass


def _changed(
    services: Services,
    caller: Caller,
    action: tuple[str, str],
    change: Callable[[], object],
    **detail: Any,
) -> TrustInfo:
    change()
    published = services.trust.publish()
    own_keys.settle(services)
    info = show(services)
    waits = [found["role"] for found in info["waiting"]]
    verb, subject = action
    with audited(
        services,
        caller,
        f"trust.{verb}",
        subject,
        published=list(published),
        waiting=waits,
        **detail,
    ):
        pass
    return info


def current_root(services: Services) -> str:
    """The root that new devices are given, JSON; empty where releases are not signed."""
    root = services.trust.store.published(Root.type)
    return root.decode() if root else ""
