"""What devices spend comes up with their records, signed, and is stored once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.messages import Cause, DesiredModel, LedgerEntry, LedgerRecord
from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import NotFound
from fleet.rollouts import parse_policy
from fleet.services import Services, cost, desired, devices, ledger
from fleet.show_data import budget_text, ledger_text


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path, site="north")


def entry(received: int, month: str = "2026-11", cause: Cause = Cause.FULL) -> LedgerEntry:
    return LedgerEntry(month=month, rollout="r1", cause=cause, sent=10, received=received)


def keep(services: Services, *entries: LedgerEntry, of: str = "a") -> None:
    with services.database.write() as session:
        ledger.keep(session, "cam-1", [LedgerRecord(ledger=of, entries=entries)], services.now())


@pytest.mark.usefixtures("device")
def test_totals_rise_and_a_late_or_repeated_record_changes_nothing(services: Services) -> None:
    keep(services, entry(100))
    keep(services, entry(300))
    keep(services, entry(100))
    keep(services, entry(300))
    [line] = ledger.show(services, "cam-1")["lines"]
    assert (line["received"], line["sent"]) == (300, 10)


@pytest.mark.usefixtures("device")
def test_a_wiped_disk_begins_another_ledger_and_both_count(services: Services) -> None:
    keep(services, entry(100))
    keep(services, entry(30), of="b")
    [line] = ledger.show(services, "cam-1")["lines"]
    assert (line["received"], line["sent"]) == (130, 20)
    assert cost.of_rollout(services, "r1")["devices"] == [
        {"device": "cam-1", "bytes": 150, "money": None}
    ]


@pytest.mark.usefixtures("device")
def test_it_is_shown_by_month_and_rollout(services: Services) -> None:
    keep(services, entry(1_000_000), entry(5, month="2026-10"), entry(7, cause=Cause.RETRY))
    found = ledger.show(services, "cam-1")
    assert [(line["month"], line["cause"]) for line in found["lines"]] == [
        ("2026-11", "full"),
        ("2026-11", "retry"),
        ("2026-10", "full"),
    ]
    assert len(ledger.show(services, "cam-1", month="2026-10")["lines"]) == 1
    assert ledger.show(services, "cam-1", rollout="r2")["lines"] == []
    assert "1.00 MB" in ledger_text(found)
    assert "1.00 MB spent in 2026-11" in budget_text({"month_bytes": 5_000_000}, found)
    with pytest.raises(NotFound):
        ledger.show(services, "cam-2")


@pytest.mark.usefixtures("device")
def test_a_device_cannot_fill_the_table(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_LINES", 2)
    for number in range(4):
        keep(services, entry(1, month=f"2026-0{number + 1}"))
    assert len(ledger.show(services, "cam-1")["lines"]) == 2


def test_a_budget_goes_out_with_the_configuration(
    services: Services, device: Any, operator: Any
) -> None:
    devices.configure(services, operator, "cam-1", {"data_budget": {"month_bytes": 7}})
    from fleet.services import reported

    state = device.take(reported.current_desired(services, "cam-1"))
    assert state.configuration.data_budget.month_bytes == 7
    with pytest.raises(UserError, match="monthly"):
        devices.configure(services, operator, "cam-1", {"data_budget": {"monthly": 7}})
    with pytest.raises(UserError, match="mirror"):
        devices.configure(services, operator, "cam-1", {"mirrors": ["cache"]})


@pytest.mark.usefixtures("device")
def test_a_policy_s_budget_is_part_of_what_is_wanted(services: Services) -> None:
    limits = parse_policy("[limits]\ndata_budget_mb = 1.5").limits
    wanted = DesiredModel(
        release="sha256:" + "0" * 64,
        variant="sha256:" + "1" * 64,
        release_version="1",
        data_budget_bytes=limits.data_budget_bytes,
    )
    with services.database.write() as session:
        desired.want(session, "cam-1", "digits", wanted)
        session.flush()
        assert session.get_one(tables.DesiredModel, ("cam-1", "digits")).data_budget_bytes > 0
        assert desired.models(session, "cam-1") == {"digits": wanted}
    assert wanted.data_budget_bytes == 1_500_000
