"""Draws a rollout's plan: waves, hardware classes, reasons, and the devices by pages."""

from nicegui import ui

from fleet.console import parts
from fleet.console.views.plan import PlanView, chosen
from fleet.console.views.wording import plural

_ON_A_PAGE = 50
_GROUPS = {
    "all": ("gets", "waits", "nothing"),
    "that get it": ("gets",),
    "that wait": ("waits",),
    "that get nothing": ("nothing",),
}
_COLUMNS = (
    {"field": "device", "headerName": "Device", "minWidth": 120, "flex": 2},
    {"field": "hardware_class", "headerName": "Hardware class", "minWidth": 150, "flex": 2},
    {"field": "wave", "headerName": "Wave", "width": 80},
    {"field": "gets", "headerName": "Gets", "minWidth": 140, "flex": 2},
    {"field": "bytes", "headerName": "Fetches", "width": 100},
    {"field": "money", "headerName": "Money", "width": 110},
    {"field": "why", "headerName": "Why", "minWidth": 200, "flex": 4, "tooltipField": "why"},
)


def draw(plan: PlanView) -> None:
    """All of it."""
    parts.sentence(plan.headline, plan.tone).classes("big")
    with ui.element("div").classes("tiles"):
        for name, figure in plan.facts:
            with ui.element("div").classes("tile"):
                parts.write("span", figure, "figure")
                parts.write("span", name, "small soft")
    with parts.panel("What each wave adds"), ui.element("ol").classes("plan-waves"):
        for wave in plan.waves:
            with ui.element("li"):
                parts.write("span", f"Wave {wave.number}, {wave.label}", "small soft")
                parts.write("p", plural(wave.devices, "device"), "strong")
                for name, number in wave.classes:
                    parts.write("p", f"{number:,} {name}", "small")
    with ui.element("div").classes("two"):
        with parts.panel("By hardware class"):
            _classes(plan)
        if plan.reasons:
            with parts.panel("Why some get nothing"), ui.element("ul").classes("rows"):
                for reason, number in plan.reasons:
                    parts.write("li", f"{plural(number, 'device')}: {reason}", "small")
    if plan.devices:
        with parts.panel("Devices"):
            _devices(plan)


def _classes(plan: PlanView) -> None:
    with ui.element("div").classes("bars"):
        for line in plan.classes:
            total = sum(number for _, number in line.gets) + line.nothing
            said = [f"{number:,} get {variant}" for variant, number in line.gets]
            said += [f"{line.nothing:,} get nothing"] if line.nothing else []
            with ui.element("div").classes("bar"):
                parts.write("span", line.name or "unknown hardware", "label")
                parts.write("span", ", ".join(said), "number")
                with ui.element("span").classes("track"):
                    for _, number in line.gets:
                        ui.element("i").classes("good").style(f"width: {100 * number / total:.2f}%")
                    ui.element("i").classes("warn").style(
                        f"width: {100 * line.nothing / total:.2f}%"
                    )


def _devices(plan: PlanView) -> None:
    which, text = "all", ""

    async def load(cursor: str) -> str | None:
        begin = int(cursor or 0)
        lines = chosen(plan.devices, _GROUPS[which], text)
        rows = [
            {name: getattr(line, name) for name in line.__struct_fields__}
            for line in lines[begin : begin + _ON_A_PAGE]
        ]
        parts.update_grid(table, rows)
        number.set_content(plural(len(lines), "device"))
        following = begin + _ON_A_PAGE
        return str(following) if following < len(lines) else None

    async def choose(group: str | None = None, found: str | None = None) -> None:
        nonlocal which, text
        which, text = group or which, text if found is None else found
        await anew()

    with ui.element("div").classes("line"):
        ui.select(list(_GROUPS), value=which, label="Devices").props(
            "outlined dense"
        ).on_value_change(lambda event: choose(group=event.value)).classes("field")
        ui.input("Name or hardware class").props(
            "outlined dense clearable debounce=300"
        ).on_value_change(lambda event: choose(found=event.value or "")).classes("field")
        number = parts.write("span", "", "small soft")
    table = parts.grid(_COLUMNS, [], label="The devices of the plan", key="device")
    anew = parts.pager(load)
