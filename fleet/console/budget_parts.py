"""Draws what devices may spend on the network, layer by layer, and changes it in waves."""

from functools import partial

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console import forms, parts, paths
from fleet.console.shell import Visit
from fleet.console.views import settings as view
from fleet.console.views.settings import BudgetLine
from fleet.roles import Role
from fleet.rollouts import Policy
from fleet.services import configuration_changes
from fleet.services.configuration_changes import Change

_WHEN_SPENT = {"wait": "wait for the next month", "refuse": "refuse the update"}


class Budgets:
    """A panel of the data budgets of all layers; whoever sees the whole fleet may change them."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._may = forms.oversees(visit, Role.OPERATOR)
        self._dialogs = ui.element("div")
        with parts.panel("Data budgets"):
            self._shown = parts.redraw(self._draw)
            parts.command("edgeml devices configuration layers")

    async def refresh(self) -> None:
        """Read and draw what is new."""
        visit = self._visit
        self._shown(view.budgets(await visit.read(configuration_changes.layers, visit.scope)))

    def _draw(self, lines: tuple[BudgetLine, ...]) -> None:
        with ui.element("ul").classes("rows"):
            for line in lines:
                with ui.element("li").classes("access"):
                    with ui.element("div"):
                        parts.write("strong", line.layer)
                        parts.write("p", f"{line.whom}: {line.text}", "small")
                    if self._may:
                        change = parts.button("Change…", partial(self._change, line))
                        change.props["aria-label"] = f"Change the data budget of {line.layer}"

    async def _change(self, line: BudgetLine) -> None:
        visit = self._visit
        with self._dialogs:
            given = await forms.ask(
                f"Data budget of {line.layer} ({line.whom})",
                {
                    "month_mb": lambda: _number("A month, MB", line.month_mb),
                    "rollout_mb": lambda: _number("A rollout, MB", line.rollout_mb),
                    "month_begins": lambda: _number(
                        "The month begins on day", line.month_begins, least=1, most=28
                    ),
                    "when_spent": lambda: ui.select(
                        _WHEN_SPENT, label="When it is spent", value=line.when_spent
                    ).props(forms.FIELD),
                },
                lines=["Empty is no bound. Narrower layers win: a label's over the fleet's."],
                do="Go on",
            )
            if given is None:
                return
            wanted = Change(layer=line.layer, settings=view.with_budget(line.settings, given))
            try:
                plan = await visit.read(configuration_changes.plan, wanted)
            except EdgemlError as error:
                parts.refused(error)
                return
            changed = plan["counts"]["changed"]
            reason = await parts.confirm(
                f"Change the data budget of {line.layer}?",
                view.planned(plan),
                typed=str(changed) if changed else "",
                reason=True,
                do="Change it",
            )
            if reason is None:
                return
            done = await forms.act_on_fleet(
                visit, Role.OPERATOR, reason, configuration_changes.begin, wanted, Policy()
            )
            if done is None:
                return
            if done["rollout"]:
                ui.navigate.to(paths.rollout(done["rollout"]).removeprefix(paths.PATH))
            else:
                parts.said(f"{line.layer} has its budget; no device is changed by it now.")
                await self.refresh()


def _number(label: str, value: float | None, *, least: float = 0, most: float = 1e9) -> ui.number:
    return ui.number(label, value=value, min=least, max=most).props(forms.FIELD)
