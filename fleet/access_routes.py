"""The REST API of users, tokens and sessions."""

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from fleet.access import Access
from fleet.access.door import without_session
from fleet.access.guard import caller_of, principal_of
from fleet.access.needs import needs, open_to_all
from fleet.access.resources import Login, Me, NewToken, NewUser, TokenInfo, UserInfo
from fleet.problem import Conflict
from fleet.resources import LoginLink, Page
from fleet.rest.cursors import After, Limit, paged
from fleet.rest.requests import ChangeRequest, Reason, WithReason, why
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import credentials, tokens, users
from fleet.services.audit import audited
from fleet.services.context import Services
from fleet.services.credentials import Kind, Principal

Secret = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(max_length=64)]
ScopeText = Annotated[str, Field(max_length=4096, description="A label selector; empty: all.")]


class LoginRequest(WithReason):
    """A user's name and password."""

    user: Name
    password: Secret


class PasswordChange(WithReason):
    """One's own password: the present one and the next."""

    old: Secret
    new: Secret


class UserRequest(WithReason):
    """A new user; without a password, one is made."""

    name: Name
    role: Role
    scope: ScopeText = ""
    password: Secret = ""


class UserChange(WithReason):
    """Another role or scope; what is left out stays."""

    role: Role | None = None
    scope: ScopeText | None = None


class PasswordReset(WithReason):
    """A user's next password; without one, it is made."""

    password: Secret = ""


class TokenRequest(WithReason):
    """A new API token; without a role it may what its owner may."""

    name: Name
    role: Role | None = None
    scope: ScopeText = ""
    ttl_s: float = Field(default=tokens.DEFAULT_TTL_S, gt=0, le=tokens.MAX_TTL_S)


def access_router(services: Services, access: Access) -> APIRouter:
    """The routes below `/api/v1`."""
    routes = api_router(services, "access")
    _sessions(routes, services, access)
    _users(routes, services)
    _tokens(routes, services)
    return routes


def _sessions(routes: APIRouter, services: Services, access: Access) -> None:
    @routes.post("/login")
    @open_to_all
    def log_in(response: Response, body: LoginRequest) -> Login:
        """Begin a session with a name and a password; its secret is a bearer token."""
        response.headers["Cache-Control"] = "no-store"
        access.require_login(body.user)
        return _login(access, users.log_in(services, body.user, body.password))

    @routes.post("/logout", status_code=204)
    @needs(Role.VIEWER)
    def end_session(request: Request) -> Response:
        """End the session that is shown."""
        log_out(services, principal_of(request))
        return without_session(Response(status_code=204))

    @routes.get("/me")
    @needs(Role.VIEWER)
    def show_me(request: Request) -> Me:
        """Who the fleet takes one for, and what one may."""
        return _me(principal_of(request))

    @routes.put("/me/password")
    @needs(Role.VIEWER)
    def change_my_password(request: Request, response: Response, body: PasswordChange) -> Login:
        """Change one's own password; all sessions end, and a new one begins."""
        response.headers["Cache-Control"] = "no-store"
        found = change_password(services, principal_of(request), body.old, body.new)
        return _login(access, found)

    @routes.post("/login-links", status_code=201)
    @needs(Role.VIEWER)
    def create_login_link(
        request: Request, response: Response, body: ChangeRequest | None = None
    ) -> LoginLink:
        """Make a link that logs in to the console once, as oneself."""
        response.headers["Cache-Control"] = "no-store"
        principal = principal_of(request)
        tokens.require_person(principal)
        link = access.make_link(principal)
        with audited(services, principal.caller(why(body)), "login-link.create", "console"):
            return link


