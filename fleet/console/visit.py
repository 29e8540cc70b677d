"""One open page: who looks, what was asked for, how it reads, acts and stays live."""

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

import nicegui
from nicegui import ui
from nicegui.slot import Slot
from starlette.requests import Request

from edgeml.errors import EdgemlError
from fleet.access.guard import principal_of
from fleet.access.scope import require_device, require_rollout
from fleet.console import parts
from fleet.console.feed import EVERY_S, Readings
from fleet.console.masks import hide_passwords, without_passwords
from fleet.problem import Forbidden
from fleet.roles import Role
from fleet.rollouts.selector import Selector
from fleet.services.context import Caller, Services

P = ParamSpec("P")
T = TypeVar("T")
TITLE = "edgeml fleet"
_LOOK_AGAIN_S = 2.0


class Ended(Forbidden):
    """The visitor's session has ended; the door closes the page's socket, and the page says it."""


class Visit:
    """One open page: who looks, what was asked for, how it reads, acts and stays live."""

    def __init__(self, services: Services, readings: Readings, request: Request) -> None:
        self.services = services
        self.principal = principal_of(request)
        self.request = request
        self._readings = readings
        self._query = dict(request.query_params)
        self.heading: ui.html | None = None
        self._is_built = False
        self._looked_at = time.monotonic()
        self._waiting: list[tuple[Slot, float, Callable[[], Awaitable[None]]]] = []

    @property
    def scope(self) -> Selector:
        """What the visitor may see."""
        return self.principal.scope

    def caller(self, reason: str = "") -> Caller:
        """The visitor, as services want it."""
        return self.principal.caller(reason)

    def may(self, role: Role) -> bool:
        """Whether the visitor's role reaches what something needs."""
        return self.principal.role.reaches(role)

    def query(self, name: str, default: str = "") -> str:
        """A value of the query string."""
        return self._query.get(name, default)

    def remember(self, **values: str) -> None:
        """Put values into the query string, empty ones out of it: the address stays a deep link."""
        self._query = {k: v for k, v in {**self._query, **values}.items() if v}
        query = f"?{urlencode(self._query)}" if self._query else ""
        script = f"history.replaceState({{}}, '', location.pathname + {json.dumps(query)})"
        ui.run_javascript(script)

    def title(self, text: str) -> None:
        """Replace the page's heading."""
        if self.heading is not None:
            self.heading.set_content(parts.escape(text))
        ui.page_title(f"{text} | {TITLE}")

    async def read(
        self, function: Callable[Concatenate[Services, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What a service function gives; on a worker thread. Pass `scope=visit.scope` yourself.

        Viewers get it without the passwords of addresses, here as in `shared`.

        Raises:
            Ended: the session has, or the visitor's role or scope is another.
            NotFound: the device or rollout of the page's path has left the visitor's scope.
        """
        await self._look_again()
        call = functools.partial(function, self.services, *args, **kwargs)
        return await asyncio.to_thread(self._reading(call))

    async def shared(self, key: Hashable, read: Callable[[], T], every_s: float = EVERY_S) -> T:
        """The same for all open pages of this scope: read at most every `every_s` seconds.

        Raises as `read` does.
        """
        await self._look_again()
        whose = (self.scope.text, self.may(Role.OPERATOR), key)
        return await self._readings.get(whose, self._reading(read), every_s)

    async def act(
        self,
        role: Role,
        because: str,
        function: Callable[Concatenate[Services, Caller, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | None:
        """Change something as the visitor; a refusal is shown as a toast and gives None.

        Role, session and the scope of the device or rollout that the page's path names are
        checked here each time; other devices are for `require_devices`.

        Args:
            role: what the visitor must at least be, as at the REST route.
            because: the reason for the audit log; may be empty where the service takes none.
            function: of a service: `(services, caller, *args, **kwargs)`.
            args: its own.
            kwargs: its own.
        """
        call = functools.partial(function, self.services, self.caller(because), *args, **kwargs)

        def checked() -> T:
            self._require_path(changes=True)
            return call()

        try:
            self.require(role)
            return await asyncio.to_thread(checked)
        except EdgemlError as error:
            parts.refused(error)
            return None

    async def check_path(self) -> None:
        """Refuse a page of a device or rollout outside the scope.

        Raises:
            NotFound: it is.
        """
        await asyncio.to_thread(self._require_path, changes=False)

    async def require_devices(self, names: Iterable[str]) -> None:
        """Refuse devices that are outside the visitor's scope.

        Raises:
            NotFound: one of them is.
        """
        await asyncio.to_thread(self._require_devices, list(names))

    def require(self, role: Role) -> None:
        """Refuse a visitor whose role is too small.

        Raises:
            Forbidden: it is.
        """
        if not self.may(role):
            raise Forbidden(
                "You may not do this.",
                why=f"You are {self.principal.role}; it needs the role {role}.",
                fix="Ask an admin: edgeml users set-role",
            )

    def live(self, refresh: Callable[[], Awaitable[None]], every_s: float = EVERY_S) -> None:
        """Call `refresh` every so often while the page is open; one that fails is shown once."""
        failed = ""

        async def turn() -> None:
            nonlocal failed
            try:
                await refresh()
                failed = ""
            except EdgemlError as error:
                if str(error) != failed and not isinstance(error, Ended):
                    failed = str(error)
                    parts.refused(error)

        self._waiting.append((nicegui.context.slot, every_s, turn))
        if self._is_built:
            self.built()

    def built(self) -> None:
        """Begin what was told with `live`: a timer before would send the page unfinished."""
        self._is_built = True
        waiting, self._waiting = self._waiting, []
        for slot, every_s, turn in waiting:
            if not slot.parent.is_deleted:
                with slot:
                    ui.timer(every_s, turn)

    def _reading(self, read: Callable[[], T]) -> Callable[[], T]:
        """A reading as the visitor may see it."""
        if self.may(Role.OPERATOR):
            return read

        def masked() -> T:
            try:
                return without_passwords(read())
            except EdgemlError as error:
                raise hide_passwords(error) from error.__cause__

        return masked

    async def _look_again(self) -> None:
        """Refuse to go on showing what the visitor may see no more."""
        if time.monotonic() - self._looked_at >= _LOOK_AGAIN_S:
            await asyncio.to_thread(self._require_path, changes=False)
            self._looked_at = time.monotonic()

    def _require_path(self, *, changes: bool) -> None:
        """Refuse an ended session, and a device or rollout of the path outside the scope."""
        if not self.principal.is_good():
            raise Ended(
                "Your session has ended.",
                why="It expired, somebody ended it, or your role changed.",
                fix="Load the page again and log in.",
            )
        parts_of = self.request.path_params
        if self.scope.requirements and "device" in parts_of:
            self._require_devices([parts_of["device"]])
        if self.scope.requirements and "rollout" in parts_of:
            with self.services.database.read() as session:
                require_rollout(session, parts_of["rollout"], self.scope, changes=changes)

    def _require_devices(self, names: list[str]) -> None:
        with self.services.database.read() as session:
            for name in names:
                require_device(session, name, self.scope)
