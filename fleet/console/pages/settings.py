"""What concerns the fleet itself: trust, retention, prices and budgets, webhooks, alert rules."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console import forms, parts
from fleet.console.budget_parts import Budgets
from fleet.console.forms import FIELD, act_on_fleet
from fleet.console.shell import Visit, page
from fleet.console.views import settings as view
from fleet.console.views.settings import HookLine, KeyLine
from fleet.prices import parse_prices
from fleet.roles import Role
from fleet.services import alerts, cost, retention, trust, webhooks

_EVERY_S = 5.0


@page("/settings", "Settings")
async def show(visit: Visit) -> None:
    """Draw them; whoever may not change one sees it all the same."""
    shown = _Settings(visit)
    await shown.refresh()
    visit.live(shown.refresh, _EVERY_S)


class _Settings:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._manages = forms.oversees(visit)
        self._dialogs = ui.element("div")
        with ui.element("div").classes("two"):
            with parts.panel("Trust: who signs, and until when"):
                self._trust = parts.redraw(_draw_trust)
                if self._manages:
                    parts.button("Renew what the fleet may sign", self._renew)
            with ui.element("div").classes("stack"):
                with parts.panel("What is kept, and how long"):
                    self._kept = parts.redraw(_draw_facts)
                    text = "Options of edgeml fleet up; what is older is forgotten."
                    parts.write("p", text, "small soft")
                self._budgets = Budgets(visit)
        with ui.element("div").classes("two"):
            with parts.panel("Prices of a megabyte"):
                self._prices = ui.element("div")
            with parts.panel("When alerts fire"):
                self._rules = ui.element("div")
        if self._manages:
            with parts.panel("Webhooks"):
                self._hooks = parts.redraw(self._draw_hooks)
                parts.button("New webhook", self._add_hook, "primary")
        self._forms_drawn = False

    async def refresh(self) -> None:
        """Read and draw what is new; forms that somebody may be filling in are drawn once."""
        visit = self._visit
        now = visit.services.now()
        found = await visit.shared("trust", partial(trust.show, visit.services), _EVERY_S)
        self._trust((found["sentence"], tuple(found["warnings"]), view.key_lines(found, now),
                     view.own_keys(found)))  # fmt: skip
        self._kept(view.kept(await visit.read(retention.held)))
        await self._budgets.refresh()
        if self._manages:
            self._hooks(view.hook_lines(await visit.read(webhooks.list_webhooks)))
        if not self._forms_drawn:
            self._forms_drawn = True
            await self._draw_prices()
            await self._draw_rules()

    async def _renew(self) -> None:
        with self._dialogs:
            lines = ["Snapshot, timestamp and what else the fleet holds keys of get a new expiry."]
            reason = await parts.confirm("Renew what the fleet may sign?", lines, do="Renew")
            if reason is not None:
                done = await act_on_fleet(self._visit, Role.ADMIN, reason, trust.refresh)
                if done is not None:
                    parts.said("Renewed.")

    async def _draw_prices(self) -> None:
        held = await self._visit.read(cost.prices)
        may = forms.oversees(self._visit, Role.OPERATOR)
        self._prices.clear()
        with self._prices:
            text = ui.textarea("prices.toml", value=view.prices_text(held))
            text.props(f"{FIELD} autogrow {'' if may else 'readonly'}").classes("toml")
            parts.write("p", "The first selector that chooses a device counts.", "small soft")
            if may:
                parts.button("Save the prices", lambda: self._save_prices(text.value), "primary")
            parts.command("edgeml fleet prices --help")

    async def _save_prices(self, text: str) -> None:
        with self._dialogs:
            try:
                wanted = await asyncio.to_thread(parse_prices, text or "")
            except EdgemlError as error:
                parts.refused(error)
                return
            number = len(wanted.prices)
            lines = [f"{number} prices in {wanted.currency} hold from now on, in plans, too."]
            reason = await parts.confirm("Save the prices?", lines, do="Save")
            if reason is None:
                return
            given: dict[str, object] = {
                "currency": wanted.currency,
                "prices": [
                    {"selector": one.selector, "per_mb": one.per_mb} for one in wanted.prices
                ],
            }
            done = await act_on_fleet(self._visit, Role.OPERATOR, reason, cost.set_prices, given)
            if done is not None:
                parts.said("The prices are saved.")

    async def _draw_rules(self) -> None:
        held: dict[str, Any] = dict(await self._visit.read(alerts.rules))
        values: dict[str, Any] = {}
        self._rules.clear()
        with self._rules:
            with ui.element("div").classes("fields"):
                for name, label in view.RULES.items():
                    made = ui.number(label, value=held[name], min=0)
                    made.props(f"{FIELD} {'' if self._manages else 'readonly'}")
                    made.on_value_change(
                        lambda event, name=name: values.__setitem__(name, event.value)
                    )
            parts.write("p", "0 turns a rule off.", "small soft")
            if self._manages:
                parts.button("Save the rules", lambda: self._save_rules(values), "primary")

    async def _save_rules(self, values: dict[str, Any]) -> None:
        held = await self._visit.read(alerts.rules)
        with self._dialogs:
            rules = view.changed_rules(held, values)
            done = await act_on_fleet(self._visit, Role.ADMIN, "", alerts.set_rules, rules)
            if done is not None:
                parts.said("The rules are saved.")

    def _draw_hooks(self, lines: tuple[HookLine, ...]) -> None:
        if not lines:
            parts.empty(
                "No webhook yet.",
                "One tells another system of alerts and rollouts, signed, until it has taken them.",
                "edgeml webhooks add https://example.org/hook",
            )
        with ui.element("ul").classes("rows"):
            for line in lines:
                with ui.element("li").classes("access"):
                    with ui.element("div"):
                        parts.write("strong", line.url)
                        parts.write("p", line.events, "small soft")
                        parts.write("p", line.state, f"small {line.tone}")
                    with ui.element("div").classes("buttons"):
                        parts.button("Test", partial(self._test_hook, line))
                        parts.button("Remove", partial(self._remove_hook, line))

    async def _add_hook(self) -> None:
        with self._dialogs:
            given = await forms.ask(
                "New webhook",
                {
                    "url": lambda: ui.input("URL, https://…").props(FIELD),
                    "events": lambda: ui.input("Events, such as dev.edgeml.alert.*; empty: all")
                    .props(FIELD),
                    "private": lambda: ui.checkbox("It is in a private network"),
                },
                do="Add it",
                needed=["url"],
            )  # fmt: skip
            if given is None:
                return
            events = given["events"].replace(",", " ").split()
            made = await act_on_fleet(
                self._visit, Role.ADMIN, "", webhooks.add, given["url"], events,
                allow_private=bool(given["private"]),
            )  # fmt: skip
            if made is not None:
                await self.refresh()
                how = "It is not shown again. It verifies what is sent (docs/alerts.md)."
                await forms.show_once("The secret of the webhook", made["secret"], how)

    async def _test_hook(self, line: HookLine) -> None:
        with self._dialogs:
            done = await act_on_fleet(self._visit, Role.ADMIN, "", webhooks.test, line.id)
            if done is not None:
                parts.said(f"A test event is on its way to {line.url}.")

    async def _remove_hook(self, line: HookLine) -> None:
        with self._dialogs:
            reason = await parts.confirm(
                f"Remove the webhook {line.url}?",
                ["Nothing is sent there any more.", "What waits for it is dropped."],
                typed=line.id,
                do="Remove",
            )
            if reason is None:
                return
            await act_on_fleet(self._visit, Role.ADMIN, reason, webhooks.remove, line.id)
            await self.refresh()


_Trust = tuple[str, tuple[str, ...], tuple[KeyLine, ...], list[tuple[str, str]]]


def _draw_trust(shown: _Trust) -> None:
    sentence, warnings, lines, own = shown
    parts.write("p", sentence)
    for warning in warnings:
        parts.write("p", warning, "notice warn").props["role"] = "alert"
    with ui.element("ul").classes("rows"):
        for line in lines:
            with ui.element("li"):
                with ui.element("div").classes("line"):
                    parts.write("strong", line.role)
                    parts.write("span", line.signs, "small soft")
                    parts.write("span", line.expires, f"small end {line.tone}")
                parts.write("p", line.keys, "small soft")
    parts.facts(own)
    parts.command("edgeml trust show" if lines else "edgeml trust init")


def _draw_facts(pairs: Sequence[tuple[str, str]]) -> None:
    parts.facts(pairs)
