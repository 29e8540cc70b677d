"""Draws the form of a policy: its waves, its values, and its lists of windows and thresholds."""

from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import ui

from fleet.console import parts
from fleet.console.views import policy_fields as fields
from fleet.console.views import policy_form as form
from fleet.console.views.policy_fields import Field, Rows, Section

_FIELD = "outlined dense"
_UNITS = {"percent": "% of devices", "count": "devices"}


class PolicyForm:
    """The form of a policy; `tree` is the policy as its TOML file has it.

    Args:
        tree: to begin with.
        on_change: called when somebody changed a value in the form.
    """

    def __init__(self, tree: form.Tree, on_change: Callable[[], None]) -> None:
        self.tree = tree
        self._on_change = on_change
        with parts.panel("2. In which waves"):
            self._waves = ui.element("div")
        with parts.panel("3. When, and what it must hold"):
            self._sections = ui.element("div")
        self.draw()

    def draw(self) -> None:
        """Draw what the tree says: at first, and after somebody wrote TOML."""
        self._draw_waves()
        self._sections.clear()
        with self._sections:
            for section in fields.SECTIONS:
                self._section(section)

    def put(self, path: fields.Path, value: Any) -> None:
        """Change one value."""
        self.use(form.put(self.tree, path, value))

    def use(self, tree: form.Tree) -> None:
        """Take another tree, of a form that shows it already."""
        self.tree = tree
        self._on_change()

    def _draw_waves(self) -> None:
        self._waves.clear()
        with self._waves:
            waves = form.waves_of(self.tree)
            for number, wave in enumerate(waves):
                self._wave(number, wave, can_go=len(waves) > 1)
            parts.button("Add a wave", self._add_wave)
            text = "A wave says how many devices have the release when it is done, all together. "
            text += "It goes on when all of them have finished, or that share has committed."
            parts.write("p", text, "small soft")

    def _wave(self, number: int, wave: dict[str, Any], *, can_go: bool) -> None:
        unit = "count" if wave.get("count") is not None else "percent"

        def change(**values: Any) -> None:
            nonlocal unit
            waves = form.waves_of(self.tree)
            held = waves[number]
            size = held.pop(unit, None)
            unit = values.pop("unit", unit)
            waves[number] = {**held, unit: size, **values}
            self.put(("waves",), [_without_none(one) for one in waves])

        def ask(name: str, label: str) -> None:
            made = ui.number(label, value=wave.get(name), min=0)
            made.props(f"{_FIELD} debounce=300 clearable")
            made.on_value_change(lambda event: change(**{name: event.value}))

        with ui.element("div").classes("wave-row"):
            parts.write("span", f"Wave {number + 1}", "small soft")
            size = ui.number(value=wave.get(unit), min=0).props(f"{_FIELD} debounce=300")
            size.props["aria-label"] = f"Size of wave {number + 1}"
            size.on_value_change(lambda event: change(**{unit: event.value}))
            kind = ui.select(_UNITS, value=unit).props(_FIELD)
            kind.props["aria-label"] = f"Unit of wave {number + 1}"
            kind.on_value_change(lambda event: change(unit=event.value))
            ask("soak_s", "Soak, s")
            ask("success_percent", "Enough, %")
            if can_go:
                remove = parts.button("Remove", partial(self._remove_wave, number))
                remove.props["aria-label"] = f"Remove wave {number + 1}"

    def _add_wave(self) -> None:
        waves = form.waves_of(self.tree)
        waves.insert(len(waves) - 1, {"percent": 50})
        self.put(("waves",), waves)
        self._draw_waves()

    def _remove_wave(self, number: int) -> None:
        waves = form.waves_of(self.tree)
        self.put(("waves",), [wave for index, wave in enumerate(waves) if index != number])
        self._draw_waves()

    def _section(self, section: Section) -> None:
        details = ui.element("details")
        details.props["open"] = section is fields.GATES or form.says(self.tree, section)
        with details:
            parts.write("summary", section.title)
            parts.write("p", section.help, "small soft")
            with ui.element("div").classes("fields"):
                for field in section.fields:
                    _field(field, form.read(self.tree, field.path), partial(self.put, field.path))
            for rows in section.rows:
                _List(self, rows)


class _List:
    """Tables that one adds and removes."""

    def __init__(self, owner: PolicyForm, rows: Rows) -> None:
        self._owner, self._rows = owner, rows
        self._place = ui.element("div")
        self._draw()

    def _draw(self) -> None:
        rows = self._rows
        values = form.rows_of(self._owner.tree, rows)
        self._place.clear()
        with self._place:
            for number, value in enumerate(values):
                with ui.element("fieldset").classes("table-row"):
                    parts.write("legend", f"{rows.word.capitalize()} {number + 1}", "small soft")
                    with ui.element("div").classes("fields"):
                        for field in rows.fields:
                            name = field.path[0]
                            _field(field, value.get(name), partial(self._change, number, name))
                    remove = parts.button("Remove", partial(self._remove, number))
                    remove.props["aria-label"] = f"Remove {rows.word} {number + 1}"
            with ui.element("div").classes("line add"):
                parts.button(f"Add a {rows.word}", self._add)
                parts.write("span", rows.help, "small soft")

    def _change(self, number: int, name: str, value: Any) -> None:
        values = form.rows_of(self._owner.tree, self._rows)
        values[number][name] = value
        self._put(values)

    def _add(self) -> None:
        self._put([*form.rows_of(self._owner.tree, self._rows), dict(self._rows.new)])
        self._draw()

    def _remove(self, number: int) -> None:
        values = form.rows_of(self._owner.tree, self._rows)
        self._put([value for index, value in enumerate(values) if index != number])
        self._draw()

    def _put(self, values: list[dict[str, Any]]) -> None:
        self._owner.use(form.put_rows(self._owner.tree, self._rows, values))


def _field(field: Field, value: Any, on_change: Callable[[Any], None]) -> None:
    label = f"{field.label} ({field.unit})" if field.unit else field.label
    made: Any
    if field.choices:
        made = ui.select(dict(field.choices), value=value, label=label, multiple=field.is_many)
    elif field.is_text:
        made = ui.input(label, value="" if value is None else str(value))
    else:
        made = ui.number(label, value=value)
    made.props(f"{_FIELD} debounce=300")
    made.props["title"] = f"{field.name}. {field.help}".strip()
    if field.help:
        made.props["hint"] = field.help
    made.on_value_change(lambda event: on_change(event.value))


def _without_none(wave: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wave.items() if value is not None}
