"""Four eyes: who lets a rollout go on is somebody else than who made it, or had it begin."""

from typing import NamedTuple

from fleet.problem import Forbidden
from fleet.roles import Role, person_of
from fleet.services.context import Caller


class _Deed(NamedTuple):
    """What takes another person, in the words of its refusals."""

    may_not: str
    nobody: str
    noun: str


_APPROVAL = _Deed(
    "You may not approve rollouts.", "Nobody approves a rollout of their own.", "An approval"
)
_OVERRIDE = _Deed(
    "You may not override gates.",
    "Nobody overrides a gate of their own rollout, where its policy asks for approval.",
    "An override",
)


def check_approval(caller: Caller, created_by: str, started_by: str = "") -> None:
    """Refuse an approval by one who may not, or of one's own rollout.

    Args:
        caller: who approves, and why.
        created_by: who created the rollout, as the audit log names them.
        started_by: who had it begin, where it was a draft; empty where it was none.

    Raises:
        Forbidden: the role is too low, or it is the caller's own: an admin may approve that, too,
            with a written reason.
    """
    _require_another(_APPROVAL, caller, created_by, started_by)


def check_override(caller: Caller, created_by: str, started_by: str = "") -> None:
    """Refuse to let a gate pass in one's own rollout; for those whose policy asks for approval.

    Whoever approves relies on the gates: without this rule its maker could let them pass alone.

    Args:
        caller: who overrides, and why.
        created_by: as for `check_approval`.
        started_by: as for `check_approval`.

    Raises:
        Forbidden: as `check_approval`.
    """
    _require_another(_OVERRIDE, caller, created_by, started_by)


def _require_another(deed: _Deed, caller: Caller, created_by: str, started_by: str) -> None:
    if not caller.role.reaches(Role.APPROVER):
        raise Forbidden(
            deed.may_not,
            why=f"You are {caller.role}; that needs the role {Role.APPROVER}.",
            fix="Ask an approver or an admin.",
        )
    if caller.person == person_of(created_by):
        why = f"It was created by {created_by}"
    elif caller.person == person_of(started_by):
        why = f"It was started by {started_by}"
    else:
        return
    if caller.role is not Role.ADMIN:
        raise Forbidden(deed.nobody, why=f"{why}.", fix="Ask another approver, or an admin.")
    if not caller.reason.strip():
        raise Forbidden(
            f"{deed.noun} of your own rollout needs a reason.",
            why=f"{why}; the reason is kept in the audit log.",
            fix="Say why nobody else can, with --why.",
        )
