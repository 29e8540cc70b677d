from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from cloud_sync.data_budget import cost as on_the_network
from cloud_sync.delta import MIN_BYTES
from cloud_sync.messages import Cause, LedgerEntry, LedgerRecord
from cloud_sync.release import Release, Variant
from edgeml.errors import UserError
from fleet.db import tables
from fleet.deltas import Deltas, Pair
from fleet.prices import parse_prices
from fleet.rollouts import parse_policy
from fleet.services import Services, cost, devices, ledger, plans, releases
from fleet.services.enrollment import new_device
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo

OLD_MODEL, NEW_MODEL = b"weights " * 40_000, b"weights " * 39_990 + b"changed " * 10
PRICES = """
currency = "EUR"
[[prices]]
selector = "link=lte"
per_mb = 2.0
[[prices]]
selector = "link=wifi"
per_mb = 0
"""


def capable(*features: str, runtime: str = "1.20.0") -> Capabilities:
    return Capabilities(
        hardware_class=f"class-{'-'.join(features) or 'bare'}",
        cpu=Cpu(model="test", cores=2, features=features),
        memory_bytes=1 << 30,
        runtimes=(RuntimeInfo(name="onnxruntime", version=runtime),),
    )


def add_device(services: Services, name: str, said: Capabilities, **labels: str) -> None:
    """A device that has said hello, without what a plan does not look at."""
    with services.database.write() as session:
        row = new_device(name)
        row.capabilities = msgspec.json.encode(said).decode()
        row.hardware_class, row.last_seen, row.online = said.hardware_class, services.now(), True
        session.add(row)
        session.flush()
        session.add_all(
            tables.DeviceLabel(device=name, key=key, value=text) for key, text in labels.items()
        )


def push(
    services: Services, operator: Any, kit: Any, folder: Path, version: str, model: bytes
) -> Release:
    release: Release = kit.write_release(folder / version, version, model)
    for blob in (folder / version / "blobs" / "sha256").iterdir():
        services.registry.blobs.put_file(blob)
    releases.register(services, operator, "digits", release.digest)
    return release


def for_vnni(release: Release) -> Variant:
    return next(v for v in release.variants if v.target == "cpu-x86-64-vnni")


def run(services: Services, device: str, release: Release) -> None:
    """Have a device say that it runs a release."""
    digest = for_vnni(release).digest
    with services.database.write() as session:
        session.add(
            tables.ReportedModel(
                device=device, model="digits", phase="committed", running_release=release.digest,
                running_variant=digest, running_version=release.version, release=release.digest,
                variant=digest, release_version=release.version, rollout="", attempt=1, reason="",
                stream="s", at=0.0,
            )
        )  # fmt: skip


