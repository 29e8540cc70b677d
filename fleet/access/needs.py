"""What a route of the operators' listener needs of its caller, said beside the route.

    @routes.post("/devices/{device}/reboot")
    @needs(Role.OPERATOR)
    def reboot(request: Request, device: str) -> DeviceInfo: ...

`fleet.access.guard` holds callers to it; a route that says nothing is for admins alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fleet.roles import Role

_MARK = "__edgeml_need__"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Need:
    """A role; `whole_fleet` refuses callers whose scope leaves out devices.

    `open` routes are for whoever is not logged in: the way in.
    """

    role: Role
    whole_fleet: bool = False
    open: bool = False


UNDECLARED = Need(Role.ADMIN, whole_fleet=True)


def needs(role: Role, *, whole_fleet: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare what a route needs; stands below the route's own decorator.

    A device or a rollout in the path (`{device}`, `{rollout}`) that is outside the caller's scope
    is not found, without any word of the route. What a route lists or takes in its body, it
    narrows itself, with `caller.scope` (`fleet.access.scope`).
    """
    return _marked(Need(role, whole_fleet))


def open_to_all(endpoint: Endpoint) -> Endpoint:
    """Declare that a route answers also those whom nobody knows."""
    return _marked(Need(Role.VIEWER, open=True))(endpoint)


def need_of(endpoint: Callable[..., Any]) -> Need | None:
    """What a route needs; none where it says nothing."""
    found = getattr(endpoint, _MARK, None)
    assert found is None or isinstance(found, Need)
    return found


def _marked(need: Need) -> Callable[[Endpoint], Endpoint]:
    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _MARK, need)
        return endpoint

    return mark
