"""An operator's journeys through rollouts, in a browser, over a live fleet of simulated devices."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout, ReleaseBuilder
from fleet.client import FleetClient
from hardware.profiles import select
from tests.e2e.loop import Loop, until
from tests.fleet.console.conftest import (
    NARROW,
    PATIENCE_MS,
    WIDE,
    Console,
    assert_accessible,
    live,
    photograph,
)

pytestmark = pytest.mark.e2e
POLICY = """
selector = "group={group}"
soak_s = 0
{more}
[[waves]]
count = 1
[[waves]]
percent = 100
[gates]
latency_slack_ms = 10000
[trial]
soak_s = 0
min_inferred = 5
min_confident_ratio = 0  # of five results chance may take some
latency_slack_ms = 10000
"""
NEVER_MEASURED = """
[[gates.metrics]]
name = "lux"
min = 1
"""
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "good": ("6", ()),
    "bad": ("3", ("--fault", "fails-test=100%")),
    "lone": ("1", ()),
}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A fleet, six devices that do well and three that fail their test, two releases."""
    made = Loop(tmp_path_factory.mktemp("fleet"))
    simulators = []
    try:
        made.start_fleet()
        for version in ("1.0.0", "1.1.0"):
            made.client.push(write_release(made.folder / version, version).folder)
        simulators = [simulator(made, group) for group in ("good", "bad")]
        until("the devices", lambda: sum(d["online"] for d in made.client.devices()) == 9)
        first = made.client.create_rollout("toy", "1.0.0", policy=policy("good"))["id"]
        assert made.finished(first)["status"] == "completed"
        yield made
    finally:
        for process in simulators:
            process.terminate()
            process.wait(60)
        made.close()


def simulator(loop: Loop, group: str) -> subprocess.Popen[bytes]:
    number, faults = GROUPS[group]
    command = [
        *(sys.executable, "-m", "edgeml.cli", "simulate", "--devices", number),
        *("--devices-url", f"http://127.0.0.1:{loop.ports[1]}"),
        *("--fleet", f"http://127.0.0.1:{loop.ports[0]}", "--data", str(loop.folder / "fleet")),
        *("--identities", str(loop.folder / group), "--prefix", group, "--fps", "100"),
        *("--label", f"group={group}", *faults),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def write_release(folder: Path, version: str) -> Layout:
    builder = ReleaseBuilder("toy", version)
    for rank, profile in enumerate(select(["cpu"])):
        builder.add_variant(
            target=profile.name, rank=rank, requires=profile.requirements(),
            format="onnx", precision="int8", quantization="",
            verification=Verification.ARTIFACT_EXECUTED,
            files={"model": ("model.onnx", version.encode() * 2000 + bytes([rank]))},
        )  # fmt: skip
    layout = Layout.create(folder)
    builder.write(layout)
    return layout


def policy(group: str, more: str = "") -> str:
    return POLICY.format(group=group, more=more)


@pytest.fixture(scope="module")
def people(loop: Loop) -> dict[str, str]:
    """Two operators and an approver, with passwords of their own."""
    found = {}
    for name, role in (("olga", "operator"), ("otto", "operator"), ("anna", "approver")):
        given = loop.client.add_user(name, role)["password"]
        with FleetClient(loop_url(loop), "") as client:
            token = client.login(name, given)["token"]
        found[name] = "three green lorries under water"
        with FleetClient(loop_url(loop), token) as client:
            client.change_password(given, found[name])
    return found


def loop_url(loop: Loop) -> str:
    return f"http://127.0.0.1:{loop.ports[0]}"


Desks = dict[str, tuple[Page, Console]]


@pytest.fixture(scope="module")
def at_desks(browser: Browser, loop: Loop, people: dict[str, str]) -> Iterator[Desks]:
    """Each of them in a browser of their own, where they logged in at the login page."""
    found: Desks = {}
    for name, password in people.items():
        context = browser.new_context(viewport=WIDE, reduced_motion="reduce")  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        page, console = context.new_page(), Console(loop_url(loop), None)  # type: ignore[arg-type]
        page.goto(f"{loop_url(loop)}/login")
        page.get_by_label("User").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/console/")
        console.watch(page)
        found[name] = page, console
    yield found
    for page, _ in found.values():
        page.context.close()


@pytest.fixture
def desks(at_desks: Desks, loop: Loop) -> Iterator[Desks]:
    """The same, clean; afterwards no rollout is in the next one's way, and nobody saw an error."""
    for _, console in at_desks.values():
        console.faults.clear()
    yield at_desks
    for left in loop.client.rollouts("toy"):
        if left["status"] not in {"completed", "halted", "aborted"}:
            loop.client.abort(left["id"])
    for page, console in at_desks.values():
        console.assert_clean()
        page.goto("about:blank")
        page.set_viewport_size(WIDE)  # type: ignore[arg-type]


def create(page: Page, console: Console, text: str, reaches: str) -> None:
    """Make a rollout of toy:1.1.0 by the wizard."""
    console.open(page, "/rollouts/new?model=toy&version=1.1.0")
    page.get_by_label("policy.toml", exact=True).fill(text)
    command = page.get_by_text("edgeml rollout create toy:1.1.0 --policy policy.toml")
    expect(command).to_be_visible()
    expect(page.get_by_label("Size of wave 2")).to_have_value("100")
    assert page.get_by_role("button", name="Create the rollout").is_disabled()
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_text(f"toy:1.1.0 reaches {reaches}")).to_be_visible()
    page.get_by_role("button", name="Create the rollout").click()
    page.get_by_role("button", name="Create", exact=True).click()
    page.wait_for_url(re.compile(r"/rollouts/toy-1\.1\.0-"))
    live(page)


