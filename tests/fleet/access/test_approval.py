import pytest

from fleet.access.approval import check_approval, check_override
from fleet.problem import Forbidden
from fleet.roles import Role
from fleet.services import Caller


@pytest.mark.parametrize(
    ("actor", "role", "reason", "created_by", "refusal"),
    [
        ("bob", Role.APPROVER, "", "alice", ""),
        ("bob", Role.APPROVER, "", "operator", ""),
        ("bob", Role.ADMIN, "", "alice/ci", ""),
        ("bob/ci", Role.APPROVER, "", "alice", ""),
        ("bob", Role.OPERATOR, "a reason", "alice", "needs the role approver"),
        ("bob", Role.VIEWER, "a reason", "alice", "needs the role approver"),
        ("alice", Role.APPROVER, "a reason", "alice", "created by alice"),
        ("alice/ci", Role.APPROVER, "a reason", "alice", "created by alice"),
        ("alice", Role.APPROVER, "a reason", "alice/ci", "created by alice/ci"),
        ("alice/a", Role.APPROVER, "a reason", "alice/b", "created by alice/b"),
        ("alice", Role.ADMIN, " ", "alice", "the reason is kept"),
        ("alice", Role.ADMIN, "nobody else is awake", "alice", ""),
        ("operator", Role.ADMIN, "", "console", "the reason is kept"),
        ("operator/ci", Role.APPROVER, "a reason", "operator", "created by operator"),
        ("console", Role.ADMIN, "only I am here", "operator", ""),
        ("alicia", Role.APPROVER, "", "alice", ""),
    ],
)
def test_nobody_approves_a_rollout_of_their_own(
    actor: str, role: Role, reason: str, created_by: str, refusal: str
) -> None:
    caller = Caller(actor, reason, role=role)
    if not refusal:
        check_approval(caller, created_by)
        return
    with pytest.raises(Forbidden) as found:
        check_approval(caller, created_by)
    assert refusal in str(found.value)


def test_nor_one_that_they_had_begin() -> None:
    check_approval(Caller("carol", role=Role.APPROVER), "alice", "bob")
    for actor in ("alice", "bob", "bob/ci"):
        with pytest.raises(Forbidden, match="Nobody approves a rollout of their own"):
            check_approval(Caller(actor, role=Role.APPROVER), "alice", "bob")
    with pytest.raises(Forbidden, match="started by bob"):
        check_approval(Caller("bob", role=Role.ADMIN), "alice", "bob")
    check_approval(Caller("bob", "nobody else is awake", role=Role.ADMIN), "alice", "bob")


def test_nor_overrides_a_gate_of_one() -> None:
    check_override(Caller("carol", role=Role.APPROVER), "alice", "bob")
    for actor in ("alice", "alice/ci", "bob"):
        with pytest.raises(Forbidden, match="Nobody overrides a gate of their own rollout"):
            check_override(Caller(actor, "it is fine", role=Role.APPROVER), "alice", "bob")
    with pytest.raises(Forbidden, match="needs the role approver"):
        check_override(Caller("dave", "it is fine", role=Role.OPERATOR), "alice")
    check_override(Caller("alice", "nobody else is awake", role=Role.ADMIN), "alice")
