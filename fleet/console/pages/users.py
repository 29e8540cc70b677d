"""Users and API tokens: who may what, on which devices, and until when."""

from functools import partial
from typing import Any

from nicegui import ui

from fleet.access.resources import NewToken, TokenInfo, UserInfo
from fleet.console import forms, parts
from fleet.console.forms import FIELD, act_on_fleet
from fleet.console.shell import Visit, page
from fleet.console.views.access import DAY_S, ROLES, TokenLine, UserLine, token_lines, user_lines
from fleet.resources import Page
from fleet.roles import Role
from fleet.services import tokens, users
from fleet.services.context import Caller, Services

_EVERY_S = 3.0
_ON_A_PAGE = 1000
_DAYS = {30: "30 days", 90: "90 days", 180: "180 days", 365: "a year"}


@page("/users", "Users and tokens")
async def show(visit: Visit) -> None:
    """Draw them; whoever manages no users sees their own tokens."""
    shown = _Access(visit)
    await shown.refresh()
    visit.live(shown.refresh, _EVERY_S)


class _Access:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._manages = forms.oversees(visit)
        self._dialogs = ui.element("div")
        if self._manages:
            with parts.panel("Users"):
                self._users = parts.redraw(self._draw_users)
                parts.button("New user", self._add_user, "primary")
        with parts.panel("API tokens" if self._manages else "Your API tokens"):
            self._tokens = parts.redraw(self._draw_tokens)
            parts.button("New token", self._add_token, "primary")

    async def refresh(self) -> None:
        """Read and draw what is new."""
        now = self._visit.services.now()
        if self._manages:
            found: Page[UserInfo] = await self._visit.read(users.list_users, limit=_ON_A_PAGE)
            self._users(user_lines(found["items"], now))
        held: Page[TokenInfo] = await self._visit.read(
            tokens.list_tokens, self._visit.principal, limit=_ON_A_PAGE
        )
        self._tokens(token_lines(held["items"], now))

    def _draw_users(self, lines: tuple[UserLine, ...]) -> None:
        with ui.element("ul").classes("rows"):
            for line in lines:
                with ui.element("li").classes("access"):
                    with ui.element("div"):
                        _head(line.name, line.role, line.state, line.tone)
                        parts.write("p", f"Sees {line.scope}", "small")
                        parts.write("p", line.about, "small soft")
                    with ui.element("div").classes("buttons"):
                        self._user_buttons(line)

    def _user_buttons(self, line: UserLine) -> None:
        actions = [("Change", self._change_user)]
        if line.has_password:
            actions.append(("New password", self._reset))
        actions.append(("Enable", self._enable) if line.is_disabled else ("Disable", self._disable))
        for text, action in actions:
            made = parts.button(text, partial(action, line))
            made.props["aria-label"] = f"{text}: {line.name}"

    def _draw_tokens(self, lines: tuple[TokenLine, ...]) -> None:
        if not lines:
            parts.empty(
                "No token yet.",
                "A token lets a program in, as you or with less, until it expires; what it does is "
                "in the audit log under its own name.",
                "edgeml tokens create ci --role operator",
            )
        with ui.element("ul").classes("rows"):
            for line in lines:
                with ui.element("li").classes("access"):
                    with ui.element("div"):
                        _head(line.name, line.role, line.state, line.tone)
                        parts.write("p", f"Sees {line.scope}; {line.about}", "small soft")
                    if line.is_good:
                        revoke = parts.button("Revoke", partial(self._revoke, line))
                        revoke.props["aria-label"] = f"Revoke: {line.name}"

    async def _add_user(self) -> None:
        with self._dialogs:
            given = await forms.ask(
                "New user",
                {
                    "name": lambda: ui.input("Name").props(FIELD),
                    "role": lambda: ui.select(ROLES, value="viewer", label="Role").props(FIELD),
                    "scope": lambda: ui.input("Sees only devices with, such as site=north").props(
                        FIELD
                    ),
                },
                lines=["A password is made. It is shown once, and changed at the first login."],
                do="Make the user",
                needed=["name"],
            )
            if given is None:
                return
            made = await act_on_fleet(
                self._visit, Role.ADMIN, "", users.create, given["name"], Role(given["role"]),
                scope=given["scope"],
            )  # fmt: skip
            if made is not None:
                await self.refresh()
                await forms.show_once(
                    f"The password of {made['name']}", made["password"], "It is not shown again."
                )

    async def _change_user(self, line: UserLine) -> None:
        scope = "" if line.scope == "the whole fleet" else line.scope
        with self._dialogs:
            given = await forms.ask(
                f"Change {line.name}",
                {
                    "role": lambda: ui.select(ROLES, value=line.role, label="Role").props(FIELD),
                    "scope": lambda: ui.input("Sees only devices with", value=scope).props(FIELD),
                    "reason": lambda: ui.input("Reason, for the audit log").props(FIELD),
                },
                lines=["All sessions of this user end."],
                do="Change",
            )
            if given is not None:
                change = partial(users.change, role=Role(given["role"]), scope=given["scope"])
                done = await act_on_fleet(
                    self._visit, Role.ADMIN, given["reason"], change, line.name
                )
                await self._done(done, f"{line.name} is {given['role']} now.")

    async def _reset(self, line: UserLine) -> None:
        with self._dialogs:
            reason = await parts.confirm(
                f"A new password for {line.name}?",
                ["The old one is good no more.", "All sessions of this user end."],
                typed=line.name,
                do="Make one",
            )
            if reason is None:
                return
            made = await act_on_fleet(
                self._visit, Role.ADMIN, reason, users.reset_password, line.name
            )
            if made is not None:
                await self.refresh()
                await forms.show_once(
                    f"The password of {line.name}", made["password"], "It is not shown again."
                )

    async def _disable(self, line: UserLine) -> None:
        with self._dialogs:
            reason = await parts.confirm(
                f"Disable {line.name}?",
                ["All sessions and API tokens of this user end, for good."],
                typed=line.name,
                reason=True,
                do="Disable",
            )
            if reason is not None:
                done = await act_on_fleet(self._visit, Role.ADMIN, reason, users.disable, line.name)
                await self._done(done, f"{line.name} is disabled.")

    async def _enable(self, line: UserLine) -> None:
        with self._dialogs:
            lines = ["This user may log in again.", "Tokens that ended stay ended."]
            reason = await parts.confirm(f"Enable {line.name}?", lines, do="Enable")
            if reason is not None:
                done = await act_on_fleet(self._visit, Role.ADMIN, reason, users.enable, line.name)
                await self._done(done, f"{line.name} may log in again.")

    async def _add_token(self) -> None:
        role = self._visit.principal.role
        below = {name: text for name, text in ROLES.items() if role.reaches(Role(name))}
        with self._dialogs:
            given = await forms.ask(
                "New token",
                {
                    "name": lambda: ui.input("Name, such as ci").props(FIELD),
                    "role": lambda: ui.select(below, value=str(role), label="Role").props(FIELD),
                    "scope": lambda: ui.input("Sees only devices with, such as site=north").props(
                        FIELD
                    ),
                    "days": lambda: ui.select(_DAYS, value=90, label="Good for").props(FIELD),
                },
                lines=["It may never do more than you may, now or later."],
                do="Make the token",
                needed=["name"],
            )
            if given is None:
                return
            made = await self._visit.act(Role.VIEWER, "", self._create_token, given)
            if made is not None:
                await self.refresh()
                how = "It is not shown again. Programs send it as Authorization: Bearer."
                await forms.show_once(f"The token {given['name']}", made["token"], how)

    def _create_token(self, services: Services, caller: Caller, given: dict[str, Any]) -> NewToken:
        return tokens.create(
            services,
            self._visit.principal,
            given["name"],
            role=Role(given["role"]),
            scope=given["scope"],
            ttl_s=given["days"] * DAY_S,
            reason=caller.reason,
        )

    async def _revoke(self, line: TokenLine) -> None:
        def revoke(services: Services, caller: Caller) -> TokenInfo:
            return tokens.revoke(services, self._visit.principal, line.id, caller.reason)

        with self._dialogs:
            reason = await parts.confirm(
                f"Revoke {line.name}?",
                ["Programs that use it are let in no more, at once.", "It cannot be undone."],
                typed=line.name,
                do="Revoke",
            )
            if reason is not None:
                await self._done(
                    await self._visit.act(Role.VIEWER, reason, revoke), f"{line.name} is revoked."
                )

    async def _done(self, result: object, text: str) -> None:
        if result is not None:
            parts.said(text)
            await self.refresh()


def _head(name: str, role: str, state: str, tone: str) -> None:
    with ui.element("div").classes("line"):
        parts.write("strong", name)
        parts.chip(role, "idle")
        parts.write("span", state, f"small {tone}")
