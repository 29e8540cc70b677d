"""Series out of roll-ups: what they are of, how they are cut into steps, who may see which."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cloud_sync.messages import Batch, Record, RecordKind, Window
from cloud_sync.sketch import Sketch
from edgeml.errors import UserError
from fleet.rollouts.selector import parse_selector
from fleet.services import Services, devices, metrics, records, retention, rollups
from fleet.services.metrics import Asked
from fleet.services.retention import DAY_S, Retention

NOW = 1_700_000_000 // 86400 * 86400.0
OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def tell(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any, clock: Any
) -> Callable[..., None]:
    """Three devices on two sites; store what one of them measured at a time."""
    clock.now = NOW + 100
    for name, site in (("cam-1", "north"), ("cam-2", "north"), ("cam-3", "south")):
        enroll(services, tmp_path, name)
        devices.set_labels(services, operator, name, {"site": site, "line": name[-1]})
    numbers = iter(range(1, 10_000))

    def told(device: str, at: float, milliseconds: float, **fields: Any) -> None:
        known: dict[str, Any] = {
            "model": "digits",
            "source": "belt",
            "release": OLD,
            "variant": NEW,
            "seconds": 10.0,
            "accepted": 10,
            "replaced": 0,
            "inferred": 10,
            "latency": {"inference": Sketch.of([milliseconds] * 10)},
        }
        window = Window(**known | fields)
        record = Record(
            seq=next(numbers),
            kind=RecordKind.TELEMETRY,
            at=at,
            monotonic=1.0,
            body=msgspec.Raw(msgspec.json.encode(window)),
        )
        batch = Batch(device=device, stream="s", boot_id="b", records=(record,))
        records.store(services, [records.SignedBatch(batch, b"proof")])

    return told


def asked(**fields: Any) -> Asked:
    known: dict[str, Any] = {"begin": NOW - 3600, "end": NOW + 60, "model": "digits"}
    return Asked(**known | fields)


def test_latency_errors_and_rates_are_given_minute_by_minute(
    services: Services, tell: Callable[..., None]
) -> None:
    tell("cam-1", NOW - 120, 10.0)
    tell("cam-3", NOW - 90, 100.0)
    tell("cam-1", NOW + 1, 10.0, inferred=8, empty=1, errors=1)
    rollups.fold_all(services)
    found = metrics.series(services, asked())
    assert (found["step_s"], found["stage"], found["cut"]) == (60, "inference", False)
    [one] = found["series"]
    assert [(p["at"] - NOW, p["windows"]) for p in one["points"]] == [(-120, 2), (0, 1)]
    first, last = one["points"]
    assert first["p50_ms"] == pytest.approx(10, rel=0.05)
    assert first["p99_ms"] == pytest.approx(100, rel=0.05)
    assert (first["error_rate"], last["error_rate"]) == (0.0, 0.1)
    assert last["per_s"] == pytest.approx(0.8)
    assert (one["total"]["inferred"], one["total"]["windows"]) == (28, 3)


def test_series_are_kept_apart_by_release_site_and_class(
    services: Services, tell: Callable[..., None]
) -> None:
    tell("cam-1", NOW, 10.0)
    tell("cam-2", NOW, 20.0, release=NEW)
    tell("cam-3", NOW, 30.0, release=NEW)
    rollups.fold_all(services)
    found = metrics.series(services, asked(by=("release", "label:site", "hardware_class")))
    kind = "x86_64-avx512_vnni-2c"
    assert {tuple(one["of"].values()) for one in found["series"]} == {
        (OLD, "north", kind),
        (NEW, "north", kind),
        (NEW, "south", kind),
    }
    (north,) = metrics.series(services, asked(selector="site=north", release=NEW))["series"]
    assert north["total"]["p50_ms"] == pytest.approx(20, rel=0.05)
    assert metrics.series(services, asked(hardware_class="another"))["series"] == []


def test_devices_and_labels_that_roll_ups_do_not_keep_apart_are_answered_by_the_hour(
    services: Services, tell: Callable[..., None]
) -> None:
    tell("cam-1", NOW, 10.0)
    tell("cam-2", NOW, 20.0)
    rollups.fold_all(services)
    found = metrics.series(services, asked(selector="line in (2,3)"))
    assert found["step_s"] == 3600
    assert [one["total"]["windows"] for one in found["series"]] == [1]
    each = metrics.series(services, asked(by=("device",)))
    assert [one["of"]["device"] for one in each["series"]] == ["cam-1", "cam-2"]
    (one,) = metrics.series(services, asked(device="cam-2"))["series"]
    assert one["total"]["p50_ms"] == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("by", [(), ("device",)])
def test_a_scope_leaves_out_what_is_not_the_callers(
    services: Services, tell: Callable[..., None], by: tuple[str, ...]
) -> None:
    tell("cam-1", NOW, 10.0)
    tell("cam-3", NOW, 30.0)
    rollups.fold_all(services)
    for scope in ("site=south", "line=3"):
        (one,) = metrics.series(services, asked(by=by), parse_selector(scope))["series"]
        assert one["total"]["p50_ms"] == pytest.approx(30, rel=0.05)
        assert one["of"] in ({}, {"device": "cam-3"})


@pytest.mark.parametrize(
    ("span_s", "step_s"),
    [
        (3600, 60),
        (5 * 3600, 60),
        (6 * 3600, 300),
        (7 * 86400, 3600),
        (300 * 86400, 86400),
        (3000 * 86400, 10 * 86400),
    ],
)
def test_a_series_has_at_most_so_many_points(
    services: Services, tell: Callable[..., None], span_s: int, step_s: int
) -> None:
    tell("cam-1", NOW, 10.0)
    rollups.fold_all(services)
    found = metrics.series(services, asked(begin=NOW + 60 - span_s))
    assert found["step_s"] == step_s
    assert span_s / found["step_s"] <= metrics.MAX_POINTS
    assert found["series"][0]["total"]["windows"] == 1


def test_what_minutes_do_not_reach_back_to_is_answered_by_the_hour(
    services: Services, tell: Callable[..., None], clock: Any
) -> None:
    tell("cam-1", NOW - 3 * DAY_S, 10.0)
    tell("cam-1", NOW, 20.0)
    rollups.fold_all(services)
    retention.forget(services, Retention())
    found = metrics.series(services, asked(begin=NOW - 3 * DAY_S, end=NOW - 3 * DAY_S + 3600))
    assert found["step_s"] == 3600
    assert found["series"][0]["total"]["windows"] == 1
    assert metrics.series(services, asked())["step_s"] == 60


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"begin": NOW, "end": NOW}, "time range is empty"),
        ({"stage": "thinking"}, "no stage"),
        ({"by": ("colour",)}, "cannot be kept apart"),
        ({"by": ("hardware_class",), "device": "cam-1"}, "cannot be kept apart"),
        ({"selector": "site~x"}, "cannot be read"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_what_would(
    services: Services, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        metrics.series(services, asked(**fields))
    assert caught.value.fix


def test_the_api_gives_series(http: httpx.Client) -> None:
    query: dict[str, Any] = {"model": "digits", "by": ["release", "label:site"], "step": 3600}
    answer = http.get("/api/v1/metrics", params=query)
    assert answer.status_code == 200
    assert answer.json()["series"] == []
    assert answer.json()["step_s"] == 3600
    refused = http.get("/api/v1/metrics", params={"by": "colour"})
    assert refused.status_code == 422
    assert "cannot be kept apart" in refused.json()["title"] + refused.json().get("detail", "")
