from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.messages import Phase, ReportedModel, encode
from cloud_sync.trust import PayloadType, generate, sign
from edgeml.errors import RemoteError, TrustError
from fleet.services import Services, desired, devices, reported, security


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


def test_a_hello_that_another_key_signed_is_refused_and_shown(
    services: Services, device: Any
) -> None:
    forged = sign(encode(device.hello()), PayloadType.HELLO, generate())
    with pytest.raises(TrustError):
        reported.hello(services, "cam-1", forged)
    assert [e["kind"] for e in security.events(services)["items"]] == ["forged-hello"]


def test_a_hello_that_speaks_of_another_device_is_refused(services: Services, device: Any) -> None:
    other = msgspec.structs.replace(device.hello(), device="cam-2")
    with pytest.raises(TrustError, match="hello was refused"):
        reported.hello(services, "cam-1", sign(encode(other), PayloadType.HELLO, device.key))


def test_a_stream_that_no_column_holds_is_no_fault(services: Services, device: Any) -> None:
    odd = msgspec.structs.replace(device.hello(), stream="s\0" * 100)
    for _ in range(2):
        reported.hello(services, "cam-1", sign(encode(odd), PayloadType.HELLO, device.key))
    assert "security.cloned-key" not in services.counters.all()


def test_a_batch_is_no_hello(services: Services, device: Any) -> None:
    with pytest.raises(TrustError):
        reported.hello(services, "cam-1", sign(b"{}", PayloadType.BATCH, device.key))
    with pytest.raises(RemoteError):
        reported.hello(services, "cam-1", sign(b"{}", PayloadType.HELLO, device.key))


def test_a_hello_is_the_whole_truth_about_models(services: Services, device: Any) -> None:
    for models in ({"digits", "faces"}, {"faces"}):
        device.models = dict.fromkeys(models, ReportedModel(phase=Phase.IDLE))
        hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
        reported.hello(services, "cam-1", hello)
        said = devices.show(services, "cam-1")["reported"]
        assert said is not None
        assert set(said["models"]) == models


def test_what_a_device_says_is_cut_to_what_the_columns_hold(
    services: Services, device: Any
) -> None:
    long = ReportedModel(phase=Phase.IDLE, reason="x\0" * 9000, release="y" * 71, attempt=2**60)
    device.models = {"m" * 256: long}
    reported.hello(services, "cam-1", sign(encode(device.hello()), PayloadType.HELLO, device.key))
    said = devices.show(services, "cam-1")["reported"]
    assert said is not None
    [(name, model)] = said["models"].items()
    assert (len(name), len(model["release"]), model["attempt"]) == (128, 71, 2**31 - 1)
    assert "\0" not in model["reason"]


def test_after_a_restart_of_the_broker_nobody_is_taken_to_be_online(
    services: Services, device: Any
) -> None:
    assert devices.show(services, "cam-1")["online"]
    reported.all_offline(services)
    assert not devices.show(services, "cam-1")["online"]


def test_a_desired_state_is_signed_anew_before_it_expires(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    devices.configure(services, operator, "cam-1", {"telemetry_every_s": 2.0})
    first = device.take(reported.current_desired(services, "cam-1"))
    clock.now += desired.LIFETIME_S / 2 - 1
    assert device.take(reported.current_desired(services, "cam-1")) == first
    clock.now += 2
    second = device.take(reported.current_desired(services, "cam-1"))
    assert (second.counter, second.expires_at) == (2, clock.now + desired.LIFETIME_S)
    assert second.configuration == first.configuration


def test_a_hello_that_comes_late_or_again_changes_nothing(
    services: Services, device: Any, kit: Any, wanted: Any
) -> None:
    def hello(counter: int, phase: Phase, boot: str = "boot-1") -> bytes:
        device.models["digits"] = kit.reported(wanted, phase)
        said = msgspec.structs.replace(device.hello(), counter=counter, boot_id=boot)
        return sign(encode(said), PayloadType.HELLO, device.key)

    def phase() -> str:
        models = (devices.show(services, "cam-1")["reported"] or {})["models"]
        return str(models["digits"]["phase"])

    old = hello(10, Phase.TRIAL)
    reported.hello(services, "cam-1", old)
    reported.hello(services, "cam-1", hello(20, Phase.COMMITTED))
    for late in (old, hello(15, Phase.TRIAL), hello(20, Phase.TRIAL)):
        assert reported.hello(services, "cam-1", late) == reported.current_desired(
            services, "cam-1"
        )
        assert phase() == "committed"
    reported.hello(services, "cam-1", hello(3, Phase.TRIAL, boot="boot-2"))
    assert phase() == "trial"
    reported.hello(services, "cam-1", hello(0, Phase.COMMITTED, boot="boot-2"))  # does not count
    assert phase() == "committed"
