"""Roll-ups against a recount of what is stored, whatever came, came late or came again."""

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from cloud_sync.messages import Batch, Measure, Record, RecordKind, Window
from cloud_sync.sketch import Sketch
from fleet.db import tables
from fleet.services import Services, devices, figures, metrics, records, retention, rollups
from fleet.services.retention import DAY_S, Retention
from fleet.sums import MOST, Sums

NOW = 1_700_000_000.0
NAMES = ("cam-1", "cam-2", "cam-3")


def window(**fields: Any) -> Window:
    known: dict[str, Any] = {
        "model": "digits",
        "source": "belt",
        "release": "sha256:" + "a" * 64,
        "variant": "sha256:" + "b" * 64,
        "seconds": 10.0,
        "accepted": 12,
        "replaced": 1,
        "inferred": 9,
        "empty": 1,
        "errors": 1,
        "confident": 8,
        "latency": {"inference": Sketch.of([3.0, 5.0])},
        "rss_bytes": 1000,
    }
    return Window(**known | fields)


def batch(device: str, *told: tuple[int, float | None, Window], stream: str = "s") -> Any:
    made = Batch(
        device=device,
        stream=stream,
        boot_id="boot",
        records=tuple(
            Record(
                seq=seq,
                kind=RecordKind.TELEMETRY,
                at=at,
                monotonic=1.0,
                body=msgspec.Raw(msgspec.json.encode(body)),
            )
            for seq, at, body in told
        ),
    )
    return records.SignedBatch(made, b"proof")


@pytest.fixture
def fleet_of_three(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> Services:
    for name, site in zip(NAMES, ("north", "north", "south"), strict=True):
        enroll(services, tmp_path, name)
        devices.set_labels(services, operator, name, {"site": site, "line": "3"})
    return services


def stored_sums(services: Services) -> dict[tuple[Any, ...], Sums]:
    with services.database.read() as session:
        rows = list(session.scalars(select(tables.RollUp)))
    return {
        (r.step, r.begins_at, r.model, r.release, r.hardware_class, r.labels): rollups.sums_of(r)
        for r in rows
    }


def recounted(services: Services) -> dict[tuple[Any, ...], list[Window]]:
    """Every stored window, under each roll-up that it belongs to."""
    found: dict[tuple[Any, ...], list[Window]] = defaultdict(list)
    with services.database.read() as session:
        for row in session.scalars(select(tables.Record)):
            if row.kind != RecordKind.TELEMETRY:
                continue
            device = session.get_one(tables.Device, row.device)
            at = row.received_at
            if row.at is not None and 0 < row.at <= row.received_at + 300:
                at = row.at
            site = '{"site":"%s"}' % ("south" if row.device == "cam-3" else "north")
            body = msgspec.json.decode(row.body, type=Window)
            for step in (60, 3600, 86400):
                begins_at = math.floor(at / step) * step
                key = (step, begins_at, row.model, row.release, device.hardware_class, site)
                found[key].append(body)
    return found


def same(sums: Sums, windows: list[Window]) -> bool:
    """Whether sums are those of windows, counted another way."""
    counts = ("accepted", "replaced", "inferred", "empty", "errors", "confident")
    for name in counts:
        assert getattr(sums, name) == sum(getattr(one, name) for one in windows)
    assert sums.windows == len(windows)
    assert sums.seconds == pytest.approx(sum(one.seconds for one in windows))
    assert sums.rss_bytes == max(one.rss_bytes for one in windows)
    measured = [one for one in windows if one.energy_j is not None]
    assert sums.energy_j == pytest.approx(sum(one.energy_j or 0.0 for one in measured))
    assert sums.energy_inferred == sum(one.inferred for one in measured)
    values = [one.metrics["glare"] for one in windows if "glare" in one.metrics]
    if values:
        glare = sums.metrics["glare"]
        assert (glare.n, glare.max) == (sum(m.n for m in values), max(m.max for m in values))
        assert glare.sum == pytest.approx(sum(m.sum for m in values))
    every = Sketch()
    for one in windows:
        every = every.merged(one.latency.get("inference", Sketch()))
    for percent in (1, 50, 95, 99, 100):
        expected = every.percentile(percent) if every.count else None
        assert sums.percentile("inference", percent) == expected
    return True


def agree(services: Services) -> None:
    rollups.fold_all(services)
    kept, counted = stored_sums(services), recounted(services)
    assert kept.keys() == counted.keys()
    assert all(same(kept[key], counted[key]) for key in kept)


def measured(values: list[float]) -> Measure:
    return Measure(n=len(values), sum=math.fsum(values), min=min(values), max=max(values))


latencies = st.lists(st.floats(0, 1e6), max_size=4)
times = st.none() | st.sampled_from([NOW, NOW - 59, NOW - 4000, NOW - 2 * 86400, NOW + 1e6, -5.0])
windows = st.builds(
    lambda frames, errors, values, model, digest: window(
        accepted=frames + errors,
        inferred=frames,
        errors=errors,
        model=model,
        release="sha256:" + digest * 64,
        latency={"inference": Sketch.of(values)} if values else {},
        rss_bytes=frames,
        energy_j=float(frames) if values else None,
        metrics={"glare": measured(values)} if values else {},
    ),
    st.integers(0, 1000),
    st.integers(0, 5),
    latencies,
    st.sampled_from(["digits", "faces"]),
    st.sampled_from("ab"),
)
sent = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(1, 12), times, windows), min_size=1, max_size=12
)


