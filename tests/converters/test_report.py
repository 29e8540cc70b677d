"""The report: it says what was measured, in words and numbers, and nothing can speak through it."""

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from cloud_sync.evidence import GateResult, Verdict
from converters.build import Parts
from converters.methods import NodeLoss
from converters.report import charts, report_html
from converters.result import Loss, Skipped
from hardware.profiles import Limits
from tests.converters.report_parts import (
    classifier,
    emulated,
    losses,
    recogniser,
    refused,
    release_of,
)

CHROMIUM = Path("/usr/bin/chromium")
VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "\"><img src=https://example.com/x onerror=alert(1)>'",
    "{{ 7 * 7 }} {% raw %} $\\frac{1}{$ ]]> &amp;",
    "\x00\x1b[31m\u202egnp\u202c \udc80 モデル",
)


class Page(HTMLParser):
    """Elements with their attributes, and the text; refuses tags that are not closed in order."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(data.decode())
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"line {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def attributes(self, name: str) -> list[str]:
        return [given[name] or "" for _, given in self.elements if name in given]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def sensitive(parts: Parts, move: str, nodes: tuple[NodeLoss, ...]) -> Parts:
    """Parts that carry what a sensitivity pass saw."""
    assert parts.diagnosis.calibration is not None
    diagnosis = msgspec.structs.replace(parts.diagnosis, move=move, sensitivity=nodes)
    return msgspec.structs.replace(parts, diagnosis=diagnosis)


def written(parts: Any) -> bytes:
    return report_html(parts, release_of(parts))


STORIES = {"win": classifier, "undecided": recogniser, "refused": refused}


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return {name: Page(written(story().parts())) for name, story in STORIES.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        assert os.environ.get("CI") != "true", "Chromium is missing: apt-get install chromium"
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


def test_the_headline_says_what_won_how_fast_it_is_and_what_it_cost(pages: dict[str, Page]) -> None:
    text = pages["win"].text
    assert "Int8 on openvino (static u8s8 minmax bias-corrected equalised) won: 2.58 x the" in text
    assert "5.68 ms an inference instead of 14.7" in text
    assert "It costs 0.07 points of top1 (a drop from -0.32 to 0.45 at 95 % confidence)" in text
    assert "75.23 % after 75.30 % on the same 3,000 samples" in text
    assert "The fastest float32 is on onnxruntime and takes 14.2 ms" in text


def test_it_says_why_float_was_kept_and_what_would_decide(pages: dict[str, Page]) -> None:
    text = pages["undecided"].text
    assert "Float32 was kept, on openvino, where it is fastest, 5.02 ms an inference" in text
    assert "was left out: its accuracy is undecided: 2 of 100 samples lost and 1 gained" in text
    assert "100 samples, about 1,152 would decide" in text
    assert "Evaluate on about 1,152 samples, or deploy it all the same" in text


def test_it_says_why_nothing_came_of_a_net(pages: dict[str, Page]) -> None:
    text = pages["refused"].text
    assert "Of the 2 things that were tried, 1 was refused and 1 was not fast enough" in text
    assert "It is the same file as one tried before." in text
    assert "0.87 x the speed of float32: not fast enough to be judged." in text


def test_warnings_come_first(pages: dict[str, Page]) -> None:
    for name, warning in (
        ("undecided", "too few to show a drop of 1 point"),
        ("win", "measured on a CPU that has more instructions than the target"),
    ):
        text = pages[name].text
        assert text.index("Know this first") < text.index(warning) < text.index("Variants")
    assert "Know this first" not in pages["refused"].text


def test_an_accepted_doubt_is_a_warning_with_its_reason() -> None:
    page = Page(written(recogniser(accept_undecided="a pilot at one site").parts()))
    warned, _, rest = page.text.partition("Variants")
    assert "though a gate is undecided, because: “a pilot at one site”." in warned
    assert "Int8 on openvino" in warned
    assert "? accuracy undecided" in rest


def test_every_candidate_is_in_the_table_with_its_gates(pages: dict[str, Page]) -> None:
    parts = recogniser().parts()
    page = pages["undecided"]
    assert page.attributes("data-label").count("Gates") == len(parts.candidates + parts.doubted)
    for said in ("10.9 MB", "3.34 MB", "4.30", "175 ms", "82.38 to 95.10", "✓ speedup pass"):
        assert said in page.text
    assert "artifact-executed" in page.text
    assert page.text.count("left out") >= len(parts.doubted)


def test_everything_tried_is_listed_in_order(pages: dict[str, Page]) -> None:
    page = pages["win"]
    parts = classifier().parts()
    for attempts in parts.attempts.values():
        _, _, listed = page.text.partition("Everything that was tried for")
        places = [listed.index(f" {attempt.move} ") for attempt in attempts]
        assert places == sorted(places)


def test_conditions_and_the_way_to_repeat_them_are_told(pages: dict[str, Page]) -> None:
    parts = classifier().parts()
    text = pages["win"].text
    for said in ("8370C", "onnxruntime 1.31.1", "openvino 2026.3.0", "200 rounds", "3,000 samples"):
        assert said in text
    assert parts.recipe.inputs.model in text
    assert "edgeml convert models/efficientnet-lite0.onnx" in text
    recipe = release_of(parts).variants[0].file("recipe").digest.removeprefix("sha256:")
    assert f"--recipe releases/efficientnet-lite0/blobs/sha256/{recipe}" in text


def test_the_command_is_quoted_for_the_shell() -> None:
    parts = refused().parts()
    request = msgspec.structs.replace(parts.request, evaluation="my data; rm -rf /")
    page = Page(written(msgspec.structs.replace(parts, request=request)))
    assert "--evaluate 'my data; rm -rf /'" in page.text


def test_each_race_has_its_charts_and_a_net_with_nothing_judged_has_no_front(
    pages: dict[str, Page],
) -> None:
    titles = [title for title in pages["win"].attributes("aria-label") if " for cpu-" in title]
    assert [title.split(" for ")[0] for title in titles] == [
        "Accuracy (top1)",
        "Latency",
        "Speed and accuracy",
    ] * 2
    assert pages["refused"].count("svg") == 2


def test_each_kind_of_loss_has_its_name_its_question_and_its_verdict(
    pages: dict[str, Page],
) -> None:
    _, _, told = pages["win"].text.partition("Where accuracy is lost")
    for said in (
        "Pre-processing Is the model fed as it was trained?",
        "Conversion Does float32 answer on this runtime",
        "Quantization Does the quantized file answer as float32 does",
        "✓ pass on openvino",
    ):
        assert said in told


def test_the_calibration_is_described_and_its_warnings_are_said(pages: dict[str, Page]) -> None:
    _, _, told = pages["win"].text.partition("Calibration ? There are")
    assert "300, 4 of them repeat another" in told
    assert "Values of image from 0 to 1.00" in told
    assert "95 % of them after 120 samples" in told
    assert "2 tensors have values beyond their range, most of all relu_3 2.10 %" in told
    assert "There is nothing to say of it. The model is no ONNX file." in pages["refused"].text


def test_targets_that_were_left_out_and_runtimes_that_could_not_are_named(
    pages: dict[str, Page],
) -> None:
    text = pages["undecided"].text
    assert "Targets left out cpu-arm64 needs arm64, the device is amd64" in text
    assert "Not on openvino: It has no kernel for it." in text


def test_limits_are_told_and_repeated_in_the_command() -> None:
    limits = Limits(max_model_bytes=4_000_000, max_start_ms=250)
    text = Page(written(classifier(limits=limits).parts())).text
    assert "4000000B a file at most, 250ms until it is ready at most" in text
    assert "--max-size 4000000B" in text
    assert "--max-start 250ms" in text


def test_a_target_that_was_only_emulated_does_not_take_this_machines_times_for_its_own() -> None:
    text = Page(written(emulated().parts())).text
    assert "Times and answers in this part are of this machine, not of cpu-arm64" in text
    assert "Convert on such a machine, or deploy it all the same with --accept-undecided" in text
    assert "speedup undecided not measured on such a machine" in text


def test_sensitive_nodes_are_shown_worst_first() -> None:
    parts = sensitive(classifier().parts(), "static u8s8 minmax", losses())
    text = Page(written(parts)).text
    assert "The 20 of 81 nodes" in text
    assert text.index("blocks_0/depthwise_0/depthwise_Fused (Conv)") < text.index(
        "blocks_1/depthwise_1/depthwise_Fused (Add)"
    )
    assert "depthwise_20" not in text


def test_the_front_is_what_nothing_else_beats() -> None:
    def point(label: str, speed: float, drop: float) -> charts.Point:
        return charts.Point(label=label, runtime="", speed=speed, drop=drop, verdict=None)

    points = [point("float", 1, 0), point("a", 2, 0.01), point("b", 1.5, 0.02), point("c", 3, 0.3)]
    assert [p.label for p in charts.pareto_front(points)] == ["c", "a", "float"]


@pytest.mark.parametrize(
    "times", [(1.0,) * 40, (3.0,), (0.001, 5000.0) * 6], ids=["equal", "single", "wild"]
)
def test_any_timings_can_be_drawn(times: tuple[float, ...]) -> None:
    spread = charts.Spread(label="int8", milliseconds=times, is_float=False)
    assert charts.latency_chart([spread], title="t").startswith("<svg")


def test_a_perfect_score_without_an_interval_can_be_drawn() -> None:
    whisker = charts.Whisker(label="a", runtime="b", value=1.0, low=1.0, high=1.0)
    assert "100.00 %" in charts.accuracy_chart([whisker], max_drop=0.01, title="t")


def hostile_parts() -> Any:
    parts = recogniser(accept_undecided=HOSTILE[0]).parts()
    told = " ".join(HOSTILE)
    attempts = {
        name: tuple(
            msgspec.structs.replace(
                a, move=f"{a.move} {told}", refused=a.refused and told, failed={told: told}
            )
            for a in tried
        )
        for name, tried in parts.attempts.items()
    }
    candidates = tuple(msgspec.structs.replace(c, move=told) for c in parts.candidates)
    nodes = tuple(NodeLoss(name=h, operator=h, sqnr_db=3.0) for h in HOSTILE)
    gate = GateResult(name="accuracy", result=Verdict.FAIL, reason=told)
    changed = msgspec.structs.replace(
        parts,
        attempts=attempts,
        candidates=candidates,
        warnings=(told, *HOSTILE),
        losses=(Loss(kind="quantization", target=told, runtime=told, move=told, gate=gate),),
        skipped=(Skipped(target=told, reason=told),),
    )
    return sensitive(changed, told, nodes)


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    page = Page(written(hostile_parts()))
    assert not page.count("script")
    assert not page.count("img")
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    assert HOSTILE[0] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "モデル" in page.text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page.text)


@pytest.mark.parametrize("name", STORIES)
def test_nothing_is_asked_for_from_anywhere(pages: dict[str, Page], name: str) -> None:
    page = pages[name]
    policy = next(
        given["content"] or ""
        for tag, given in page.elements
        if given.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not page.attributes("src")
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert all(where.startswith("url(#") for where in page.attributes("clip-path"))
    assert not page.attributes("style")
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.elements}
    css = (Path(charts.__file__).parent / "report.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


@pytest.mark.parametrize("name", STORIES)
def test_names_within_a_page_are_its_only_ones(pages: dict[str, Page], name: str) -> None:
    page = pages[name]
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    wanted = {link.removeprefix("#") for link in page.attributes("href")}
    wanted |= {where[5:-1] for where in page.attributes("clip-path")}
    assert wanted <= set(ids)


def test_the_same_parts_give_the_same_bytes_whatever_the_readers_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import matplotlib as mpl

    first = written(classifier().parts())
    np.random.seed(1)  # noqa: NPY002 -- nothing may depend on it
    with mpl.rc_context({"font.size": 31, "lines.linewidth": 9, "text.usetex": True}):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
        assert written(classifier().parts()) == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_a_browser_shows_it_whole_and_without_complaint(
    browser: Browser, tmp_path: Path, scheme: Any, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(written(hostile_parts()))
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
        java_script_enabled=True,
    )
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.title() == "sign-recogniser:1.2.0: conversion report"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("figure svg").count() == 4
    page_colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page_colour == {"light": "rgb(243, 245, 248)", "dark": "rgb(16, 21, 27)"}[scheme]
    inks = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => getComputedStyle(t).fill)"
    )
    assert inks
    assert "rgb(0, 0, 0)" not in inks
    context.close()
    assert said == []
    assert asked == [path.as_uri()]


def test_no_label_of_a_chart_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(written(sensitive(classifier().parts(), "static u8s8", losses())))
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(path.as_uri())
    outside = page.evaluate(
        """[...document.querySelectorAll('figure')].flatMap(figure => {
          const around = figure.getBoundingClientRect();
          return [...figure.querySelectorAll('text')].filter(text => {
            const box = text.getBoundingClientRect();
            return box.left < around.left || box.right > around.right;
          }).map(text => text.textContent);
        })"""
    )
    page.close()
    assert outside == []
