"""What the pages of devices and releases say, decided without a browser."""

from typing import Any

import msgspec
import pytest

from cloud_sync.messages import Measure, Window
from edgeml.errors import UserError
from fleet.console.views import (
    audit,
    compare,
    device,
    device_charts,
    devices,
    releases,
    tables,
)
from fleet.console.views.evidence import accuracy_text
from fleet.console.views.releases import Figures, VariantRow
from fleet.resources import DeviceInfo
from fleet.services.device_search import Wanted

NOW = 1_790_000_000.0


def info(**changes: Any) -> DeviceInfo:
    model = {
        "phase": "committed",
        "running_version": "1.0.0",
        "running_release": "sha256:a",
        "release_version": "1.0.0",
        "reason": "",
    }
    made: dict[str, Any] = {
        "device": "cam-1",
        "labels": {"site": "north"},
        "enrolled_at": NOW - 9000,
        "revoked_at": None,
        "online": True,
        "last_seen": NOW - 1,
        "hardware_class": "x86_64-avx2-4c",
        "agent_version": "0.1.0",
        "boot_id": "b",
        "capabilities": None,
        "reported": {"models": {"digits": model}, "config_version": 3, "desired_counter": 2},
        "desired": {
            "epoch": 0,
            "counter": 2,
            "issued_at": NOW,
            "expires_at": NOW,
            "config_version": 3,
            "models": {"digits": {"release": "sha256:a", "release_version": "1.0.0"}},
        },
        "configuration": {},
        "key_id": "k" * 64,
    }
    return made | changes  # type: ignore[return-value]


def test_a_row_says_what_runs_and_where_it_stands() -> None:
    row = devices.row(info(), NOW)
    assert (row.runs, row.state, row.phase, row.labels) == (
        "digits:1.0.0", "online", "committed", "site=north",
    )  # fmt: skip
    assert devices.row(info(revoked_at=NOW), NOW).state == "revoked"
    assert devices.row(info(last_seen=None, reported=None), NOW).state == "never seen"


def test_the_twin_is_good_only_where_all_is_as_desired() -> None:
    assert {line.tone for line in device.twin(info())} == {"good"}
    behind = info()
    assert behind["desired"] is not None
    behind["desired"]["models"]["digits"] = {"release": "sha256:b", "release_version": "1.1.0"}
    assert behind["reported"] is not None
    behind["reported"]["models"]["digits"] |= {"phase": "rolled_back", "reason": "too slow"}
    line = device.twin(behind)[0]
    assert (line.desired, line.reported, line.tone) == ("1.1.0", "1.0.0", "bad")
    assert line.note == "rolled back: too slow"


def test_a_refused_configuration_says_why() -> None:
    said = info(reported={"config_version": 2, "config_error": "no such source", "models": {}})
    line = next(line for line in device.twin(said) if line.name == "configuration")
    assert (line.tone, line.note) == ("bad", "refused: no such source")


def test_an_address_holds_all_that_is_looked_for() -> None:
    wanted = Wanted(selector="site in (a,b)", state="offline", hardware_class="x", phase="trial")
    assert devices.wanted_of(devices.query_of(wanted)) == wanted


@pytest.mark.parametrize("text", ["", "site", "=north", "-", "a=1 a-", "bad key!=1"])
def test_what_is_no_change_of_labels_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        devices.parse_labels(text)


def test_labels_are_read_as_they_are_written() -> None:
    change = devices.parse_labels("site=north, line=3 old-")
    assert (change.put, change.drop) == ({"site": "north", "line": "3"}, ("old",))


def test_text_in_a_table_stays_text() -> None:
    cell = tables.Cell("<script>", address='"><img src=x>', note="<b>")
    made = tables.table(["<i>"], {'"key': [cell]}, label="<caption>", chosen={'"key'})
    for tag in ("<script", "<img", "<i>", "<b>", "<caption>"):
        assert tag not in made.replace('<caption class="hidden">', "")


def figures(value: float, width: float = 0.01) -> Figures:
    return Figures(accuracy=value, low=value - width, high=value + width, p50_ms=1.0, p95_ms=2.0)


def variant(found: Figures, size: int = 100, precision: str = "int8") -> VariantRow:
    return VariantRow(
        key="k", target="cpu", precision=precision, place="", size=f"{size} B", accuracy="x",
        latency="", memory="", checked="artifact-executed", needs="", bytes=size, figures=found,
    )  # fmt: skip


def test_a_difference_of_accuracy_counts_only_where_the_intervals_are_apart() -> None:
    near = compare.variants([variant(figures(0.96))], [variant(figures(0.955))])[0].lines[0]
    assert near.difference == "-0.50 points, the intervals overlap"
    assert near.tone == "idle"
    far = compare.variants([variant(figures(0.96))], [variant(figures(0.90))])[0].lines[0]
    assert (far.difference, far.tone) == ("-6.00 points", "bad")


