"""The dialog that changes labels of one device or of many, and the work that follows."""

from collections.abc import Sequence

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console import parts
from fleet.console.device_parts import in_batches
from fleet.console.parts import write
from fleet.console.shell import Visit
from fleet.console.views import devices as view
from fleet.console.views.wording import plural
from fleet.roles import Role
from fleet.services import device_labels

_TOGETHER = 200


async def change_labels(visit: Visit, names: Sequence[str], whom: str, work: ui.element) -> None:
    """Ask which labels to change, say what that does, and do it.

    Args:
        visit: whose doing it is.
        names: the devices.
        whom: who they are, in words.
        work: where the progress is shown.
    """
    written = await _ask(whom)
    if written is None:
        return
    text, why = written
    change = view.parse_labels(text)
    count = plural(len(names), "device")
    lines = [
        f"{count}: {change.sentence}. Other labels stay.",
        "Rollouts and layers of configuration that choose by these labels may choose others.",
    ]
    typed = str(len(names)) if len(names) > 1 else ""
    answer = await parts.confirm(
        f"Change the labels of {count}?", lines, typed=typed, do="Change labels"
    )
    if answer is None:
        return

    async def do(batch: Sequence[str]) -> int | None:
        return await visit.act(
            Role.OPERATOR, why, device_labels.change, batch, change.put, change.drop
        )

    with work:
        done = await in_batches("Changing labels", names, _TOGETHER, do)
    parts.said(f"{plural(done, 'device')} changed.")


async def _ask(whom: str) -> tuple[str, str] | None:
    """The labels to change and why, as they are written; None where it is left."""
    with parts.dialog(f"Change the labels of {whom}") as dialog:
        write("p", "key=value sets a label, key- takes it away: site=north, line=3, spare-", "soft")
        labels = ui.input("Labels").props("outlined dense autocomplete=off").classes("field")
        reason = ui.input("Reason, for the audit log").props("outlined dense").classes("field")
        fault = write("p", "", "bad")
        fault.props["role"] = "alert"

        def go() -> None:
            try:
                view.parse_labels(labels.value or "")
            except EdgemlError as error:
                fault.set_content(parts.escape(str(error)))
                return
            dialog.submit((labels.value, (reason.value or "").strip()))

        with ui.element("div").classes("line end"):
            parts.button("Cancel", lambda: dialog.submit(None))
            parts.button("Go on", go, "primary")
    try:
        answer: tuple[str, str] | None = await dialog
        return answer
    finally:
        if not dialog.is_deleted:
            dialog.delete()
