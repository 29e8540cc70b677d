"""Totals and their exposition, read by Prometheus' own parser."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cloud_sync.messages import ReportedSource, Window
from cloud_sync.sketch import Sketch
from edge_agent.api.device import ServedModel
from edge_agent.api.metrics import BOUNDS_MS, Figures, histogram
from edge_agent.api.totals import MAX_KEPT, Totals
from hardware.probes import Temperature

LATENCIES = (0.4, 3.0, 3.1, 900.0)


def window(version: str = "1.0.0", source: str = "belt", **counts: int) -> Window:
    return Window(
        model="digits",
        source=source,
        release="sha256:r",
        variant="sha256:v",
        release_version=version,
        seconds=2.0,
        **({"accepted": 5, "replaced": 1, "inferred": 4, "confident": 3} | counts),
        latency={"inference": Sketch.of(LATENCIES)},
    )


def samples(totals: Totals) -> dict[tuple[str, ...], float]:
    model = ServedModel(
        name="digits",
        version="1.0.0",
        release="sha256:r",
        variant="sha256:v",
        runtime="onnxruntime",
        inputs=(),
        outputs=(),
        duty=0.4,
    )
    text, kind = Figures(
        device="cam-1",
        agent_version="0.1",
        models=[model],
        totals=totals.all(),
        sources={
            "belt": ReportedSource(model="digits", state="running", seconds=9.0),
            "gate": ReportedSource(model="digits", state="lost", reason="off", seconds=70.5),
        },
        temperatures=[
            Temperature(zone="cpu", celsius=40.0),
            Temperature(zone="cpu", celsius=45.5),
            Temperature(zone='odd"zone\n', celsius=1.0),
        ],
        clock_share=0.5,
        rss_bytes=123,
    ).text()
    assert kind.startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_windows_add_up_by_model_version_and_source() -> None:
    totals = Totals()
    for each in (window(), window(errors=2, empty=1), window("1.1.0"), window(source="gate")):
        totals.add(each)
    found = samples(totals)
    belt = ("model=digits", "source=belt", "version=1.0.0")
    of_belt = belt[:1], belt[1:]
    assert found["edgeml_frames_accepted_total", *belt] == 10
    for outcome, count in {"inferred": 8, "replaced": 2, "error": 2, "empty": 1}.items():
        key = ("edgeml_frames_total", *of_belt[0], f"outcome={outcome}", *of_belt[1])
        assert found[key] == count
    assert found["edgeml_results_confident_total", *belt] == 6
    newer = ("model=digits", "source=belt", "version=1.1.0")
    assert found["edgeml_frames_accepted_total", *newer] == 5


def test_latency_is_a_histogram_in_seconds() -> None:
    totals = Totals()
    totals.add(window())
    totals.add(window())
    found = samples(totals)
    labels = ("model=digits", "source=belt", "stage=inference", "version=1.0.0")
    assert found["edgeml_latency_seconds_count", *labels] == 8
    total = found["edgeml_latency_seconds_sum", *labels]
    assert total == pytest.approx(2 * sum(LATENCIES) / 1000, rel=0.05)
    buckets = {
        key[1]: value for key, value in found.items() if key[0] == "edgeml_latency_seconds_bucket"
    }
    assert buckets["le=0.0005"] == 2
    assert buckets["le=0.004"] == 6
    assert buckets["le=+Inf"] == 8


def test_the_device_says_what_runs_how_warm_it_is_and_whether_it_is_held_back() -> None:
    found = samples(Totals())
    info = [key for key in found if key[0] == "edgeml_model_info"]
    assert info == [
        (
            "edgeml_model_info",
            "model=digits",
            "release=sha256:r",
            "runtime=onnxruntime",
            "variant=sha256:v",
            "version=1.0.0",
        )
    ]
    assert found["edgeml_temperature_celsius", "zone=cpu"] == 45.5
    assert found["edgeml_clock_ratio",] == 0.5
    assert found["edgeml_resident_memory_bytes",] == 123
    assert found["edgeml_agent_info", "agent_version=0.1", "device=cam-1"] == 1


def test_a_source_that_is_lost_is_down_since_so_many_seconds() -> None:
    found = samples(Totals())
    labels = ("model=digits", "source=gate")
    assert found["edgeml_source_up", "model=digits", "source=belt"] == 1
    assert found["edgeml_source_up", *labels] == 0
    assert found["edgeml_source_state_seconds", *labels, "state=lost"] == 70.5


def test_releases_that_ran_long_ago_are_forgotten() -> None:
    totals = Totals()
    for number in range(MAX_KEPT + 10):
        totals.add(window(f"1.{number}.0"))
        totals.add(window("0.9.0"))
    kept = {total.version for total in totals.all()}
    assert len(kept) == MAX_KEPT
    assert {"0.9.0", f"1.{MAX_KEPT + 9}.0"} <= kept
    assert "1.0.0" not in kept


@given(st.lists(st.floats(0.001, 60_000), max_size=50))
def test_the_buckets_count_exactly(values: list[float]) -> None:
    buckets, total = histogram(Sketch.of(values))
    for (_, count), bound in zip(buckets, BOUNDS_MS, strict=False):
        assert count == sum(value <= bound for value in values)
    assert buckets[-1] == ("+Inf", len(values))
    assert math.isclose(total, sum(values) / 1000, rel_tol=0.05, abs_tol=1e-9)