@pytest.fixture
def planned(
    services: Services, operator: Any, kit: Any, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Plans `digits:2.0.0`; gives the lines by device."""
    old = push(services, operator, kit, tmp_path, "1.0.0", OLD_MODEL)
    push(services, operator, kit, tmp_path, "2.0.0", NEW_MODEL)
    add_device(services, "fresh", capable("avx2", "avx512_vnni"), link="lte")
    add_device(services, "runs-1", capable("avx2", "avx512_vnni"), link="lte")
    run(services, "runs-1", old)
    add_device(services, "old-cpu", capable())
    add_device(services, "old-runtime", capable("avx2", runtime="1.0.0"), link="wifi")

    def plan(text: str = "") -> dict[str, Any]:
        found = plans.plan(services, "digits", "2.0.0", parse_policy(text))
        return {d["device"]: d for d in found["devices"]} | {"": found}

    return plan


@pytest.mark.sqlite
def test_a_plan_says_the_exact_need_that_a_device_lacks(planned: Callable[..., Any]) -> None:
    found = planned()
    assert "avx2" in found["old-cpu"]["reason"]
    assert "onnxruntime" in found["old-runtime"]["reason"]
    assert "1.0.0" in found["old-runtime"]["reason"]
    whole = found[""]
    assert (whole["fitting"], whole["unfitting"]) == (2, 2)
    assert sum(whole["reasons"].values()) == 2
    assert whole["by_class"]["class-avx2-avx512_vnni"] == {"cpu-x86-64-vnni int8": 2}
    assert whole["by_class"]["class-bare"] == {"nothing fits": 1}


@pytest.mark.sqlite
def test_a_plan_says_that_a_device_waits_for_ever(
    planned: Callable[..., Any], services: Services, operator: Any
) -> None:
    day = {"update_windows": [{"begins": "06:00", "ends": "21:00"}]}
    devices.configure(services, operator, "fresh", day)
    found = planned('[[windows]]\nbegins = "22:00"\nends = "05:00"')
    assert found["fresh"]["reason"] == (
        "It would get cpu-x86-64-vnni int8, but no time is in the windows of the policy, fresh at "
        "once: they wait for ever; change the windows."
    )
    assert "for ever" not in found["runs-1"]["reason"]


@pytest.mark.sqlite
def test_what_a_device_has_is_not_counted(planned: Callable[..., Any]) -> None:
    found = planned()
    fresh, runs = found["fresh"], found["runs-1"]
    assert fresh["bytes"] == fresh["full_bytes"]
    # The pipeline is the same blob in both releases.
    assert runs["bytes"] == runs["full_bytes"] - len(b"version = 1\n")
    assert runs["delta_bytes"] == 0


@pytest.mark.sqlite
def test_a_difference_counts_in_place_of_the_file(
    planned: Callable[..., Any], services: Services
) -> None:
    assert len(NEW_MODEL) > MIN_BYTES
    with services.database.read() as session:
        found = [releases.require(session, "digits", version) for version in ("1.0.0", "2.0.0")]
    old, new = (for_vnni(releases.document(row)).file("model") for row in found)
    made = Deltas(services.registry).make(Pair(old.digest, new.digest))
    assert made.digest
    found = planned()
    assert found["runs-1"]["bytes"] == found["runs-1"]["delta_bytes"] == made.size
    assert found["fresh"]["bytes"] == found["fresh"]["full_bytes"]


def test_bytes_are_held_against_what_is_left_of_the_budget(
    planned: Callable[..., Any], services: Services, operator: Any
) -> None:
    need = planned()["fresh"]["cost_bytes"]
    assert need == on_the_network(planned()["fresh"]["bytes"])
    for device, month in (("fresh", need + 100), ("runs-1", need + 101)):
        devices.configure(services, operator, device, {"data_budget": {"month_bytes": month}})
        entry = LedgerEntry(
            month="2023-11", rollout="", cause=Cause.FULL, sent=101, received=0, failures=0
        )
        with services.database.write() as session:
            ledger.keep(session, device, [LedgerRecord(ledger="l", entries=(entry,))], 0.0)
    found = planned()
    assert found["fresh"]["budget_left"] == need - 1
    assert not found["fresh"]["in_budget"]
    assert "are left for this month" in found["fresh"]["reason"]
    assert found["runs-1"]["in_budget"]
    assert found[""]["over_budget"] == 1
    narrow = planned("[limits]\ndata_budget_mb = 0.0001")
    assert narrow["runs-1"]["budget_left"] == 100
    assert narrow[""]["over_budget"] == 2


def test_a_plan_and_a_rollout_say_money_where_there_is_a_price(
    planned: Callable[..., Any], services: Services, operator: Any
) -> None:
    assert planned()[""]["money"] is None
    cost.set_prices(services, operator, msgspec.to_builtins(parse_prices(PRICES)))
    assert cost.prices(services)["currency"] == "EUR"
    found = planned()
    assert found["fresh"]["money"] == pytest.approx(found["fresh"]["cost_bytes"] / 1e6 * 2)
    assert found["old-cpu"]["money"] is None
    assert found[""]["money"] == pytest.approx(found["fresh"]["money"] + found["runs-1"]["money"])
    for device in ("fresh", "old-runtime", "old-cpu"):
        entry = LedgerEntry(
            month="2023-11", rollout="r-1", cause=Cause.FULL, sent=0, received=10**6, failures=0
        )
        with services.database.write() as session:
            ledger.keep(session, device, [LedgerRecord(ledger="l", entries=(entry,))], 0.0)
    spent = cost.of_rollout(services, "r-1")
    assert {d["device"]: d["money"] for d in spent["devices"]} == {
        "fresh": 2.0, "old-runtime": 0.0, "old-cpu": None,
    }  # fmt: skip
    assert (spent["bytes"], spent["money"], spent["unpriced"]) == (3 * 10**6, 2.0, 1)


@pytest.mark.parametrize(
    "text", ["currency = 1", "colour = 1", "[[prices]]", "[[prices]]\nper_mb = -1", "= ",
             "[[prices]]\nper_mb = nan", '[[prices]]\nper_mb = 1\nselector = "=="'],
)  # fmt: skip
def test_wrong_prices_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_prices(text)


@pytest.mark.sqlite
def test_pages_have_all_devices_and_every_page_the_same_sums(
    planned: Callable[..., Any], services: Services
) -> None:
    policy, names, after = parse_policy(""), [], ""
    whole = planned()[""]
    while True:
        page = plans.plan(services, "digits", "2.0.0", policy, after=after, limit=3)
        names += [d["device"] for d in page["devices"]]
        assert (page["bytes"], page["by_class"]) == (whole["bytes"], whole["by_class"])
        if page["next"] is None:
            break
        after = page["next"]
    assert names == [d["device"] for d in whole["devices"]]
    assert plans.plan(services, "digits", "2.0.0", policy, limit=0)["devices"] == []


def test_a_plan_asks_the_database_as_often_for_many_devices_as_for_few(
    planned: Callable[..., Any], services: Services
) -> None:
    asked: list[str] = []
    event.listen(
        services.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2])
    )
    planned()
    few = len(asked)
    for number in range(30):
        add_device(services, f"more-{number}", capable("avx2"))
    asked.clear()
    planned()
    assert len(asked) == few
