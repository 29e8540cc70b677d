"""The pages that are written by hand say what the structs say; the generated one is whole."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from typer.main import get_command

from cloud_sync.messages import (
    CapturePolicy,
    Configuration,
    DataBudget,
    SourceConfig,
    TrialPolicy,
)
from cloud_sync.windows import DAYS, UpdateWindow
from edge_agent.sources import IMAGE_SUFFIXES, SCHEMES, check_source
from edgeml.cli import app
from fleet.rollouts import Policy, parse_policy
from fleet.rollouts.failures import Retries, Threshold
from fleet.rollouts.policy import DEFAULT_WAVES, Gates, Limits, Metric, Wave
from fleet.rollouts.timing import Rate, Window
from fleet.rollouts.together import Together
from fleet.settings import parse_configuration
from hardware.pipeline import parse as parse_pipeline
from hardware.pipeline.definition import PreStep
from hardware.pipeline.postprocessors import OURS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
Structs = dict[str, type[msgspec.Struct]]

POLICY: Structs = {
    "": Policy,
    "waves.": Wave,
    "windows.": Window,
    "rate.": Rate,
    "together.": Together,
    "retries.": Retries,
    "thresholds.": Threshold,
    "gates.": Gates,
    "gates.metrics.": Metric,
    "limits.": Limits,
    "trial.": TrialPolicy,
}
CONFIGURATION: Structs = {
    "": Configuration,
    "sources.": SourceConfig,
    "data_budget.": DataBudget,
    "update_windows.": UpdateWindow,
    "capture.MODEL.": CapturePolicy,
}
# Whole tables, and the number that the fleet gives.
NOT_A_KEY = {"gates", "limits", "trial", "retries", "data_budget", "capture", "config_version"}
IN_WORDS: dict[str, Any] = {
    "waves": ("1 device, 5 %, 25 %, 100 %", DEFAULT_WAVES),
    "waves.count": ("", None),
    "waves.percent": ("", None),
    "waves.soak_s": ("the policy's", None),
    "waves.success_percent": ("all finish", None),
    "start_at": ("at once", None),
    "windows": ("always", ()),
    "rate": ("no bound", None),
    "together": ("none", None),
    "rate.increase_after_given": ("never", None),
    "rate.increase_after_committed": ("never", None),
    "rate.max_per_minute": ("no bound", None),
    "thresholds": ("none", ()),
    "gates.max_latency_p95_ms": ("no bound", None),
    "gates.max_error_rate": ("no bound", None),
    "gates.max_crash_percent": ("no bound", None),
    "gates.max_memory_mb": ("no bound", None),
    "gates.max_temperature_c": ("no bound", None),
    "gates.metrics": ("none", ()),
    "gates.metrics.max": ("no bound", None),
    "gates.metrics.min": ("no bound", None),
    "limits.max_failures": ("0, and with thresholds no bound", None),
    "sources": ("none", ()),
    "sources.fps": ("the source's own", None),
    "site": ("none", {}),
    "mirrors": ("none", ()),
    "update_windows": ("always", ()),
    "update_windows.days": ("all", DAYS),
    "data_budget.month_bytes": ("no bound", None),
    "data_budget.rollout_bytes": ("what the policy says", None),
}


def written(page: str) -> dict[str, str]:
    """Key and default of each row of a page's table of keys."""
    text = (DOCS / page).read_text()
    table = text[text.index("| key | default | meaning |") :].split("\n\n")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \|\s?(.*?)\s?\|", table, re.MULTILINE))


def known(structs: Structs) -> Iterator[tuple[str, str]]:
    """Key and default of each field that a file may set."""
    for prefix, kind in structs.items():
        for field in msgspec.structs.fields(kind):
            key, default = prefix + field.name, field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if key in IN_WORDS:
                assert default == IN_WORDS[key][1], key
                yield key, IN_WORDS[key][0]
            elif default is msgspec.NODEFAULT:
                yield key, "needed"
            elif key not in NOT_A_KEY:
                is_number = isinstance(default, int | float) and not isinstance(default, bool)
                text = f"{default:g}" if is_number else msgspec.json.encode(default).decode()
                yield key, f"`{text}`"


@pytest.mark.parametrize(("page", "structs"), [("policy.md", POLICY), ("device.md", CONFIGURATION)])
def test_a_page_has_every_key_with_its_default(page: str, structs: Structs) -> None:
    assert written(page) == dict(known(structs))


def examples(page: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_example_of_the_policy_can_be_used() -> None:
    assert [parse_policy(text).waves[0].count for text in examples("policy.md")] == [1, 1]


def test_the_example_of_a_configuration_can_be_used() -> None:
    found = [parse_configuration(tomllib.loads(text)) for text in examples("device.md")]
    assert found[0].sources[0].fps == 10
    assert found[1].capture["digits"].keep_mb == 500
    windows = [text for text in examples("configuration.md") if "windows" in text]
    [wanted] = [parse_configuration(tomllib.loads(text)) for text in windows]
    assert str(wanted.update_windows[0]) == "sat, sun 22:00 to 05:00 device time"


def test_the_kinds_of_sources_are_those_that_the_agent_opens() -> None:
    text = (DOCS / "sources.md").read_text()
    rows = "".join(re.findall(r"^\| (`[a-z0-9]+:.*?) \|", text, re.MULTILINE))
    assert set(re.findall(r"`(\w+):", rows)) == set(SCHEMES)
    assert [suffix for suffix in IMAGE_SUFFIXES if f"`{suffix}`" not in text] == []


def test_the_examples_of_sources_can_be_used() -> None:
    for text in examples("sources.md"):
        for source in parse_configuration(tomllib.loads(text)).sources:
            if not source.uri.startswith(("file:", "images:", "watch:", "wav:")):
                check_source(source)


def test_the_examples_of_pipelines_can_be_used() -> None:
    found = [parse_pipeline(text.encode()) for text in examples("pipeline.md")]
    named = {type(pipeline.processor) for pipeline in found}
    assert named == set(OURS.values())
    page = (DOCS / "pipeline.md").read_text()
    steps = {str(step.__struct_config__.tag) for step in get_args(PreStep)}
    assert set(re.findall(r"^\| `(\w+)` \| `?\w", page, re.MULTILINE)) >= steps


def test_every_command_is_on_the_page_of_commands() -> None:
    every = list(commands(get_command(app), "edgeml"))
    page = (DOCS / "commands.md").read_text()
    assert re.findall(r"^## (edgeml .*)$", page, re.MULTILINE) == every


def test_the_generator_finds_every_command() -> None:
    spec = importlib.util.spec_from_file_location("docs", REPOSITORY / "scripts/generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    every = list(commands(get_command(app), "edgeml"))
    assert [f"edgeml {name}" for name in generator.names()] == every


def commands(command: Any, name: str) -> Iterator[str]:
    """Each command below one, as it is typed."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for word, found in inner.items():
        yield from commands(found, f"{name} {word}")
