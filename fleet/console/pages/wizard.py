"""A new rollout: the form of its policy, its plan, and the file and command that do the same."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.access.scope import confine
from fleet.commands.forecast import taken_by
from fleet.console import parts, paths, plan_parts
from fleet.console.policy_parts import PolicyForm
from fleet.console.shell import Visit, page
from fleet.console.views import policy_form as form
from fleet.console.views.plan import PlanView, plan_view
from fleet.console.views.wording import plural
from fleet.resources import ReleaseInfo
from fleet.roles import Role
from fleet.rollouts import Policy
from fleet.services import releases, rollouts
from fleet.services.context import Services

_FIELD = "outlined dense"


@page("/rollouts/new", "New rollout", role=Role.OPERATOR)
async def show(visit: Visit) -> None:
    """Draw it; `?model=`, `?version=` and `?selector=` fill it in."""
    known = await visit.read(releases.list_releases, "")
    if known:
        _Wizard(visit, known)
    else:
        parts.empty(
            "There is no release to roll out yet.",
            "Convert a model, then push the folder that came out:",
            "edgeml releases push build/digits-1.0.0",
        )


class _Wizard:
    """The page: the form of a policy, the file that says the same, and its plan."""

    def __init__(self, visit: Visit, known: list[ReleaseInfo]) -> None:
        self._visit = visit
        self._names = [f"{one['model']}:{one['version']}" for one in known]
        self._name = self._wanted()
        tree = form.put({}, ("selector",), visit.query("selector"))
        self._draft = False
        self._planned: tuple[str, form.Tree] | None = None
        with ui.element("div").classes("columns wizard"):
            with ui.element("div").classes("stack"):
                with parts.panel("1. What, and for which devices"):
                    self._what(tree)
                self._form = PolicyForm(tree, self._changed)
            with ui.element("div").classes("side stack"), parts.panel("The same as a file"):
                self._text = ui.textarea("policy.toml").props(f"{_FIELD} autogrow debounce=400")
                self._text.props["placeholder"] = "Empty: all is as by default."
                self._text.classes("toml").on_value_change(lambda event: self._typed(event.value))
                self._wrong = parts.redraw(_wrong)
                self._command = parts.redraw(_command)
        with ui.element("div").classes("buttons"):
            self._plan_button = parts.button("Show the plan", self._plan, "primary")
            self._create_button = parts.button("Create the rollout", self._create)
            ui.checkbox("As a draft, to be started later").on_value_change(
                lambda event: self._drafted(bool(event.value))
            )
        self._dialogs = ui.element("div")
        self._plan_place = ui.element("div").classes("stack")
        self._changed()

    @property
    def _tree(self) -> form.Tree:
        return self._form.tree

    def _wanted(self) -> str:
        model, version = self._visit.query("model"), self._visit.query("version")
        found = [name for name in self._names if name == f"{model}:{version}"]
        found += [name for name in self._names if name.startswith(f"{model}:")]
        return (found or self._names)[0]

    def _what(self, tree: form.Tree) -> None:
        with ui.element("div").classes("fields"):
            ui.select(self._names, value=self._name, label="Release", with_input=True).props(
                _FIELD
            ).on_value_change(lambda event: self._released(event.value))
            self._selector = ui.input(
                "Selector, such as site=north", value=tree.get("selector", "")
            ).props(f"{_FIELD} debounce=300")
            self._selector.on_value_change(lambda event: self._form.put(("selector",), event.value))
        scope = self._visit.scope
        if scope.requirements:
            parts.write("p", f"Of those only what is in your scope: {scope}", "small soft")
        parts.write("p", "Without a selector it is for every device.", "small soft")

    def _released(self, name: str | None) -> None:
        if name:
            self._name = name
            self._changed()

    def _drafted(self, draft: bool) -> None:
        self._draft = draft
        self._changed()

    def _typed(self, text: str | None) -> None:
        """Somebody wrote TOML."""
        if (text or "").strip() == form.text_of(self._tree).strip():
            return
        try:
            self._form.tree = form.tree_of(text or "")
        except EdgemlError as error:
            self._wrong(error)
            return
        self._selector.value = self._tree.get("selector", "")
        self._form.draw()
        self._changed(wrote=False)

    def _changed(self, *, wrote: bool = True) -> None:
        """Say the same as a file and as a command; only what was planned may be created."""
        if wrote:
            self._text.value = form.text_of(self._tree)
        try:
            form.policy_of(self._tree)
        except EdgemlError as error:
            self._wrong(error)
        else:
            self._wrong(None)
        model, _, version = self._name.partition(":")
        self._command(form.command_of(model, version, self._tree, draft=self._draft, why=""))
        self._visit.remember(model=model, version=version, selector=self._tree.get("selector", ""))
        is_planned = self._planned == (self._name, self._tree)
        self._create_button.props["disabled"] = not is_planned
        self._create_button.props["title"] = "" if is_planned else "See its plan first."
        self._create_button.update()

    async def _plan(self) -> None:
        """Work the plan out on a worker thread, and show it."""
        name, tree = self._name, self._tree
        model, _, version = name.partition(":")
        self._plan_place.clear()
        with self._plan_place:
            parts.write("p", "Working out what each device would get…", "soft").props["role"] = (
                "status"
            )
        try:
            policy = form.policy_of(tree)
            plan = partial(_planned, self._visit.services, self._visit, model, version, policy)
            self._shown = await asyncio.to_thread(plan)
        except EdgemlError as error:
            self._plan_place.clear()
            with self._plan_place:
                parts.problem(error)
            return
        self._planned = (name, tree)
        self._plan_place.clear()
        with self._plan_place:
            plan_parts.draw(self._shown)
        self._changed()

    async def _create(self) -> None:
        if self._planned != (self._name, self._tree):
            return
        model, _, version = self._name.partition(":")
        policy = form.policy_of(self._tree)
        with self._dialogs:
            reason = await parts.confirm(
                f"Roll out {self._name}?",
                _consequences(self._shown, draft=self._draft),
                do="Create",
            )
            if reason is None:
                return
            create: Callable[..., Any] = rollouts.create
            made = await self._visit.act(
                Role.OPERATOR, reason, create, model, version, policy, draft=self._draft
            )
            if made is not None:
                ui.navigate.to(paths.rollout(made["id"]).removeprefix(paths.PATH))


def _planned(
    services: Services, visit: Visit, model: str, version: str, policy: Policy
) -> PlanView:
    """The plan of what is in the visitor's scope; blocks."""
    selector = confine(policy.selector, visit.scope)
    policy = msgspec.structs.replace(policy, selector=selector)
    plan = rollouts.plan(services, model, version, policy)
    others = rollouts.list_rollouts(services, model=model, limit=20, scope=visit.scope)
    return plan_view(plan, policy, taken_by(others))


def _consequences(plan: PlanView, *, draft: bool) -> list[str]:
    facts = ", ".join(f"{name.lower()} {figure}" for name, figure in plan.facts)
    first = plan.waves[0] if plan.waves else None
    begins = "Nothing is given to anyone until it is started." if draft else (
        f"Wave 1 gives it to {plural(first.devices if first else 0, 'device')} now."
    )  # fmt: skip
    return [plan.headline, begins, f"{facts[:1].upper()}{facts[1:]}."]


def _command(text: str) -> None:
    parts.command(text)


def _wrong(error: EdgemlError | None) -> None:
    if error is not None:
        parts.problem(error)