@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(sent, st.booleans()), min_size=1, max_size=5))
def test_roll_ups_are_what_a_recount_of_the_store_gives_whatever_comes_late_or_again(
    fleet_of_three: Services,
    clock: Any,
    rounds: list[tuple[list[tuple[str, int, float | None, Window]], bool]],
) -> None:
    services = fleet_of_three
    clock.now = NOW
    with services.database.write() as session:
        for table in (tables.Record, tables.Stream, tables.RollUp, tables.DeviceRollUp):
            session.execute(delete(table))
        rollups.forgot(session)
    for told, folded in rounds:
        batches = [batch(device, (seq, at, body)) for device, seq, at, body in told]
        records.store(services, batches)
        records.store(services, batches[::2])  # comes again
        if folded:
            rollups.fold(services, limit=3)
    agree(services)


def test_numbers_that_the_database_gives_again_are_no_records_that_were_summed_up(
    fleet_of_three: Services, clock: Any
) -> None:
    services = fleet_of_three
    for days in range(3):
        clock.now = NOW + days * 40 * DAY_S
        told = [(n, clock.now, window()) for n in range(days * 5 + 1, days * 5 + 6)]
        records.store(services, [batch("cam-1", *told)])
        rollups.fold_all(services)
        retention.forget(services, Retention(records_days=30, minute_days=1000, hour_days=1000))
    kept = [one.windows for key, one in stored_sums(services).items() if key[0] == 60]
    assert kept == [5, 5, 5]


def test_a_record_is_summed_up_once_though_several_do_it_at_the_same_time(
    fleet_of_three: Services,
) -> None:
    import threading

    services = fleet_of_three
    records.store(services, [batch("cam-1", *((n, NOW, window()) for n in range(1, 201)))])
    faults: list[Exception] = []

    def run() -> None:
        try:
            for _ in range(40):
                rollups.fold(services, limit=11)
        except Exception as error:  # noqa: BLE001 -- any fault is the failure
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    agree(services)


def test_what_a_lying_device_says_is_bounded_and_stops_nothing(fleet_of_three: Services) -> None:
    huge = 2**63 - 1
    lies = [
        window(accepted=huge, inferred=-5, rss_bytes=huge, seconds=-1.0),
        window(accepted=huge, latency={"inference": Sketch(zeros=huge, buckets={"3": huge})}),
        window(latency={f"stage {n}": Sketch.of([1.0]) for n in range(100)}, seconds=1e300),
    ]
    told = [(n, NOW, one) for n, one in enumerate(lies, 1)]
    records.store(fleet_of_three, [batch("cam-1", *told)])
    rollups.fold_all(fleet_of_three)
    sums = [one for key, one in stored_sums(fleet_of_three).items() if key[0] == 86400]
    (one,) = sums
    assert (one.accepted, one.inferred, one.rss_bytes) == (MOST, 9 + 9, MOST)
    assert one.seconds == 86400.0 + 10.0
    assert len(one.latency) == 16


