"""What people and their tokens may do: four roles, each of which may what those before it may."""

from enum import StrEnum


class Role(StrEnum):
    """A role; `reaches` is the one comparison.

    >>> Role.APPROVER.reaches(Role.OPERATOR), Role.VIEWER.reaches(Role.OPERATOR)
    (True, False)
    """

    VIEWER = "viewer"  # sees
    OPERATOR = "operator"  # registers, configures, commands, rolls out
    APPROVER = "approver"  # lets other people's rollouts go on
    ADMIN = "admin"  # users, trust, what concerns the fleet itself

    def reaches(self, needed: "Role") -> bool:
        """Whether it may do what the needed role may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)

    def at_most(self, other: "Role") -> "Role":
        """The lower of the two."""
        return self if other.reaches(self) else other


_OWNER = "operator"
_OWNERS = frozenset({_OWNER, "console"})


def person_of(actor: str) -> str:
    """The person behind a name in the audit log: the holder of the operator's token is one.

    >>> person_of("alice/ci"), person_of("console")
    ('alice', 'operator')
    """
    person = actor.partition("/")[0]
    return _OWNER if person in _OWNERS else person