def sentence(page: Page, text: str) -> None:
    expect(page.get_by_test_id("sentence")).to_contain_text(text, timeout=60_000)


def test_created_by_the_wizard_watched_to_its_end_and_rolled_back(loop: Loop, desks: Desks) -> None:
    page, console = desks["olga"]
    create(page, console, policy("good"), "6 of 6 devices")
    page.evaluate("window.untouched = true")
    sentence(page, "toy:1.1.0 is on 6 devices")
    assert page.evaluate("window.untouched")
    expect(page.get_by_text("completed").first).to_be_visible()
    expect(page.get_by_text("created", exact=True)).to_be_visible()  # the timeline
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("6 devices that have toy:1.1.0 are given")).to_be_visible()
    sure = page.get_by_role("alertdialog").get_by_role("button", name="Roll back")
    assert sure.is_disabled()
    page.get_by_label("To the version").select_option("1.0.0")
    page.get_by_label("Type toy:1.1.0 to confirm").fill("toy:1.1.0")
    sure.click()
    page.wait_for_url(re.compile(r"/rollouts/toy-1\.0\.0-"))
    live(page)
    sentence(page, "toy:1.0.0 is on 6 devices")


def test_a_gate_stops_it_the_page_says_why_and_a_retry_asks_the_device_again(
    loop: Loop, desks: Desks
) -> None:
    page, console = desks["otto"]
    create(page, console, policy("bad"), "3 of 3 devices")
    sentence(page, "toy:1.1.0 was halted in wave 1 of 2 (1 device): 1 of 1 device failed")
    expect(page.get_by_text("1 of 1 device failed, none may").last).to_be_visible()
    expect(page.get_by_role("link", name="bad-").first).to_be_visible()
    assert page.get_by_role("button", name="Abort").count() == 0
    assert_accessible(page)
    expect(page.locator(".telling")).to_be_visible()
    photograph(page, "rollout-halted")
    console.open(page, "/rollouts")
    expect(page.get_by_text("toy:1.1.0 was halted in wave 1 of 2").first).to_be_visible()
    page.go_back()
    live(page)
    page.get_by_role("button", name="Retry").click()
    sure = page.get_by_role("alertdialog")
    expect(sure).to_contain_text("1 device that failed, refused or went back is given toy:1.1.0")
    sure.get_by_role("button", name="Retry").click()
    happened = page.get_by_label("What happened (UTC)")
    expect(happened.get_by_text("tried again", exact=True)).to_be_visible()
    expect(happened.get_by_text("halted", exact=True)).to_have_count(2)


def test_who_approves_overrides_a_gate_with_a_reason_that_stays(loop: Loop, desks: Desks) -> None:
    loop.client.label_devices(["good-00000"], {"lit": "yes"})
    text = policy("good,lit=yes").replace("[[waves]]\ncount = 1\n", "") + NEVER_MEASURED
    made = loop.client.create_rollout("toy", "1.1.0", policy=text)["id"]
    page, console = desks["olga"]
    console.open(page, f"/rollouts/{made}")
    expect(page.locator(".gate").filter(has_text="lux").first).to_contain_text("undecided")
    assert page.get_by_role("button", name="Override the gate").count() == 0
    page, console = desks["anna"]
    console.open(page, f"/rollouts/{made}")
    gate = page.locator(".gate").filter(has_text="lux").first
    gate.get_by_role("button", name="Override the gate").click()
    sure = page.get_by_role("alertdialog")
    expect(sure).to_contain_text("counts as passed in this wave, though it says undecided")
    sure.get_by_label("Type toy:1.1.0 to confirm").fill("toy:1.1.0")
    assert sure.get_by_role("button", name="Override").is_disabled()
    sure.get_by_label("Reason, for the audit log").fill("the hall is lit")
    sure.get_by_role("button", name="Override").click()
    expect(gate).to_contain_text("the hall is lit")
    sentence(page, "toy:1.1.0 is on 1 device")
    happened = page.get_by_label("What happened (UTC)")
    expect(happened).to_contain_text("the hall is lit")


