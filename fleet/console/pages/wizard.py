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
_UNITS = {"percent": "% of devices", "count": "devices"}


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
    """The form; `tree` is the policy as its TOML file has it."""

    def __init__(self, visit: Visit, known: list[ReleaseInfo]) -> None:
        self._visit = visit
        self._names = [f"{one['model']}:{one['version']}" for one in known]
        self._name = self._wanted()
        self._tree: form.Tree = form.put({}, ("selector",), visit.query("selector"))
        self._draft = False
        self._planned: tuple[str, form.Tree] | None = None
        with ui.element("div").classes("columns wizard"):
            with ui.element("div").classes("stack"):
                with parts.panel("1. What, and for which devices"):
                    self._what()
                with parts.panel("2. In which waves"):
                    self._waves = ui.element("div")
                with parts.panel("3. What it must hold"):
                    self._sections = ui.element("div")
            with ui.element("div").classes("side stack"), parts.panel("The same as a file"):
                self._text = ui.textarea("policy.toml").props(f"{_FIELD} autogrow debounce=400")
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
        self._draw_form()
        self._changed()

    def _wanted(self) -> str:
        model, version = self._visit.query("model"), self._visit.query("version")
        found = [name for name in self._names if name == f"{model}:{version}"]
        found += [name for name in self._names if name.startswith(f"{model}:")]
        return (found or self._names)[0]

    def _what(self) -> None:
        with ui.element("div").classes("fields"):
            ui.select(self._names, value=self._name, label="Release", with_input=True).props(
                _FIELD
            ).on_value_change(lambda event: self._released(event.value))
            self._selector = ui.input(
                "Selector, such as site=north", value=self._tree.get("selector", "")
            ).props(f"{_FIELD} debounce=300")
            self._selector.on_value_change(lambda event: self._put(("selector",), event.value))
        scope = self._visit.scope
        if scope.requirements:
            parts.write("p", f"Of those only what is in your scope: {scope}", "small soft")
        parts.write("p", "Without a selector it is for every device.", "small soft")

    def _draw_form(self) -> None:
        """Draw what the tree says; after somebody wrote TOML, and when waves come and go."""
        self._draw_waves()
        self._sections.clear()
        with self._sections:
            for section in form.SECTIONS:
                self._section(section)

    def _draw_waves(self) -> None:
        self._waves.clear()
        with self._waves:
            waves = form.waves_of(self._tree)
            for number, wave in enumerate(waves):
                self._wave(number, wave, can_go=len(waves) > 1)
            parts.button("Add a wave", self._add_wave)
            text = "A wave says how many devices have the release when it is done, all together."
            parts.write("p", text, "small soft")

    def _wave(self, number: int, wave: dict[str, Any], *, can_go: bool) -> None:
        unit = "count" if wave.get("count") is not None else "percent"

        def change(**values: Any) -> None:
            nonlocal unit
            waves = form.waves_of(self._tree)
            held = waves[number]
            size = held.pop(unit, None)
            unit = values.pop("unit", unit)
            waves[number] = {**held, unit: size, **values}
            self._put(("waves",), [_without_none(one) for one in waves])

        with ui.element("div").classes("wave-row"):
            parts.write("span", f"Wave {number + 1}", "small soft")
            size = ui.number(value=wave.get(unit), min=0).props(f"{_FIELD} debounce=300")
            size.props["aria-label"] = f"Size of wave {number + 1}"
            size.on_value_change(lambda event: change(**{unit: event.value}))
            kind = ui.select(_UNITS, value=unit).props(_FIELD)
            kind.props["aria-label"] = f"Unit of wave {number + 1}"
            kind.on_value_change(lambda event: change(unit=event.value))
            soak = ui.number("Soak, s", value=wave.get("soak_s"), min=0).props(
                f"{_FIELD} debounce=300 clearable"
            )
            soak.on_value_change(lambda event: change(soak_s=event.value))
            if can_go:
                remove = parts.button("Remove", partial(self._remove_wave, number))
                remove.props["aria-label"] = f"Remove wave {number + 1}"

    def _section(self, section: form.Section) -> None:
        details = ui.element("details")
        details.props["open"] = section is form.GATES
        with details:
            parts.write("summary", section.title)
            parts.write("p", section.help, "small soft")
            with ui.element("div").classes("fields"):
                for field in section.fields:
                    self._field(field)

    def _field(self, field: form.Field) -> None:
        value = form.read(self._tree, field.path)
        label = f"{field.label} ({field.unit})" if field.unit else field.label
        made: Any
        if field.choices:
            made = ui.select(dict(field.choices), value=value, label=label)
        elif field.is_text:
            made = ui.input(label, value="" if value is None else str(value))
        else:
            made = ui.number(label, value=value)
        made.props(f"{_FIELD} debounce=300")
        made.props["title"] = f"{field.name}. {field.help}".strip()
        if field.help:
            made.props["hint"] = field.help
        made.on_value_change(lambda event: self._put(field.path, event.value))

    def _add_wave(self) -> None:
        waves = form.waves_of(self._tree)
        waves.insert(len(waves) - 1, {"percent": 50})
        self._put(("waves",), waves)
        self._draw_waves()

    def _remove_wave(self, number: int) -> None:
        waves = form.waves_of(self._tree)
        self._put(("waves",), [wave for index, wave in enumerate(waves) if index != number])
        self._draw_waves()

    def _put(self, path: form.Path, value: Any) -> None:
        self._tree = form.put(self._tree, path, value)
        self._changed()

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
            self._tree = form.tree_of(text or "")
        except EdgemlError as error:
            self._wrong(error)
            return
        self._selector.value = self._tree.get("selector", "")
        self._draw_form()
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


def _without_none(wave: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wave.items() if value is not None}