def test_a_variant_that_one_release_lacks_is_named() -> None:
    pairs = compare.variants([variant(figures(0.9))], [variant(figures(0.9), precision="float32")])
    assert [pair.note for pair in pairs] == [
        "Only the second release has it.",
        "The second has none such.",
    ]


def test_less_is_better_for_sizes() -> None:
    lines = compare.variants([variant(figures(0.9), 200)], [variant(figures(0.9), 100)])[0].lines
    assert (lines[1].difference, lines[1].tone) == ("-50.0%", "good")


def test_accuracy_is_said_with_its_interval() -> None:
    said = {"value": 0.962, "low": 0.953, "high": 0.971, "confidence": 0.95, "n": 1797}
    assert accuracy_text(said) == "96.2 % (95 % interval 95.3 to 97.1, n = 1,797)"


@pytest.mark.parametrize(
    ("state", "role", "tone"),
    [
        ("signed", "targets", "good"),
        ("waits for signatures", "team", "warn"),
        ("unsigned", "targets", "bad"),
        ("unsigned", "", "warn"),
    ],
)
def test_a_signature_is_one_sentence(state: str, role: str, tone: str) -> None:
    shown = releases.signature(
        {
            "state": state, "role": role, "version": 2, "expires_at": NOW, "threshold": 2,
            "signed": ["alice"], "may_sign": ["bob"],
        }
    )  # fmt: skip
    assert shown.tone == tone
    assert bool(shown.command) == (state != "signed")


def test_the_history_shows_the_gate_that_an_update_ended_with() -> None:
    entry: Any = {
        "id": 1, "at": NOW, "received_at": NOW, "model": "digits", "phase": "rolled_back",
        "version": "1.1.0", "release": "sha256:b", "running_version": "1.0.0", "rollout": "r",
        "reason": "3% of 60 results were confident",
    }  # fmt: skip
    gate = {"name": "live.confident_share", "result": "fail", "value": 0.03, "bound": 0.77}
    said: Any = {"rollout": "r", "release": "sha256:b", "evidence": {"gates": [gate]}}
    other: Any = {**said, "rollout": "another"}
    trial: Any = {**entry, "phase": "trial"}
    ended, on_trial = device.history([entry, trial], [said])
    assert ended.gate is not None
    assert (ended.gate.numbers, ended.gate.tone) == ("0.03, at least 0.77", "bad")
    assert ended.gate.plot is not None
    assert on_trial.gate is None
    assert device.history([entry], [other])[0].gate is None


def test_what_a_device_measures_gets_charts_of_its_own() -> None:
    window = Window(
        model="digits", source="belt", release="sha256:" + "a" * 64,
        variant="sha256:" + "b" * 64, seconds=5.0, accepted=60, replaced=0, inferred=60,
        classes={"3": 60}, metrics={"temperature_c": Measure(n=2, sum=130.0, min=60, max=70)},
    )  # fmt: skip
    items: Any = [
        {"at": NOW + number, "received_at": NOW, "window": msgspec.to_builtins(window)}
        for number in range(6)
    ]
    found = {chart.title: chart for chart in device_charts.of_windows(items)}
    assert found["Temperature"].lines[0].points[0][1] == 65.0
    assert [value for _, value in found["Drift"].lines[0].points] == [0.0] * 6


def test_the_audit_log_is_told_in_words_and_leads_to_what_it_is_about() -> None:
    entry: Any = {
        "seq": 7, "at": NOW, "actor": "olga", "action": "release.block", "reason": "too slow",
        "subject": "digits:1.1.0 on x86_64", "detail": {}, "hash": "", "previous_hash": "",
    }  # fmt: skip
    assert audit.words(entry) == "Release blocked"
    assert audit.address_of(entry) == "/console/releases/digits/1.1.0"
    halted: Any = {**entry, "action": "rollout.halt"}
    assert audit.words(halted) == "Rollout: halted"


def test_a_simulated_fpga_is_named_so_and_a_variant_names_the_part_that_it_needs() -> None:
    fpga = {"kind": "fpga", "part": "LFE5U-25F", "driver": "simulated FPGA"}
    told = dict(device.about(info(capabilities={"accelerators": [fpga]})))
    assert told["Accelerators"] == "LFE5U-25F (simulated FPGA)"
    assert "Accelerators" not in dict(device.about(info()))
    wanted = {"runtimes": [{"name": "fpga"}], "accelerator": {"kind": "fpga", "part": "LFE5U-25F"}}
    assert releases.needs(wanted) == "fpga; LFE5U-25F"