def test_somebody_else_approves_it_and_both_see_it_go_on(loop: Loop, desks: Desks) -> None:
    page, console = desks["olga"]
    other, her = desks["anna"]
    text = policy("good", 'approval = "before-start"')
    create(page, console, text, "6 of 6 devices")
    sentence(page, "The rollout waits for approval")
    expect(page.get_by_text("Approve: that needs the role approver")).to_be_visible()
    assert page.get_by_role("button", name="Approve").count() == 0
    her.open(other, page.url.partition("/console")[2])
    other.get_by_role("button", name="Approve").click()
    other.get_by_role("alertdialog").get_by_role("button", name="Approve").click()
    for shown in (page, other):
        sentence(shown, "toy:1.1.0 is on 6 devices")
        expect(shown.get_by_text("approved", exact=True)).to_be_visible()


def test_of_two_operators_at_once_the_second_is_told(loop: Loop, desks: Desks) -> None:
    page, console = desks["olga"]
    other, his = desks["otto"]
    # Nothing is given before that time, so that it stays where it is while both look.
    create(page, console, policy("good", 'start_at = "2099-01-01T00:00:00Z"'), "6 of 6")
    his.open(other, page.url.partition("/console")[2])
    for shown in (page, other):
        shown.get_by_role("button", name="Pause").click()
        expect(shown.get_by_role("alertdialog")).to_be_visible()
    other.get_by_role("alertdialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()  # live, below the dialog
    page.get_by_role("alertdialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert").filter(has_text="paused")).to_be_visible()
    sentence(other, "Paused by otto")
    other.get_by_role("button", name="Abort").click()
    other.get_by_label("Type toy:1.1.0 to confirm").fill("toy:1.1.0")
    other.get_by_role("alertdialog").get_by_role("button", name="Abort").click()
    expect(page.get_by_text("aborted").first).to_be_visible()


def test_a_device_goes_offline_and_returns(loop: Loop, desks: Desks) -> None:
    page, console = desks["otto"]
    console.open(page, "/devices?selector=group%3Dlone")
    page.evaluate("window.untouched = true")
    expect(page.get_by_text("No device is like that.")).to_be_visible()
    state = page.locator("tbody tr")
    for _ in range(2):
        process = simulator(loop, "lone")
        try:
            expect(state).to_contain_text("online", timeout=60_000)
            expect(page.locator("#main").get_by_role("status")).to_contain_text("1 of 10")
        finally:
            process.kill()
            process.wait()
        expect(state).to_contain_text("offline", timeout=60_000)
    assert page.evaluate("window.untouched")


def test_the_wizard_says_what_is_wrong_and_fits_a_telephone(loop: Loop, desks: Desks) -> None:
    page, console = desks["olga"]
    console.open(page, "/rollouts/new?model=toy&selector=group%3Dgood")
    expect(page.get_by_label("Selector, such as")).to_have_value("group=good")
    page.get_by_label("Error rate, at most").first.fill("7")
    expect(page.get_by_role("alert")).to_contain_text("gates.max_error_rate")
    page.get_by_label("Error rate, at most").first.fill("0.02")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_label("policy.toml", exact=True)).to_have_value(
        re.compile("max_error_rate = 0.02")
    )
    page.get_by_text("When it begins, and who is asked").click()
    page.get_by_role("button", name="Add a window").click()
    page.get_by_label("Opens at").fill("21:30")
    expect(page.get_by_label("policy.toml", exact=True)).to_have_value(
        re.compile(r'\[\[windows\]\]\nbegins = "21:30"')
    )
    page.get_by_role("button", name="Remove window 1").click()
    expect(page.get_by_label("Opens at")).to_have_count(0)
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_text("What each wave adds")).to_be_visible()
    assert_accessible(page)
    photograph(page, "wizard")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.wait_for_function("document.documentElement.scrollWidth <= 375")
