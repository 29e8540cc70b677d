"""The live page: one file without anything from elsewhere, and the figures that it shows."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from cloud_sync.sketch import Sketch
from edge_agent.api.device import ServedModel
from edge_agent.api.totals import Total
from edge_agent.statistics import STAGES
from hardware.probes import Temperature


@cache
def page() -> tuple[bytes, str]:
    """The page, and the policy under which a browser runs nothing but its own script."""
    text = (files("edge_agent.api") / "page.html").read_text()
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "connect-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text.encode(), policy


def figures(
    device: str,
    models: Sequence[ServedModel],
    totals: Iterable[Total],
    warmest: Temperature | None,
    clock_share: float,
) -> dict[str, Any]:
    """What the page shows, in the words in which it shows it."""
    of: dict[str, list[Total]] = {}
    for total in totals:
        of.setdefault(total.model, []).append(total)
    count = len(models)
    said = [f"{count} model{'s' if count != 1 else ''}" if count else "no model runs"]
    if warmest is not None:
        said.append(f"{warmest.celsius:.0f} \N{DEGREE SIGN}C ({warmest.zone})")
    if clock_share < 1:
        said.append(f"clock held back to {clock_share:.0%}")
    return {
        "device": device,
        "summary": ", ".join(said),
        "models": [_model(model, of.get(model.name, [])) for model in models],
    }


def _model(model: ServedModel, totals: list[Total]) -> dict[str, Any]:
    now = [total for total in totals if total.version == model.version]
    latency: dict[str, Sketch] = {}
    for total in now:
        for stage, sketch in (total.recent.latency if total.recent else {}).items():
            latency[stage] = latency[stage].merged(sketch) if stage in latency else sketch
    return {
        "name": model.name,
        "version": model.version,
        "runtime": model.runtime,
        "stuck": model.stuck_s > 0,
        "sources": [_source(total) for total in now],
        "stages": [
            {
                "stage": stage,
                **{f"p{q}": f"{latency[stage].percentile(q):.2f}" for q in (50, 95, 99)},
            }
            for stage in STAGES
            if stage in latency
        ],
    }


def _source(total: Total) -> dict[str, Any]:
    recent = total.recent
    done = recent.inferred + recent.empty if recent else 0
    return {
        "source": total.source,
        "rate": f"{done / recent.seconds:.1f}" if recent and recent.seconds else "0",
        "replaced": f"{total.replaced:,}",
        "errors": f"{total.errors:,}",
    }


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
