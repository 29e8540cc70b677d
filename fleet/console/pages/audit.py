"""Who did what, when and why; and whether the log is as it was written."""

import asyncio
from functools import partial

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console import parts
from fleet.console.device_parts import Table
from fleet.console.shell import Visit, page
from fleet.console.views import audit as view
from fleet.resources import AuditInfo
from fleet.services import audit

_ON_A_PAGE = 50
_EVERY_S = 2.0
_VERIFIED_EVERY_S = 60.0
_FIELD = "outlined dense debounce=300"
_HEAD = ("What", "With", "Why", "Who", "At (UTC)", "Entry")


@page("/audit", "Audit")
async def show(visit: Visit) -> None:
    """Draw the log; `?who=`, `?action=`, `?subject=` and `?days=` choose entries."""
    shown = _Log(visit)
    await shown.verify()
    visit.live(shown.refresh, _EVERY_S)


class _Log:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._asked = {name: visit.query(name) for name in ("who", "action", "subject", "days")}
        self._after = ""
        self._entries: dict[int, AuditInfo] = {}
        with ui.element("div").classes("line"):
            self._chain = parts.redraw(_draw_chain)
            parts.button("Check again", partial(self.verify, fresh=True))
        with ui.element("div").classes("fields"):
            self._choice("action", "What", view.AREAS)
            self._choice("days", "When", view.SPANS)
            self._field("who", "Who, such as alice or alice/ci").props("data-filter")
            self._field("subject", "With, such as a device or rollout")
        self._table = Table(_HEAD, "The audit log", on_open=self._open)
        self._empty = parts.redraw(_draw_empty)
        self._anew = parts.pager(self._load)
        self._dialogs = ui.element("div")

    async def verify(self, *, fresh: bool = False) -> None:
        """Check the chain of hashes; not more often than every minute, but for who asks."""
        if fresh:
            self._chain(await asyncio.to_thread(self._verified))
        else:
            self._chain(await self._visit.shared("audit chain", self._verified, _VERIFIED_EVERY_S))

    async def refresh(self) -> None:
        """Show what is new on the page that is shown."""
        await self._load(self._after)

    def _verified(self) -> tuple[str, str]:
        try:
            number = audit.verify(self._visit.services)
        except EdgemlError as error:
            return "bad", str(error)
        return (
            "good",
            f"The chain of hashes holds, from the first of {number:,} entries to the last",
        )

    async def _load(self, after: str) -> str | None:
        self._after = after
        visit, asked = self._visit, self._asked
        wanted = view.wanted_of(
            asked["who"], asked["action"], asked["subject"], asked["days"], visit.services.now()
        )
        found = await visit.read(
            audit.entries,
            after=int(after or 0),
            limit=_ON_A_PAGE,
            caller=visit.caller(),
            wanted=wanted,
        )
        self._entries = {entry["seq"]: entry for entry in found["items"]}
        rows = view.rows(found["items"])
        self._table.show(rows)
        self._empty("" if rows else "any" if any(asked.values()) else "none")
        return found["next"]

    def _choice(self, name: str, label: str, choices: dict[str, str]) -> None:
        value = self._asked[name] if self._asked[name] in choices else ""
        made = ui.select(choices, value=value, label=label).props(_FIELD)
        made.on_value_change(lambda event: self._ask(name, event.value))

    def _field(self, name: str, label: str) -> ui.input:
        made = ui.input(label, value=self._asked[name]).props(f"{_FIELD} clearable")
        made.on_value_change(lambda event: self._ask(name, event.value))
        return made

    async def _ask(self, name: str, value: str | None) -> None:
        self._asked[name] = value or ""
        self._visit.remember(**self._asked)
        await self._anew()

    async def _open(self, key: str) -> None:
        """All of an entry."""
        found = self._entries.get(int(key)) if key.isdecimal() else None
        if found is None:
            return
        with self._dialogs, parts.dialog(f"{found['action']} {found['subject']}") as dialog:
            parts.facts(view.details(found)).classes("entry-detail")
            with ui.element("div").classes("line end"):
                parts.button("Close", dialog.close)
        dialog.on("hide", dialog.delete)
        dialog.open()


def _draw_chain(state: tuple[str, str]) -> None:
    tone, text = state
    with ui.element("span").classes(tone).props("role=status"):
        parts.mark(tone)
        parts.write("span", text)


def _draw_empty(which: str) -> None:
    if which == "any":
        parts.empty("Nothing that was done is like that.", "Take a part of the filter away.")
    elif which == "none":
        parts.empty(
            "Nothing was done yet.",
            "All that operators, rollouts and devices' owners do is kept here, each entry with a "
            "hash over the one before. The first comes with the first device:",
            "edgeml fleet enroll cam-1 --label site=north",
        )
