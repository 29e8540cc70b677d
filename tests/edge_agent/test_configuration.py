"""A configuration is applied whole or not at all, and what it leaves alone is not disturbed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_sync.messages import Configuration, SourceConfig
from edge_agent.configuration import Sources, problem
from edge_agent.mailbox import Frame
from hardware.pipeline import parse
from tests.cloud_sync.releases import PIPELINE
from tests.edge_agent.processes import eventually
from tests.edge_agent.scene import make_images

PIPELINES = {"toy": [parse(PIPELINE)]}


@pytest.fixture
def images(tmp_path: Path) -> str:
    return f"images://{make_images(tmp_path / 'images', 3)}"


def source(uri: str, name: str = "belt", **more: Any) -> SourceConfig:
    return SourceConfig(**({"name": name, "uri": uri, "model": "toy", "fps": 100.0} | more))


def test_a_good_one_has_no_problem(images: str) -> None:
    site = {"toy": {"threshold": 0.5}, "not-here-yet": {"anything": 1}}
    wanted = Configuration(sources=(source(images), source(images, "other")), site=site)
    assert problem(wanted, PIPELINES) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"telemetry_every_s": 0.0}, "telemetry_every_s is 0.0"),
        ({"telemetry_every_s": float("nan")}, "telemetry_every_s is nan"),
        ({"sources": ("belt", "belt")}, "2 sources have the name 'belt'"),
        ({"sources": ("",)}, "needs a name"),
        ({"site": {"toy": {"gain": 1}}}, "may not set gain"),
        ({"site": {"toy": {"threshold": 7}}}, "site parameters of toy"),
    ],
)
def test_what_is_wrong_is_a_sentence(change: dict[str, Any], message: str, images: str) -> None:
    if "sources" in change:
        change = {"sources": tuple(source(images, name) for name in change["sources"])}
    assert message in problem(Configuration(**change), PIPELINES)


@pytest.mark.parametrize("fps", [0.0, -1.0, 1e9, float("nan")])
def test_a_rate_that_cannot_be_is_refused(fps: float, images: str) -> None:
    assert "fps is" in problem(Configuration(sources=(source(images, fps=fps),)), {})


def test_sources_follow_the_configuration_and_the_unchanged_goes_on(images: str) -> None:
    seen: list[tuple[str, str, int]] = []

    def deliver(model: str, frame: Frame) -> None:
        seen.append((model, frame.source, frame.index))

    sources = Sources(deliver)
    kept, gone, new = source(images), source(images, "gone"), source(images, "new")
    sources.apply((kept, gone))
    eventually(lambda: {name for _, name, _ in seen} == {"belt", "gone"})
    before = sources._running[kept]
    sources.apply((kept, new))
    seen.clear()
    eventually(lambda: {name for _, name, _ in seen} == {"belt", "new"})
    assert sources._running[kept] is before
    sources.stop()
    sources.join(2)
    assert {model for model, _, _ in seen} == {"toy"}


def test_a_source_is_found_by_its_name_to_push_to_and_all_say_how_they_are(images: str) -> None:
    seen: list[tuple[str, int]] = []

    def deliver(model: str, frame: Frame) -> bool:
        seen.append((model, frame.index))
        return False

    said: list[str] = []
    sources = Sources(deliver, lambda status: said.append(f"{status.name} {status.state}"))
    sources.apply([source("push:", "app", fps=None), source(images, "pictures")])
    app = sources.push_source("app")
    assert app is not None
    assert sources.push_source("pictures") is None
    assert sources.push_source("nobody") is None
    eventually(lambda: app.push(np.zeros((2, 2), np.uint8)) == "accepted")
    eventually(lambda: {s.state for s in sources.statuses()} == {"running"})
    assert ("toy", 0) in seen
    sources.apply([])
    assert sources.push_source("app") is None
    assert app.push(np.zeros((2, 2), np.uint8)) == "refused"
    assert {"app running", "pictures running"} <= set(said)