def test_what_is_forgotten_was_summed_up_before_and_roll_ups_outlive_it(
    fleet_of_three: Services, clock: Any
) -> None:
    services = fleet_of_three
    clock.now = NOW
    records.store(services, [batch("cam-1", (1, NOW, window()))])
    keep = Retention(records_days=1, minute_days=2, hour_days=10, day_days=100, device_days=5)

    def left() -> tuple[int, list[int], int]:
        with services.database.read() as session:
            steps = sorted(session.scalars(select(tables.RollUp.step)))
            of_devices = len(list(session.scalars(select(tables.DeviceRollUp))))
            return len(list(session.scalars(select(tables.Record)))), steps, of_devices

    ages = {
        0.5: (1, [60, 3600, 86400], 1),
        1.5: (0, [60, 3600, 86400], 1),
        3: (0, [3600, 86400], 1),
        6: (0, [3600, 86400], 0),
        11: (0, [86400], 0),
        102: (0, [], 0),
    }
    for days, expected in ages.items():
        clock.now = NOW + days * DAY_S
        retention.forget(services, keep)
        assert left() == expected, days


def test_what_devices_spent_is_forgotten_after_its_own_time(
    fleet_of_three: Services, clock: Any
) -> None:
    services = fleet_of_three
    clock.now = NOW
    entry = tables.LedgerEntry(
        device="cam-1", ledger="l", month="2023-11", rollout="", cause="full", sent=1, received=2,
        failures=0, note="", at=NOW,
    )  # fmt: skip
    with services.database.write() as session:
        session.add(entry)
    clock.now = NOW + 399 * DAY_S
    retention.forget(services, Retention())
    with services.database.read() as session:
        assert session.scalars(select(tables.LedgerEntry)).one()
    clock.now = NOW + 401 * DAY_S
    retention.forget(services, Retention())
    with services.database.read() as session:
        assert session.scalars(select(tables.LedgerEntry)).all() == []


def test_each_device_is_summed_up_by_the_hour_for_who_asks_since_when(
    fleet_of_three: Services,
) -> None:
    services, release = fleet_of_three, window().release
    told = [(1, NOW - 7200, window(errors=7)), (2, NOW, window()), (3, NOW + 1, window())]
    records.store(services, [batch("cam-1", *told), batch("cam-3", (1, NOW, window(errors=0)))])
    rollups.fold_all(services)
    with services.database.read() as session:
        found = rollups.by_device(session, "digits", release, NOW)
        one = rollups.by_device(session, "digits", release, NOW, ["cam-3"])
    assert [(f.device, f.sums.windows, f.sums.errors) for f in found] == [
        ("cam-1", 2, 2),
        ("cam-3", 1, 0),
    ]
    assert [f.device for f in one] == ["cam-3"]


def test_energy_and_metrics_are_summed_up_by_class_and_by_device(fleet_of_three: Services) -> None:
    services = fleet_of_three
    warm = Measure(n=1, sum=70.0, min=70.0, max=70.0)
    glare = Measure(n=2, sum=1.0, min=0.2, max=0.8)
    told = (
        window(energy_j=4.5, metrics={"temperature_c": warm, "glare": glare}),
        window(
            energy_j=None, metrics={"temperature_c": Measure(n=1, sum=60.0, min=60.0, max=60.0)}
        ),
        # What cannot be is not counted, and spoils nothing.
        window(energy_j=-1.0, metrics={"glare": Measure(n=1, sum=5.0, min=1.0, max=0.0)}),
    )
    records.store(services, [batch("cam-1", *((n, NOW, one) for n, one in enumerate(told, 1)))])
    rollups.fold_all(services)
    with services.database.read() as session:
        [of_device] = rollups.by_device(session, "digits", told[0].release, NOW)
    for sums in (of_device.sums, *stored_sums(services).values()):
        assert (sums.energy_j, sums.energy_per_inference_j) == (4.5, 0.5)
        assert sums.metrics == {
            "temperature_c": Measure(n=2, sum=130.0, min=60.0, max=70.0),
            "glare": glare,
        }
    found = dict(figures.of_sums(of_device.sums))
    assert found["temperature_c"].value == 70.0
    assert (found["glare"].value, found["glare"].n, found["glare.max"].value) == (0.5, 2, 0.8)
    assert (found["energy_per_inference_j"].value, found["error_rate"].n) == (0.5, 30)
    asked = metrics.Asked(begin=NOW - 60, end=NOW + 60)
    [series] = metrics.series(services, asked)["series"]
    assert series["total"]["energy_per_inference_j"] == 0.5
    assert series["total"]["metrics"]["glare"] == {"n": 2, "mean": 0.5, "min": 0.2, "max": 0.8}


def test_a_device_cannot_pass_a_figure_of_the_fleets_off_as_its_own() -> None:
    lie = window(metrics={"error_rate": Measure(n=9, sum=0.0, min=0.0, max=0.0)})
    sums = Sums()
    sums.add(lie)
    assert dict(figures.of_sums(sums))["error_rate"].value == pytest.approx(0.1)