def _users(routes: APIRouter, services: Services) -> None:
    admin = needs(Role.ADMIN, whole_fleet=True)

    @routes.get("/users")
    @admin
    def list_users(after: After = "", limit: Limit = 100) -> Page[UserInfo]:
        """The users, by name."""
        read = users.list_users
        return paged("users", after, lambda key: read(services, after=key, limit=limit), str)

    @routes.post("/users", status_code=201)
    @admin
    def create_user(request: Request, response: Response, body: UserRequest) -> NewUser:
        """Make a user; the password must be changed at the first login."""
        response.headers["Cache-Control"] = "no-store"
        caller = caller_of(request, body.reason)
        return users.create(
            services, caller, body.name, body.role, scope=body.scope, password=body.password
        )

    @routes.get("/users/{user}")
    @admin
    def show_user(user: str) -> UserInfo:
        """One user."""
        return users.show(services, user)

    @routes.patch("/users/{user}")
    @admin
    def change_user(request: Request, user: str, body: UserChange) -> UserInfo:
        """Give a user another role or scope; their sessions end."""
        caller = caller_of(request, body.reason)
        return users.change(services, caller, user, role=body.role, scope=body.scope)

    @routes.post("/users/{user}/password")
    @admin
    def reset_password(
        request: Request, response: Response, user: str, body: PasswordReset | None = None
    ) -> NewUser:
        """Give a user a new password, to be changed at the next login."""
        response.headers["Cache-Control"] = "no-store"
        caller = caller_of(request, why(body))
        return users.reset_password(services, caller, user, body.password if body else "")

    @routes.post("/users/{user}/disable")
    @admin
    def disable_user(request: Request, user: str, body: ChangeRequest | None = None) -> UserInfo:
        """Let a user in no more; their sessions and tokens end."""
        return users.disable(services, caller_of(request, why(body)), user)

    @routes.post("/users/{user}/enable")
    @admin
    def enable_user(request: Request, user: str, body: ChangeRequest | None = None) -> UserInfo:
        """Let a user in again; their tokens stay ended."""
        return users.enable(services, caller_of(request, why(body)), user)


def _tokens(routes: APIRouter, services: Services) -> None:
    @routes.get("/tokens")
    @needs(Role.VIEWER)
    def list_tokens(request: Request, after: After = "", limit: Limit = 100) -> Page[TokenInfo]:
        """One's own API tokens; an admin sees everybody's."""
        principal, read = principal_of(request), tokens.list_tokens

        def page(key: str) -> Page[TokenInfo]:
            return read(services, principal, after=key, limit=limit)

        return paged("tokens", after, page, str)

    @routes.post("/tokens", status_code=201)
    @needs(Role.VIEWER)
    def create_token(request: Request, response: Response, body: TokenRequest) -> NewToken:
        """Make an API token for oneself; it is shown this once."""
        response.headers["Cache-Control"] = "no-store"
        return tokens.create(
            services,
            principal_of(request),
            body.name,
            role=body.role,
            scope=body.scope,
            ttl_s=body.ttl_s,
            reason=body.reason,
        )

    @routes.delete("/tokens/{token}")
    @needs(Role.VIEWER)
    def revoke_token(request: Request, token: str, reason: Reason = "") -> TokenInfo:
        """End an API token."""
        return tokens.revoke(services, principal_of(request), token, reason)


def log_out(services: Services, principal: Principal) -> None:
    """End a session; a token is revoked instead.

    Raises:
        Conflict: it is no session.
    """
    if principal.kind is not Kind.SESSION:
        raise Conflict("A token has no session to end.", fix="Revoke it: edgeml tokens revoke ID")
    with audited(services, principal.caller(), "session.end", principal.actor) as session:
        credentials.end_session(session, principal)


def change_password(services: Services, principal: Principal, old: str, new: str) -> Principal:
    """Change the password of whoever is logged in.

    Raises:
        Conflict: they are no user, or it is a token that asks.
    """
    if not principal.user or principal.kind is not Kind.SESSION:
        raise Conflict(
            "There is no password to change.",
            why="Only a user who is logged in has one.",
            fix="Log in: edgeml login",
        )
    return users.change_password(services, principal.caller(), principal.user, old, new)


def _login(access: Access, principal: Principal) -> Login:
    begun = access.begin(principal)
    me = _me(dataclasses.replace(principal, expires_at=begun.expires_at))
    return {"token": begun.secret, "expires_at": begun.expires_at, "me": me}


def _me(principal: Principal) -> Me:
    return {
        "actor": principal.actor,
        "user": principal.user,
        "role": principal.role,
        "scope": principal.scope.text,
        "kind": principal.kind,
        "expires_at": principal.expires_at,
        "must_change_password": principal.must_change,
    }
