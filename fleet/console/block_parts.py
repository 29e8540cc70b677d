"""Draws the releases that a hardware class is given no more, and what can be done about it."""

from functools import partial

from nicegui import ui

from fleet.console import forms, parts, paths
from fleet.console.shell import Visit
from fleet.console.views.wording import clock
from fleet.resources import BlockInfo
from fleet.roles import Role
from fleet.services import blocks, releases
from fleet.services.census import census

_EVERY_S = 5.0


class Blocks:
    """A panel of all of them, kept live."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._may = forms.oversees(visit, Role.OPERATOR)
        self._dialogs = ui.element("div")
        with parts.panel("Blocked releases"):
            self._shown = parts.redraw(self._draw)
            if self._may:
                with ui.element("div").classes("buttons"):
                    parts.button("Block a release…", self._block)
        visit.live(self.refresh, _EVERY_S)

    async def refresh(self) -> None:
        """Read and draw what is new."""
        visit = self._visit
        read = partial(blocks.list_blocks, visit.services, visit.scope)
        self._shown(await visit.shared("blocks", read, _EVERY_S))

    def _draw(self, found: list[BlockInfo]) -> None:
        if not found:
            parts.write(
                "p",
                "None. A release that fails on a hardware class can be kept from it: by hand, or "
                "by itself with block_class = true in a rollout's policy.",
                "small soft",
            )
            parts.command("edgeml rollout block digits:1.1.0 CLASS --why '…'")
        with ui.element("ul").classes("rows"):
            for one in found:
                self._line(one)

    def _line(self, one: BlockInfo) -> None:
        name = f"{one['model']}:{one['version']}"
        with ui.element("li").classes("access"):
            with ui.element("div"):
                with ui.element("span").classes("line"):
                    parts.link(name, paths.release(one["model"], one["version"]), "strong")
                    parts.write("span", f"on {one['hardware_class']}")
                parts.write("p", one["reason"], "small")
                parts.write("p", f"{clock(one['blocked_at'])} by {one['blocked_by']}", "small soft")
            if self._may:
                with ui.element("div").classes("buttons"):
                    unblock = parts.button("Unblock", partial(self._unblock, one))
                    unblock.props["aria-label"] = f"Unblock {name} on {one['hardware_class']}"

    async def _block(self) -> None:
        visit = self._visit
        known = [f"{r['model']}:{r['version']}" for r in await visit.read(releases.list_releases)]
        counted = await visit.read(census, visit.scope)
        classes = [one["hardware_class"] for one in counted["classes"] if one["hardware_class"]]
        with self._dialogs:
            given = await forms.ask(
                "Block a release on a hardware class",
                {
                    "name": lambda: ui.select(known, label="Release").props(forms.FIELD),
                    "hardware_class": lambda: ui.select(classes, label="Hardware class").props(
                        forms.FIELD
                    ),
                    "reason": lambda: ui.input("Reason, for the audit log").props(forms.FIELD),
                },
                lines=["No device of that class is given it any more; what runs it, goes on."],
                do="Block",
                needed=["name", "hardware_class", "reason"],
            )
            if given is None:
                return
            model, _, version = given["name"].partition(":")
            done = await forms.act_on_fleet(
                visit, Role.OPERATOR, given["reason"], blocks.block, model, version,
                given["hardware_class"],
            )  # fmt: skip
        if done is not None:
            self._shown(done)

    async def _unblock(self, one: BlockInfo) -> None:
        with self._dialogs:
            reason = await parts.confirm(
                f"Unblock {one['model']}:{one['version']} on {one['hardware_class']}?",
                ["Rollouts of it reach devices of that class again, those in motion, too."],
                reason=True,
                do="Unblock",
            )
            if reason is None:
                return
            done = await forms.act_on_fleet(
                self._visit, Role.OPERATOR, reason, blocks.unblock, one["model"], one["version"],
                one["hardware_class"],
            )  # fmt: skip
        if done is not None:
            self._shown(done)
