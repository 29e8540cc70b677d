"""Four eyes: who lets a rollout go on is somebody else than who made it, or had it begin."""

from fleet.problem import Forbidden
from fleet.roles import Role, person_of
from fleet.services.context import Caller


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
    if not caller.role.reaches(Role.APPROVER):
        raise Forbidden(
            "You may not approve rollouts.",
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
        raise Forbidden(
            "Nobody approves a rollout of their own.",
            why=f"{why}.",
            fix="Ask another approver, or an admin.",
        )
    if not caller.reason.strip():
        raise Forbidden(
            "An approval of your own rollout needs a reason.",
            why=f"{why}; the reason is kept in the audit log.",
            fix="Say why nobody else can, with --why.",
        )
