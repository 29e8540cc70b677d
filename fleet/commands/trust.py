"""The commands `edgeml trust ...`: who signs releases, and the signing itself.

`make-key` and `sign` need no fleet and no network; they are for the machines that hold keys, and
import neither a server nor an HTTP client.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeml.errors import TrustError, UserError
from edgeml.plain import plain
from fleet.commands.connection import (
    AsJson,
    Why,
    read_text,
    show,
)
from fleet.commands.session import Session, fleet_command

if TYPE_CHECKING:
    from cloud_sync.trust import PrivateKey
    from fleet.client import FleetClient
    from fleet.trust.changes import RoleKeys
    from fleet.trust.offline import ToSign
    from fleet.trust.status import TrustInfo

PASSPHRASE = "EDGEML_TRUST_PASSPHRASE"
trust_app = typer.Typer(help="Say who signs releases, and sign them.", no_args_is_help=True)

Role = Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp or a team.")]
OwnKeyName = Annotated[Literal["director", "ca"], typer.Argument(help="Whose key.")]
PublicKeys = Annotated[
    list[Path] | None, typer.Option("--to", metavar="KEY.pub", help="May be given again.")
]
Threshold = Annotated[int, typer.Option(min=1, help="How many of the keys must sign.")]


@trust_app.command("make-key")
def make_key(
    path: Annotated[Path, typer.Argument(metavar="NAME.key", help="The new key's file.")],
    *,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help=f"Encrypt it; asked for, or from ${PASSPHRASE}.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key (Ed25519): NAME.key stays with its owner, NAME.pub is for everyone."""
    from cloud_sync.release import write_atomically
    from cloud_sync.trust import generate, save_key
    from cloud_sync.trust.keys import public_pem

    public = path.with_suffix(".pub")
    for file in (path, public):
        if file.exists():
            raise UserError(f"There is a file {file} already.", fix="Name another one.")
    if path == public:
        raise UserError(f"{path} cannot be a key's name.", fix="Write NAME.key.")
    secret = _ask_passphrase(path, new=True) if passphrase else ""
    key = generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_key(key, path, secret)
        write_atomically(public, public_pem(key.public_key()).encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written.", why=f"{error.strerror}.") from None
    text = f"{path} is the key: keep it off the network, and a copy elsewhere.\n{public} is for all"
    show({"key": str(path), "public": str(public)}, f"{text}.", as_json=as_json)


@fleet_command(trust_app, "init")
def init(
    fleet: Session,
    *,
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", metavar="KEY.pub", help="Signs for all keys; may be given again."),
    ] = None,
    root_threshold: Threshold = 1,
    targets: Annotated[
        list[Path] | None,
        typer.Option("--targets", metavar="KEY.pub", help="Signs releases; may be given again."),
    ] = None,
    targets_threshold: Threshold = 1,
    why: Why = "",
) -> None:
    """Begin to sign releases: from then on no rollout begins with one that is not.

    Without keys the fleet makes them and holds them, which is fine to try. A new fleet has done so
    by itself.
    """
    signs_keys = _role_keys(root, root_threshold)
    signs_releases = _role_keys(targets, targets_threshold)
    info = fleet.client.trust_init(signs_keys, signs_releases, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "show")
def show_trust(
    fleet: Session,
) -> None:
    """Show who signs releases, until when, and what waits for whose signature."""
    info = fleet.client.trust()
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "add-key")
def add_key(
    fleet: Session,
    role: Role,
    keys: Annotated[list[Path], typer.Argument(metavar="KEY.pub...", help="Public keys.")],
    *,
    threshold: Annotated[
        int, typer.Option(min=0, help="How many must sign from then on; 0: as many as before.")
    ] = 0,
    why: Why = "",
) -> None:
    """Let more keys sign for a role."""
    given = _role_keys(keys, threshold)
    info = fleet.client.trust_add_key(role, given, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "rotate")
def rotate(
    fleet: Session,
    role: Role,
    *,
    to: PublicKeys = None,
    threshold: Threshold = 1,
    why: Why = "",
) -> None:
    """Put new keys in place of a role's: to take root and targets offline, or after a theft.

    Without --to the fleet makes a key and holds it, as it always does for snapshot and timestamp.
    """
    given = _role_keys(to, threshold)
    info = fleet.client.trust_rotate(role, given, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "rotate-key")
def rotate_key(
    fleet: Session,
    which: OwnKeyName,
    *,
    why: Why = "",
) -> None:
    """Put a new key in place of one that devices know: the director's, or the CA's.

    It signs as soon as the list `targets` that names it is public. The key before stays good, so
    that devices follow in their own time, also those that are away; then withdraw it.
    """
    info = fleet.client.trust_rotate_key(which, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "withdraw-key")
def withdraw_key(
    fleet: Session,
    which: OwnKeyName,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also while devices have certificates of an old CA.")
    ] = False,
    why: Why = "",
) -> None:
    """End the overlap of a rotation: what the key before signs is refused from then on.

    After a theft, withdraw right after rotating.
    """
    info = fleet.client.trust_withdraw_key(which, why, force=force)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "delegate")
def delegate(
    fleet: Session,
    team: Annotated[str, typer.Argument(help="The team's name.")],
    *,
    model: Annotated[
        list[str], typer.Option("--model", help="A model, or vision-*; may be given again.")
    ],
    to: PublicKeys = None,
    threshold: Threshold = 1,
    why: Why = "",
) -> None:
    """Let a team sign the releases of its models with its own keys."""
    given = _role_keys(to, threshold)
    info = fleet.client.trust_delegate(team, model, given, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "refresh")
