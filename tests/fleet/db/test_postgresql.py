"""The fleet on a real PostgreSQL: what SQLite's one writer hides."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.messages import DesiredModel, DesiredState, RecordKind, decode
from cloud_sync.trust import PayloadType, key_id, open_envelope
from fleet.services import Services, audit, desired, devices, records

DEADLINE_S = 30.0
pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


def at_once(*functions: Callable[[], object]) -> None:
    """Run functions on threads of their own; what one raises is raised."""
    faults: list[Exception] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 -- any fault is the failure
            faults.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults


def opened(services: Services, envelope: bytes) -> DesiredState:
    key = services.keys.director.public_key()
    payload = open_envelope(envelope, {key_id(key): key}, PayloadType.DESIRED)
    return decode(payload, DesiredState)


def test_two_rollouts_never_sign_two_states_of_one_version(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], wanted: DesiredModel
) -> None:
    enroll(services, tmp_path, "cam-1")
    barrier, signed = threading.Barrier(2), []

    def turn(model: str) -> None:
        for attempt in range(1, 11):
            with services.database.write() as session:
                before = desired.models(session, "cam-1")
                assert model not in before or before[model].attempt == attempt - 1
                new = msgspec.structs.replace(wanted, attempt=attempt)
                desired.want(session, "cam-1", model, new)
                session.flush()
                barrier.wait(DEADLINE_S)
                signed.append(desired.reissue(services, session, "cam-1"))

    at_once(lambda: turn("digits"), lambda: turn("faces"))
    states = [opened(services, envelope) for envelope in signed]
    assert sorted(state.counter for state in states) == list(range(1, 21))
    last = max(states, key=lambda state: state.counter)
    assert {name: model.attempt for name, model in last.models.items()} == {
        "digits": 10,
        "faces": 10,
    }


def test_the_audit_log_keeps_every_entry_of_operators_at_work_together(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    names = [f"cam-{n}" for n in range(8)]
    for name in names:
        enroll(services, tmp_path, name)
    before = audit.verify(services)
    labels = [
        lambda name=name: devices.set_labels(services, operator, name, {"a": "b"}) for name in names
    ]
    at_once(*labels)
    assert audit.verify(services) == before + len(names)


def test_of_two_configurations_at_once_both_are_counted(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    enroll(services, tmp_path, "cam-1")
    every: Sequence[float] = [1.0, 2.0, 3.0, 4.0]
    at_once(
        *(
            lambda s=s: devices.configure(services, operator, "cam-1", {"telemetry_every_s": s})
            for s in every
        )
    )
    found = devices.show(services, "cam-1")
    assert found["desired"] is not None
    assert found["desired"]["config_version"] == len(every)
    with services.database.write() as session:
        state = opened(services, desired.current(services, session, "cam-1") or b"")
    assert (state.counter, state.configuration.config_version) == (len(every), len(every))


def test_records_are_stored_and_read(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], window: Callable[..., Any]
) -> None:
    device = enroll(services, tmp_path, "cam-1")
    device.outbox.append(RecordKind.TELEMETRY, window(3))
    records.store(services, [records.SignedBatch(device.outbox.batch(), b"proof")])
    assert [w["window"]["inferred"] for w in records.telemetry(services)["items"]] == [3]
