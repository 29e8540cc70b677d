"""Holds each route to what it needs: a role, the whole fleet, the device or rollout in its path."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgeml.errors import EdgemlError
from fleet.access.needs import UNDECLARED, Need, need_of, needs
from fleet.access.scope import require_device, require_rollout
from fleet.problem import Forbidden, of_error
from fleet.roles import Role
from fleet.services.context import Caller, Services
from fleet.services.credentials import Principal

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """A dependency of every route below `/api/v1`; `fleet.access.needs` says what each needs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, request: Request) -> None:
        """Let a request through.

        Raises:
            Forbidden: the caller's role or scope is too small.
            NotFound: the device or the rollout is outside the scope.
        """
        need = need_of(request.scope["endpoint"]) or UNDECLARED
        if need.open:
            return
        principal = principal_of(request)
        check(need, principal)
        if principal.scope.requirements and request.path_params.keys() & {"device", "rollout"}:
            changes = request.method not in _READS
            parameters = request.path_params
            await run_in_threadpool(self._check_scope, principal, parameters, changes=changes)

    def _check_scope(
        self, principal: Principal, parameters: Mapping[str, Any], *, changes: bool
    ) -> None:
        with self._services.database.read() as session:
            if "device" in parameters:
                require_device(session, parameters["device"], principal.scope)
            if "rollout" in parameters:
                require_rollout(session, parameters["rollout"], principal.scope, changes=changes)


def check(need: Need, principal: Principal) -> None:
    """Refuse a caller whose role or scope is too small.

    Raises:
        Forbidden: it is.
    """
    if not principal.role.reaches(need.role):
        raise Forbidden(
            "You may not do this.",
            why=f"You are {principal.role}; it needs the role {need.role}.",
            fix="Ask an admin: edgeml users set-role, or a token with that role.",
        )
    if need.whole_fleet and principal.scope.requirements:
        raise Forbidden(
            "You may not do this.",
            why=f"It concerns the whole fleet, and your scope is {principal.scope}.",
            fix="Ask somebody whose scope is the whole fleet.",
        )


def principal_of(request: Request) -> Principal:
    """Who sends a request that the door let in."""
    found = request.state.principal
    assert isinstance(found, Principal)
    return found


def caller_of(request: Request, reason: str = "") -> Caller:
    """Who sends a request, and why, as services want it."""
    return principal_of(request).caller(reason)


def guarded(route: Route, role: Role, *, whole_fleet: bool = False) -> Route:
    """A route of Starlette's own that needs a role."""
    inner: Callable[[Request], Awaitable[Response]] = route.endpoint

    @needs(role, whole_fleet=whole_fleet)
    async def endpoint(request: Request) -> Response:
        try:
            check(Need(role, whole_fleet), principal_of(request))
        except EdgemlError as error:
            return of_error(error, "DENIED")
        return await inner(request)

    methods = sorted(route.methods or ())
    return Route(route.path, endpoint, methods=methods, name=route.name)
