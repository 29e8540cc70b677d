"""The report of a conversion: one HTML file to look at, with everything that it shows in it.

It asks for nothing from anywhere, runs no script, and follows the reader's light or dark
theme. Names and reasons come from models and data that nobody vouches for; they are escaped
by the template and the charts alike. The same parts give the same bytes.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_sync.release import Release

if TYPE_CHECKING:
    from jinja2 import Template

    from converters.build import Parts

_FOLDER = Path(__file__).parent


def report_html(parts: "Parts", release: Release) -> bytes:
    """The report as one HTML page, UTF-8.

    Args:
        parts: what the release and its evidence were made of.
        release: what was written.
    """
    from markupsafe import Markup

    from converters.report.conditions import command, conditions, recipe_text, replay
    from converters.report.figures import figures, sensitivity_figure
    from converters.report.findings import calibration, losses
    from converters.report.view import View
    from converters.report.words import sentence

    view = View(parts, release)
    css = (_FOLDER / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    page = _template().render(
        view=view,
        races=[(race, figures(view, race), view.outcomes(race)) for race in view.races],
        losses=losses(parts),
        calibration=tuple(calibration(parts)),
        calibration_warnings=(
            parts.diagnosis.calibration.warnings if parts.diagnosis.calibration else ()
        ),
        sensitivity=sensitivity_figure(parts.diagnosis) if parts.diagnosis.sensitivity else None,
        not_diagnosed=sentence(parts.diagnosis.skipped),
        skipped=parts.skipped,
        conditions=conditions(parts),
        command=command(parts.request),
        replay=replay(parts.request, release),
        recipe=recipe_text(parts),
        css=Markup(css),  # noqa: S704 -- a file of ours
        style_source=f"sha256-{digest}",
    )
    return page.encode("utf-8", "replace")


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _shown(value: Any) -> Any:
    """A text without control characters; what was escaped already stays as it is."""
    from markupsafe import Markup

    from converters.report.words import printable

    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
