"""Dialogs that ask for values or show a secret once; and changes that concern the whole fleet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.access.guard import check
from fleet.access.needs import Need
from fleet.console import parts
from fleet.console.shell import Visit
from fleet.roles import Role
from fleet.services.context import Caller, Services

P = ParamSpec("P")
T = TypeVar("T")
FIELD = "outlined dense autocomplete=off"


async def ask(
    title: str,
    inputs: Mapping[str, Callable[[], Any]],
    *,
    lines: Sequence[str] = (),
    do: str,
    needed: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Ask for some values; None where it is left.

    Args:
        title: the question.
        inputs: makes an input, by the name of its value.
        lines: what will happen.
        do: what the button says.
        needed: names of values that may not be empty.
    """
    with parts.dialog(title) as dialog:
        made = {name: make() for name, make in inputs.items()}
        for line in lines:
            parts.write("p", line, "small soft")
        with ui.element("div").classes("line end"):
            parts.button("Cancel", lambda: dialog.submit(None))
            go = parts.button(do, lambda: dialog.submit(_values(made)), "primary")

    def look() -> None:
        go.props["disabled"] = not all(str(made[name].value or "").strip() for name in needed)
        go.update()

    for name in needed:
        made[name].on_value_change(look)
    look()
    try:
        answer: dict[str, Any] | None = await dialog
        return answer
    finally:
        dialog.delete()


async def show_once(title: str, secret: str, how: str) -> None:
    """Show a secret that is not shown again."""
    with parts.dialog(title) as dialog:
        dialog.props("persistent")
        parts.command(secret)
        parts.write("p", how, "small soft")
        with ui.element("div").classes("line end"):
            parts.button("I have it", lambda: dialog.submit(None), "primary")
    try:
        await dialog
    finally:
        dialog.delete()


def oversees(visit: Visit, role: Role = Role.ADMIN) -> bool:
    """Whether the visitor may what concerns the whole fleet."""
    return visit.may(role) and not visit.scope.requirements


async def act_on_fleet(
    visit: Visit,
    role: Role,
    because: str,
    function: Callable[Concatenate[Services, Caller, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T | None:
    """As `Visit.act`, and refused to whose scope is not the whole fleet."""
    try:
        check(Need(role, whole_fleet=True), visit.principal)
    except EdgemlError as error:
        parts.refused(error)
        return None
    return await visit.act(role, because, function, *args, **kwargs)


def _values(made: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: one.value for name, one in made.items()}
    return {name: v.strip() if isinstance(v, str) else v for name, v in found.items()}
