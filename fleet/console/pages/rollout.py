"""One rollout, live: why it stands where it stands, and what can be done about it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import ui

from fleet.console import parts, paths, rollout_parts
from fleet.console.shell import Visit, page
from fleet.console.views import rollout_actions as can
from fleet.console.views.rollout import GateGroup, GateLine, card
from fleet.console.views.rollout_actions import Action, Actions
from fleet.console.views.rollout_facts import facts
from fleet.console.views.rollout_list import Event, RolloutLine, rollout_line, timeline
from fleet.resources import Explanation, RolloutInfo
from fleet.services import audit, releases, rollouts
from fleet.services.audit import Wanted

_MANY = 2000
_MAX_EVENTS = 100
_CHANGES: dict[str, Callable[..., RolloutInfo]] = {
    "start": rollouts.start,
    "approve": rollouts.approve,
    "pause": rollouts.pause,
    "resume": rollouts.resume,
    "abort": rollouts.abort,
    "retry": rollouts.retry,
    "rollback": rollouts.rollback,
    "override": rollouts.override,
}
_OVERRIDE = """(event) => event.target.closest("[data-gate]")
  && emit(event.target.closest("[data-gate]").dataset.gate)"""
_Standing = tuple[RolloutInfo, Explanation]


@page("/rollouts/{rollout}", "Rollout")
async def show(visit: Visit, rollout: str) -> None:
    """Draw it, and keep it live."""
    await visit.check_path()
    standing = await _read(visit, rollout)
    shown = _Page(visit, rollout, standing)
    await shown.refresh()
    # Thousands of devices are read in seconds; they are not read all the time.
    many = len(standing[0]["devices"]) > _MANY
    visit.live(shown.refresh, 5.0 if many else 1.0)


async def _read(visit: Visit, rollout: str) -> _Standing:
    read = partial(rollouts.standing, visit.services, rollout, scope=visit.scope)
    return await visit.shared(("rollout", rollout), read)


class _Page:
    """The parts of the page, each drawn again when what it shows is another."""

    def __init__(self, visit: Visit, rollout: str, standing: _Standing) -> None:
        self._visit = visit
        self._rollout = rollout
        self._standing = standing
        visit.title(can.name_of(standing[0]))
        self._dialogs = ui.element("div")
        self._why = parts.redraw(_why, "why")
        self._actions = parts.redraw(self._draw_actions)
        with ui.element("div").classes("columns"):
            with ui.element("div").classes("stack"):
                with parts.panel("Waves and devices"):
                    self._waves = parts.redraw(_waves)
                    self._field = rollout_parts.Field()
                    self._attention = parts.redraw(rollout_parts.attention)
                with parts.panel("Gates of this wave"), ui.element("div") as gates:
                    self._gates = parts.redraw(self._draw_gates)
                # Where the buttons are, they are drawn again with each report: a click that is on
                # its way then would be lost.
                gates.on(
                    "click",
                    lambda event: self._ask_override(str(event.args)),
                    js_handler=_OVERRIDE,
                )
            with ui.element("div").classes("side stack"):
                with parts.panel("About"):
                    self._facts = parts.redraw(_facts)
                with parts.panel("What happened (UTC)"):
                    self._timeline = parts.redraw(_timeline)
                with parts.panel("From a terminal"):
                    parts.command(f"edgeml rollout explain {rollout}")
                    parts.command(f"edgeml rollout watch {rollout}")

    async def refresh(self) -> None:
        """Read and draw what is new."""
        visit = self._visit
        self._standing = await _read(visit, self._rollout)
        info, why = self._standing
        events = await visit.shared(
            ("rollout events", self._rollout, visit.caller().person),
            partial(
                audit.entries,
                visit.services,
                limit=_MAX_EVENTS,
                caller=visit.caller(),
                wanted=Wanted(subject=self._rollout),
            ),
        )
        drawn = card(info, why, is_latest=True)
        self._why(rollout_line(info))
        self._actions(can.actions_of(info, visit.principal.role, visit.caller().person))
        self._waves(
            (drawn.steps, drawn.cells if len(drawn.cells) <= rollout_parts.MAX_CELLS else ())
        )
        self._field.show(info["devices"])
        self._attention(tuple(cell for cell in drawn.cells if cell.tone in {"bad", "warn"}))
        self._gates((drawn.groups, self._overridable()))
        self._facts(facts(info))
        self._timeline(timeline(events["items"]))

    def _draw_actions(self, actions: Actions) -> None:
        with ui.element("div").classes("buttons"):
            for action in actions.actions:
                parts.button(action.label, partial(self._ask, action.verb), action.kind)
        for note in actions.notes:
            parts.write("p", note, "small soft")

    def _draw_gates(self, drawn: tuple[tuple[GateGroup, ...], frozenset[str]]) -> None:
        groups, overridable = drawn

        def beside(gate: GateLine) -> None:
            if gate.name in overridable:
                override = parts.button("Override")
                override.props["aria-label"] = f"Override the gate {gate.name}"
                override.props["data-gate"] = gate.name

        for group in groups:
            rollout_parts.gates(group, beside)
        if any(gate.plot for group in groups for gate in group.gates):
            rollout_parts.legend()
        if not groups:
            parts.write("p", "None yet: they come with the first device of a wave.", "soft")

    def _overridable(self) -> frozenset[str]:
        info, why = self._standing
        role = self._visit.principal.role
        return frozenset(g["name"] for g in why["gates"] if can.may_override(info, g, role))

    async def _ask(self, verb: str) -> None:
        """Ask what the action would do as the rollout stands now, then do it."""
        now = can.actions_of(
            self._standing[0], self._visit.principal.role, self._visit.caller().person
        )
        for action in now.actions:
            if action.verb == verb:
                await self._do(action)

    async def _ask_override(self, gate: str) -> None:
        info, why = self._standing
        for known in why["gates"]:
            if known["name"] == gate:
                await self._do(can.override_of(info, known), gate)

    async def _do(self, action: Action, *more: Any) -> None:
        target = ""

        def choose(version: str) -> None:
            nonlocal target
            target = version

        versions = await self._versions() if action.verb == "rollback" else {}
        # Not where the button is, which may be drawn again while the dialog is open.
        with self._dialogs:
            reason = await parts.confirm(
                f"{action.label}: {can.name_of(self._standing[0])}?",
                action.consequences,
                typed=action.typed,
                reason=action.asks_reason,
                do=action.label,
                inside=partial(parts.choice, "To the version", versions, "", choose)
                if versions
                else None,
            )
            if reason is None:
                return
            more = (target,) if versions else more
            change = _CHANGES[action.verb]
            done = await self._visit.act(action.role, reason, change, self._rollout, *more)
            if done is None:
                return
            if action.verb == "rollback":
                ui.navigate.to(paths.rollout(done["id"]).removeprefix(paths.PATH))
            parts.said(f"{action.label}: done.")
            await self.refresh()

    async def _versions(self) -> dict[str, str]:
        """What a rollout can be rolled back to: the version before, or one by its name."""
        info = self._standing[0]
        known = await self._visit.read(releases.list_releases, info["model"])
        others = [one["version"] for one in known if one["version"] != info["version"]]
        return {"": "the one that they ran before", **{one: one for one in others}}


def _why(line: RolloutLine) -> None:
    with ui.element("div").classes("line"):
        parts.chip(line.status, line.tone)
        with ui.element("span").classes("counts"):
            for name, its_tone, number in line.counts:
                parts.write("span", f"{number:,} {name}", f"small {its_tone}")
    shown = rollout_parts.why(line.sentence, line.tone, line.gate, "big")
    shown.props["aria-live"] = "polite"


def _facts(drawn: list[tuple[str, str]]) -> None:
    parts.facts(drawn)


def _waves(drawn: tuple[Any, Any]) -> None:
    steps, cells = drawn
    rollout_parts.steps(steps)
    if cells:
        rollout_parts.cells(cells)


def _timeline(events: tuple[Event, ...]) -> None:
    if not events:
        parts.write("p", "Nothing yet, or nothing that you may see.", "soft")
    with ui.element("ol").classes("timeline"):
        for event in events:
            with ui.element("li").classes(event.tone):
                parts.write("span", f"{event.at} {event.who}", "small soft")
                parts.write("strong", event.what)
                if event.why:
                    parts.write("span", event.why, "small soft why")