def refresh(
    fleet: Session,
    *,
    role: Annotated[
        str, typer.Option(help="Make this role's next version, to be signed offline.")
    ] = "",
    why: Why = "",
) -> None:
    """Renew what will expire. What the fleet may sign it renews by itself, before it is time."""
    info = fleet.client.trust_refresh(role, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "export")
def export(
    fleet: Session,
    folder: Annotated[Path, typer.Argument(help="A new folder, for instance on a USB stick.")],
) -> None:
    """Write what waits for signatures into a folder that travels to the keys."""
    from fleet.trust import offline

    files = fleet.client.trust_waiting()
    waiting = sorted(Path(name).stem for name in files if name.startswith("staged/"))
    if not waiting:
        raise UserError(
            "Nothing waits for a signature.", why="All that was asked for is signed.",
            fix="See who signs what: edgeml trust show",
        )  # fmt: skip
    offline.write(files, folder)
    text = f"{', '.join(waiting)} wait in {folder}. Where the key is:\n"
    text += f"  edgeml trust sign {folder} --key NAME.key"
    fleet.show({"folder": str(folder), "waiting": waiting}, text)


@trust_app.command("sign")
def sign(
    folder: Annotated[Path, typer.Argument(help="The folder that was exported.")],
    *,
    key: Annotated[Path, typer.Option("--key", metavar="NAME.key", help="Your key.")],
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign what waits in a folder, after showing what it says. Needs no network."""
    from fleet.trust import offline

    private = _load(key)
    repository = offline.read(folder)
    waiting = offline.to_sign(repository, private)
    signed: list[dict[str, Any]] = []
    for item in waiting:
        if not _agreed(item, yes=yes):
            continue
        missing = offline.sign(repository, item.role, private)
        signed.append({"role": item.role, "changes": item.changes, "missing": missing})
    text = [
        f"{s['role']} is signed" + (f"; {s['missing']} more must sign" if s["missing"] else "")
        for s in signed
    ]
    text += ["Nothing was signed."] if not signed else []
    text += ["This key has signed all of it before."] if not waiting else []
    text += [f"On a machine that reaches the fleet: edgeml trust publish {folder}"]
    show({"signed": signed}, "\n".join(text), as_json=as_json)


def sign_pushed(
    client: "FleetClient", folder: Path, version: str | None, key: Path, why: str
) -> None:
    """Sign a release that was just pushed with its owner's key, and nothing else unseen.

    Raises:
        TrustError: the key signs nothing of what waits.
    """
    from cloud_sync.release import Layout
    from fleet.trust import offline

    private = _load(key)
    release = Layout.open(folder).release(version)
    expected = [f"+ {release.model}:{release.version} is {release.digest}"]
    with tempfile.TemporaryDirectory() as name:
        stick = Path(name) / "stick"
        offline.write(client.trust_waiting(), stick)
        repository = offline.read(stick)
        for item in offline.to_sign(repository, private):
            if _agreed(item, yes=item.changes == expected):
                offline.sign(repository, item.role, private)
                client.trust_signatures(item.role, offline.signatures(repository)[item.role], why)


def _agreed(item: "ToSign", *, yes: bool) -> bool:
    """Show what a signature would say; returns whether it shall be given."""
    lines = [f"{item.role}, version {item.version}, good until {item.expires}", item.since]
    typer.echo(plain("\n".join([*lines, *(f"  {line}" for line in item.changes)])), err=True)
    return yes or typer.confirm(f"Sign {item.role}?", err=True)


@fleet_command(trust_app, "publish")
def publish(
    fleet: Session,
    folder: Annotated[Path, typer.Argument(help="The folder that was signed.")],
    *,
    why: Why = "",
) -> None:
    """Hand in a folder's signatures; what has enough of them is published."""
    from fleet.trust import offline

    handed = offline.signatures(offline.read(folder))
    info = fleet.client.trust()
    for role, found in handed.items():
        if any(waiting["role"] == role for waiting in info["waiting"]):
            info = fleet.client.trust_signatures(role, found, why)
    _tell(info, as_json=fleet.as_json)


@fleet_command(trust_app, "discard")
def discard(
    fleet: Session,
    *,
    why: Why = "",
) -> None:
    """Give up all that waits for signatures; what is published stays."""
    info = fleet.client.trust_discard(why)
    _tell(info, as_json=fleet.as_json)


def _role_keys(paths: list[Path] | None, threshold: int) -> "RoleKeys":
    from fleet.trust.changes import RoleKeys

    keys = {path.stem: read_text(path) for path in paths or ()}
    if len(keys) < len(paths or ()):
        raise UserError("Two of the keys have one name.", fix="Name each file after its owner.")
    for path in paths or ():
        if "PRIVATE KEY" in keys[path.stem]:
            raise TrustError(
                f"{path} is a private key.",
                why="It must not leave its owner.",
                fix=f"Give its public half: {path.with_suffix('.pub')}",
            )
    return RoleKeys(keys=keys, threshold=threshold)


def _load(path: Path) -> "PrivateKey":
    from cloud_sync.trust import load_key
    from cloud_sync.trust.keys import is_locked

    return load_key(path, _ask_passphrase(path, new=False) if is_locked(path) else "")


def _ask_passphrase(path: Path, *, new: bool) -> str:
    found = os.environ.get(PASSPHRASE, "")
    if found:
        return found
    asked: str = typer.prompt(
        f"Passphrase of {path.name}", hide_input=True, confirmation_prompt=new, err=True
    )
    return asked


def _tell(info: "TrustInfo", *, as_json: bool) -> None:
    from fleet.trust.show import trust_text

    show(info, trust_text(info), as_json=as_json)
