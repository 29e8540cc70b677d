"""The pages that a browser logs in and out with, before it comes to the console."""

from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from edgeml.errors import EdgemlError, UserError
from fleet.access import Access, pages
from fleet.access.door import is_same_origin, with_session, without_session
from fleet.access.guard import principal_of
from fleet.access.needs import needs, open_to_all
from fleet.access.oidc import FLOW_S
from fleet.access_routes import change_password, log_out
from fleet.problem import TooOften, of_error, status_of
from fleet.roles import Role
from fleet.services import users
from fleet.services.context import Services
from fleet.services.credentials import Principal

FLOW_COOKIE = "edgeml_oidc"
_FLOW_PATH = "/login/oidc"
_CALLBACK = "/login/oidc/callback"
_MAX_FORM = 1 << 14


def login_routes(services: Services, access: Access) -> list[Route]:
    """The routes of the pages."""
    made = _Pages(services, access)
    table = (
        ("/login", "GET", made.ask),
        ("/login", "POST", made.log_in),
        (_FLOW_PATH, "GET", made.begin_oidc),
        (_CALLBACK, "GET", made.finish_oidc),
        ("/login/password", "GET", made.ask_password),
        ("/login/password", "POST", made.change_password),
        ("/logout", "GET", made.ask_logout),
        ("/logout", "POST", made.log_out),
    )
    return [
        Route(path, endpoint, methods=[method], include_in_schema=False)
        for path, method, endpoint in table
    ]


class _Pages:
    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access
        self._callback = f"{services.console_url}{_CALLBACK}"

    @open_to_all
    async def ask(self, request: Request) -> Response:
        return self._login(back=request.query_params.get("next", ""))

    @open_to_all
    async def log_in(self, request: Request) -> Response:
        if not is_same_origin(request.headers):
            return self._login("The form came from another site.", 403)
        form = await _form(request)
        try:
            self._access.require_login(form.get("user", ""))
            found = await run_in_threadpool(
                users.log_in, self._services, form.get("user", ""), form.get("password", "")
            )
        except TooOften as error:
            return of_error(error)
        except EdgemlError as error:
            back = form.get("next", "")
            return self._login(error.why or error.what, status_of(error), back=back)
        return await self._enter(request, found, form.get("next", ""))

    @open_to_all
    async def begin_oidc(self, request: Request) -> Response:
        if self._access.oidc is None:
            return self._login("No OpenID provider is set up here.", 404)
        try:
            url, cookie = await run_in_threadpool(self._access.oidc.begin, self._callback)
        except EdgemlError as error:
            return self._login(f"{error.what} {error.why}", status_of(error))
        response = RedirectResponse(url, 303)
        response.set_cookie(
            FLOW_COOKIE,
            cookie,
            max_age=int(FLOW_S),
            path=_FLOW_PATH,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    @open_to_all
    async def finish_oidc(self, request: Request) -> Response:
        if self._access.oidc is None:
            return self._login("No OpenID provider is set up here.", 404)
        cookie = request.cookies.get(FLOW_COOKIE, "")
        try:
            person = await run_in_threadpool(
                self._access.oidc.finish, str(request.url), self._callback, cookie
            )
            found = await run_in_threadpool(users.log_in_by_oidc, self._services, person)
        except EdgemlError as error:
            return self._login(f"{error.what} {error.why}", status_of(error))
        response = await self._enter(request, found)
        response.delete_cookie(FLOW_COOKIE, path=_FLOW_PATH)
        return response

    @needs(Role.VIEWER)
    async def ask_password(self, _request: Request) -> Response:
        return pages.change()

    @needs(Role.VIEWER)
    async def change_password(self, request: Request) -> Response:
        form, principal = await _form(request), principal_of(request)
        old, new = form.get("old", ""), form.get("new", "")
        try:
            found = await run_in_threadpool(change_password, self._services, principal, old, new)
        except EdgemlError as error:
            return pages.change(wrong=f"{error.what} {error.why}", status=status_of(error))
        return await self._enter(request, found)

    @needs(Role.VIEWER)
    async def ask_logout(self, request: Request) -> Response:
        principal = principal_of(request)
        return pages.logout(principal.actor, has_password=bool(principal.user))

    @needs(Role.VIEWER)
    async def log_out(self, request: Request) -> Response:
        try:
            await run_in_threadpool(log_out, self._services, principal_of(request))
        except UserError as error:
            return of_error(error)
        return without_session(RedirectResponse("/login", 303))

    async def _enter(self, request: Request, principal: Principal, back: str = "") -> Response:
        secret = await run_in_threadpool(self._access.make_session, principal)
        response = RedirectResponse(pages.back_to(back), 303)
        return with_session(response, secret, request.url.scheme)

    def _login(self, wrong: str = "", status: int = 200, *, back: str = "") -> Response:
        oidc = self._access.oidc is not None
        return pages.login(oidc=oidc, wrong=wrong, status=status, back=back)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; empty where it is too long, or none."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MAX_FORM:
            return {}
    try:
        found = parse_qs(data.decode(), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}
