"""What operators change: who may sign, and which releases are to be signed.

Each function stages the next version of the roles that it touches; `Repository.publish` makes
public what has signatures enough.
"""

from collections.abc import Mapping, Sequence

import msgspec
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, DelegatedRole, Delegations, Root, Targets
from tuf.api.metadata import TargetFile as Target

from cloud_sync.release.reading import check_model
from cloud_sync.trust.keys import load_public
from edgeml.errors import UserError
from fleet.trust.repository import ONLINE, TOP, Repository

NAME = "x-edgeml-name"  # beside a key in the metadata: whose it is


class RoleKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Who may sign for a role: public keys (PEM) by their owners' names, and how many must.

    Without keys, the fleet makes one and holds it.
    """

    keys: dict[str, str] = {}
    threshold: int = 1


def init(
    repository: Repository,
    root: RoleKeys,
    targets: RoleKeys,
    releases: Mapping[str, tuple[str, int]],
    files: Mapping[str, bytes],
) -> None:
    """Make the first root.

    Args:
        repository: where.
        root: who signs for the keys of all roles.
        targets: who signs releases.
        releases: digest and size of each release's index by `model/version`.
        files: what the fleet says of itself, by target path.

    Raises:
        UserError: there is a root, or the keys and a threshold do not fit.
    """
    if repository.latest(Root.type) is not None:
        raise UserError(
            "The fleet has a TUF root already.",
            fix="Change who signs: edgeml trust rotate root --to KEY.pub",
        )
    made = Root(consistent_snapshot=True)
    for role, given in (
        (Root.type, root),
        (Targets.type, targets),
        *((role, RoleKeys()) for role in ONLINE),
    ):
        _check(given)
        for key in _public(repository, given):
            made.add_key(key, role)
        made.roles[role].threshold = given.threshold
    with repository.edit(Root.type, made):
        pass
    with repository.edit(Targets.type, Targets()) as content:
        for path, (digest, size) in releases.items():
            content.targets[path] = _target(path, digest, size)
    put_files(repository, files)


def put_files(repository: Repository, files: Mapping[str, bytes]) -> None:
    """Have the fleet's own files signed as targets; those that are so already are left."""
    new = {path: Target.from_data(path, data, ["sha256"]) for path, data in files.items()}
    found = repository.latest(Targets.type)
    known: Mapping[str, Target] = found.signed.targets if found else {}
    if all(known.get(path) == target for path, target in new.items()):
        return
    with repository.edit(Targets.type) as content:
        for path, target in new.items():
            content.targets[path] = target
            repository.store.put_content(target.get_prefixed_paths()[0], files[path])


def add_release(repository: Repository, path: str, digest: str, size: int) -> str:
    """Have a release signed, `model/version`, unless it is; returns the role that signs it."""
    target = _target(path, digest, size)
    role = responsible(repository, path)
    found = repository.latest(role)
    if found is None or found.signed.targets.get(path) != target:
        with repository.edit(role) as content:
            content.targets[path] = target
    return role


def responsible(repository: Repository, path: str) -> str:
    """The role that signs a release: the team that its model was given to, else `targets`."""
    found = repository.latest(Targets.type)
    delegations = found.signed.delegations if found else None
    for name, _ in delegations.get_roles_for_target(path) if delegations else ():
        return str(name)
    return Targets.type


def add_key(repository: Repository, role: str, given: RoleKeys) -> None:
    """Let more keys sign for a role; a threshold of 0 leaves it as it is.

    Raises:
        UserError: there is no such role, it is the fleet's own, or key and threshold do not fit.
    """
    _check_role(repository, role, given)
    with repository.edit(_delegator(role)) as content:
        for key in _public(repository, given):
            content.add_key(key, role)
        rule = content.get_delegated_role(role)
        _set_threshold(content, role, given.threshold or rule.threshold)


def rotate(repository: Repository, role: str, given: RoleKeys) -> None:
    """Put new keys in place of a role's keys; without any, the fleet makes one and holds it.

    Raises:
        UserError: there is no such role, it is the fleet's own, or keys and threshold do not fit.
    """
    _check_role(repository, role, given)
    with repository.edit(_delegator(role)) as content:
        for keyid in tuple(content.get_delegated_role(role).keyids):
            content.revoke_key(keyid, role)
        for key in _public(repository, given):
            content.add_key(key, role)
        _set_threshold(content, role, given.threshold)
    if role not in {Root.type, *ONLINE}:
        with repository.edit(role):  # the new keys sign what the old ones signed
            pass


def delegate(repository: Repository, team: str, models: Sequence[str], given: RoleKeys) -> None:
    """Let a team sign the releases of some models, and nobody else.

    Args:
        repository: where.
        team: the role's name.
        models: names of models; a trailing `*` stands for any ending.
        given: the team's keys.

    Raises:
        UserError: the name is taken, or keys and threshold do not fit.
        ReleaseError: a name cannot be that of a team or a model.
    """
    check_model(team)
    for model in models:
        check_model(model.removesuffix("*").rstrip("._-"))
    if team in TOP_LEVEL_ROLE_NAMES or team in repository.teams():
        raise UserError(f"There is a role {team!r} already.", fix="Give the team another name.")
    _check(given)
    paths = [f"{model}/*" for model in models]
    with repository.edit(Targets.type) as content:
        content.delegations = content.delegations or Delegations({}, {})
        content.delegations.roles[team] = DelegatedRole(
            team, [], given.threshold, terminating=True, paths=paths
        )
        for key in _public(repository, given):
            content.add_key(key, team)
    with repository.edit(team, Targets()):
        pass


def _delegator(role: str) -> str:
    return Root.type if role in TOP else Targets.type


def _check_role(repository: Repository, role: str, given: RoleKeys) -> None:
    roles = (*TOP, *repository.teams())
    if role not in roles:
        raise UserError(f"There is no role {role[:64]!r}.", why=f"There are {', '.join(roles)}.")
    if role in ONLINE and given.keys:
        raise UserError(
            f"The keys of the role {role} cannot be given.",
            why="The fleet signs it by itself, day by day, and holds its key.",
            fix=f"Have it make a new one: edgeml trust rotate {role}",
        )
    if role not in ONLINE:
        repository.root()


def _check(given: RoleKeys) -> None:
    number = len(given.keys) or 1
    if not 1 <= given.threshold <= number:
        raise UserError(
            f"A threshold of {given.threshold} was refused.", why=f"The role has {number} keys."
        )


def _set_threshold(content: Root | Targets, role: str, threshold: int) -> None:
    rule = content.get_delegated_role(role)
    if not 1 <= threshold <= len(rule.keyids):
        raise UserError(
            f"A threshold of {threshold} was refused.",
            why=f"The role {role} has {len(rule.keyids)} keys.",
        )
    rule.threshold = threshold


def _public(repository: Repository, given: RoleKeys) -> list[SSlibKey]:
    if not given.keys:
        key = repository.store.make_key()
        key.unrecognized_fields[NAME] = "fleet"
        return [key]
    found = []
    for name, pem in given.keys.items():
        key = SSlibKey.from_crypto(load_public(pem))
        key.unrecognized_fields[NAME] = name
        found.append(key)
    if len({key.keyid for key in found}) < len(found):
        raise UserError("Two of the keys are one.", fix="Each owner makes a key: trust make-key")
    return found


def _target(path: str, digest: str, size: int) -> Target:
    return Target(size, {"sha256": digest.removeprefix("sha256:")}, path)
