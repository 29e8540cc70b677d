"""The commands `edgeml users ...`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.errors import UserError
from fleet.commands.connection import Why, read_text
from fleet.commands.session import Session, fleet_command
from fleet.roles import Role

if TYPE_CHECKING:
    from fleet.access.resources import NewUser

users_app = typer.Typer(
    help="Say who may use the fleet, in which role, and which devices they see.",
    no_args_is_help=True,
)
UserName = Annotated[str, typer.Argument(metavar="USER", help="Such as alice.")]
RoleOption = Annotated[
    Role,
    typer.Option(
        "--role",
        help="viewer sees; operator rolls out and configures; approver also approves other "
        "people's rollouts; admin also manages users, trust and the fleet itself.",
    ),
]
ScopeOption = Annotated[
    str,
    typer.Option("--scope", help="Label selector of the devices they see, such as site=north."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="File with the password; otherwise one is made."),
]


@fleet_command(users_app, "list")
def list_users(fleet: Session) -> None:
    """List the users."""
    from fleet.show_access import users_text

    found = fleet.client.users()
    fleet.show(found, users_text(found))


@fleet_command(users_app, "add")
def add_user(
    fleet: Session,
    name: UserName,
    *,
    role: RoleOption = Role.VIEWER,
    scope: ScopeOption = "",
    password_file: PasswordFile = None,
    why: Why = "",
) -> None:
    """Add a user, with a password that must be changed at the first login.

    Example: edgeml users add alice --role operator --scope site=north
    """
    password = _password(password_file)
    made = fleet.client.add_user(name, role, scope=scope, password=password, reason=why)
    fleet.show(made, _given(made))


@fleet_command(users_app, "set-role")
def set_role(
    fleet: Session,
    name: UserName,
    role: Annotated[Role, typer.Argument(help="The new role.")],
    *,
    why: Why = "",
) -> None:
    """Give a user another role; their sessions end, their tokens reach no further."""
    found = fleet.client.change_user(name, role=role, reason=why)
    fleet.show(found, f"{name} is {found['role']} now.")


@fleet_command(users_app, "set-scope")
def set_scope(
    fleet: Session,
    name: UserName,
    scope: Annotated[str, typer.Argument(help="Label selector; '' is the whole fleet.")],
    *,
    why: Why = "",
) -> None:
    """Have a user see other devices; their sessions end, their tokens reach no further."""
    found = fleet.client.change_user(name, scope=scope, reason=why)
    seen = f"the devices with {scope}" if scope else "the whole fleet"
    fleet.show(found, f"{name} sees {seen} now.")


@fleet_command(users_app, "passwd")
def passwd(
    fleet: Session, name: UserName, *, password_file: PasswordFile = None, why: Why = ""
) -> None:
    """Give a user a new password, to be changed at the next login; their sessions end.

    To change your own: edgeml login --change-password
    """
    made = fleet.client.reset_password(name, _password(password_file), why)
    fleet.show(made, _given(made))


@fleet_command(users_app, "disable")
def disable(fleet: Session, name: UserName, *, why: Why = "") -> None:
    """Let a user in no more: sessions and tokens end at once. The audit log keeps the name."""
    found = fleet.client.disable_user(name, why)
    fleet.show(found, f"{name} is let in no more.")


@fleet_command(users_app, "enable")
def enable(fleet: Session, name: UserName, *, why: Why = "") -> None:
    """Let a disabled user in again; their tokens stay ended."""
    found = fleet.client.enable_user(name, why)
    fleet.show(found, f"{name} may log in again.")


def _password(file: Path | None) -> str:
    if file is None:
        return ""
    password = read_text(file).rstrip("\r\n")
    if not password:
        raise UserError(f"There is no password in {file}.")
    return password


def _given(made: "NewUser") -> str:
    name = made["name"]
    if not made["password"]:
        return f"{name} logs in with the password of that file, and changes it then."
    return f"{name} logs in once with this password, which is not shown again:\n{made['password']}"
