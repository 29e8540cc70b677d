"""Commands: signed, bounded, kept until answered, and answered once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.commands import Command, CommandKind, CommandResult, CommandStatus
from cloud_sync.messages import Down, RecordKind, encode
from cloud_sync.trust import PayloadType, open_envelope, sign
from edgeml.errors import UserError
from fleet.problem import Conflict, NotFound
from fleet.services import Services, audit, commands, records, reported

LOG_TAIL = CommandKind.LOG_TAIL


class Bus:
    """Keeps what is published."""

    connected = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, float | None]] = []

    def publish(
        self, topic: str, payload: bytes, *, expires_s: float | None = None, patient: bool = False
    ) -> bool:
        self.sent.append((topic, payload, expires_s))
        return True


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


def opened(services: Services, envelope: bytes) -> Command:
    director = services.keys.director
    keys = {services.keys.director_id: director.public_key()}
    return msgspec.json.decode(open_envelope(envelope, keys, PayloadType.COMMAND), type=Command)


def answer(services: Services, device: Any, result: CommandResult) -> None:
    """Send an answer through the outbox, as the agent does."""
    device.outbox.append(RecordKind.RESULT, result)
    batch = device.outbox.batch((RecordKind.RESULT,))
    envelope = sign(encode(batch), PayloadType.BATCH, device.key)
    key = reported.device_key(services, device.device)
    [ack] = records.store(services, [records.verify(services, device.device, envelope, key)])
    device.outbox.acknowledge(device.open_ack(ack))


def test_a_command_is_signed_published_with_its_expiry_and_audited(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    bus = Bus()
    services.publisher.attach(bus)
    made = commands.create(services, operator, "cam-1", LOG_TAIL, lines=7, ttl_s=60.0)
    [(topic, envelope, expires_s)] = bus.sent
    assert topic == f"edgeml/v1/cam-1/{Down.COMMAND}"
    assert expires_s == 60.0
    command = opened(services, envelope)
    assert (command.id, command.device, command.kind, command.lines) == (
        made["id"],
        "cam-1",
        "log-tail",
        7,
    )
    assert command.expires_at == clock.now + 60.0
    assert commands.pending(services, "cam-1") == [envelope]
    assert audit.entries(services)["items"][0]["action"] == "device.log-tail"


def test_the_first_answer_stands_and_ends_the_delivery(
    services: Services, device: Any, operator: Any
) -> None:
    made = commands.create(services, operator, "cam-1", LOG_TAIL)
    said = CommandResult(
        command=made["id"], kind="log-tail", status=CommandStatus.DONE, content="a line\n"
    )
    answer(services, device, said)
    later = msgspec.structs.replace(said, status=CommandStatus.FAILED, content="")
    answer(services, device, later)
    shown = commands.show(services, "cam-1", made["id"])
    assert (shown["status"], shown["content"]) == ("done", "a line\n")
    assert commands.pending(services, "cam-1") == []
    assert services.counters.all()["commands.stray-results"] == 1
    [listed] = commands.list_commands(services, "cam-1")
    assert (listed["status"], listed["content"]) == ("done", "")


def test_one_device_cannot_answer_for_another(
    services: Services, device: Any, operator: Any, tmp_path: Path, enroll: Callable[..., Any]
) -> None:
    made = commands.create(services, operator, "cam-1", LOG_TAIL)
    other = enroll(services, tmp_path, "cam-2")
    answer(
        services,
        other,
        CommandResult(command=made["id"], kind="log-tail", status=CommandStatus.DONE),
    )
    assert commands.show(services, "cam-1", made["id"])["status"] == "pending"


def test_an_expired_command_is_not_delivered_any_more(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    made = commands.create(services, operator, "cam-1", LOG_TAIL, ttl_s=60.0)
    clock.now += 61.0
    assert commands.pending(services, "cam-1") == []
    assert commands.show(services, "cam-1", made["id"])["status"] == "expired"


def test_what_waits_and_what_is_kept_is_bounded(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    for _ in range(commands.MAX_PENDING):
        commands.create(services, operator, "cam-1", LOG_TAIL, ttl_s=60.0)
    with pytest.raises(Conflict, match="20 commands wait"):
        commands.create(services, operator, "cam-1", LOG_TAIL)
    for _ in range(5):
        clock.now += 61.0
        for _ in range(commands.MAX_PENDING):
            commands.create(services, operator, "cam-1", LOG_TAIL, ttl_s=60.0)
    assert len(commands.list_commands(services, "cam-1")) == commands.MAX_KEPT


@pytest.mark.parametrize(
    ("kind", "how", "what"),
    [
        ("dance", {}, "'dance' is no command"),
        (LOG_TAIL, {"ttl_s": 0.0}, "cannot expire"),
        (LOG_TAIL, {"ttl_s": 1e9}, "cannot expire"),
        (LOG_TAIL, {"lines": 0}, "0 lines"),
        (LOG_TAIL, {"lines": 100_000}, "100000 lines"),
        ("snapshot", {"source": "x" * 300}, "name is too long"),
    ],
)
def test_what_no_device_would_take_is_refused(
    services: Services, device: Any, operator: Any, kind: str, how: dict[str, Any], what: str
) -> None:
    with pytest.raises(UserError, match=what):
        commands.create(services, operator, "cam-1", kind, **how)


def test_there_is_no_command_to_a_device_that_is_not_there(
    services: Services, operator: Any
) -> None:
    with pytest.raises(NotFound):
        commands.create(services, operator, "cam-9", LOG_TAIL)
    with pytest.raises(NotFound):
        commands.list_commands(services, "cam-9")
