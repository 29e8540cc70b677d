import base64
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from cloud_sync.device_api import DeviceClient, enroll
from cloud_sync.messages import Batch, EnrollRequest, RecordKind, encode
from cloud_sync.trust import PayloadType, generate, sign
from cloud_sync.trust.device_token import SCHEME, make_challenge, make_token
from cloud_sync.trust.identity import make_request, verify_issued
from edgeml.errors import RemoteError, TrustError
from fleet.device_app import device_app

Make = Callable[..., Any]


def request_for(token: str, device: str = "cam-1") -> EnrollRequest:
    return EnrollRequest(token=token, csr=make_request(device, generate()))


def test_a_token_gives_a_certificate_in_the_devices_name(fleet: Any, make_device: Make) -> None:
    device = make_device("cam-1", site="north")
    assert verify_issued(device.enrolled.certificate, device.enrolled.ca) == "cam-1"
    assert fleet.client.device("cam-1")["labels"] == {"site": "north"}
    assert device.enrolled.mqtt.username == "cam-1"
    assert device.enrolled.mqtt.password


def test_a_token_works_once(fleet: Any) -> None:
    token = fleet.client.enroll("cam-1", {}, 60)["token"]
    enroll(fleet.devices, request_for(token))
    with pytest.raises(TrustError, match="used before"):
        enroll(fleet.devices, request_for(token))


def test_a_token_works_for_its_device_only(fleet: Any) -> None:
    token = fleet.client.enroll("cam-1", {}, 60)["token"]
    with pytest.raises(TrustError, match="for cam-1, not for cam-2"):
        enroll(fleet.devices, request_for(token, "cam-2"))
    enroll(fleet.devices, request_for(token))


def test_an_invented_token_is_refused(fleet: Any) -> None:
    with pytest.raises(TrustError, match="does not know it"):
        enroll(fleet.devices, request_for("invented"))


def test_a_request_that_is_not_signed_by_its_key_is_refused(fleet: Any) -> None:
    token = fleet.client.enroll("cam-1", {}, 60)["token"]
    with pytest.raises(TrustError):
        enroll(fleet.devices, EnrollRequest(token=token, csr="no request"))


def test_hello_brings_the_desired_state_once_there_is_one(fleet: Any, make_device: Make) -> None:
    device = make_device()
    client = device.client()
    assert client.hello(device.hello()) is None
    assert client.desired() is None
    fleet.client.configure("cam-1", {"telemetry_every_s": 2.0})
    state = device.take(client.hello(device.hello()))
    assert state is not None
    assert state.configuration.telemetry_every_s == 2.0
    assert device.take(client.desired()) == state
    info = fleet.client.device("cam-1")
    assert info["online"]
    assert info["capabilities"]["hardware_class"] == "x86_64-avx512_vnni-2c"


def test_records_are_acknowledged_when_they_are_stored(
    fleet: Any, make_device: Make, window: Any
) -> None:
    device = make_device()
    for number in range(1, 4):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
    client, batch = device.client(), device.outbox.batch()
    ack = device.open_ack(client.send(batch))
    assert (ack.stream, ack.through, ack.ranges) == (device.outbox.stream, 3, ())
    assert device.outbox.acknowledge(ack) == 3
    client.send(batch)
    windows = fleet.client.telemetry(device="cam-1")
    assert [item["window"]["inferred"] for item in windows] == [3, 2, 1]
    assert fleet.client.health()["counters"]["ingest.duplicates"] == 3


def test_a_batch_that_another_key_signed_is_refused_and_shown(
    fleet: Any, make_device: Make, window: Any
) -> None:
    device = make_device()
    device.outbox.append(RecordKind.TELEMETRY, window())
    client = device.client()
    forged = sign(encode(device.outbox.batch()), PayloadType.BATCH, generate())
    with pytest.raises(TrustError, match="403"):
        client._post("/device/v1/records", forged)
    assert fleet.client.telemetry() == []
    assert [e["kind"] for e in fleet.client.security_events()] == ["forged-batch"]


def test_a_batch_in_another_devices_name_is_refused(
    fleet: Any, make_device: Make, window: Any
) -> None:
    one, two = make_device("cam-1"), make_device("cam-2")
    two.outbox.append(RecordKind.TELEMETRY, window())
    client = one.client()
    with pytest.raises(TrustError, match="403"):
        client.send(two.outbox.batch())
    batch = msgspec.structs.replace(two.outbox.batch() or _batch(two), device="cam-2")
    with pytest.raises(TrustError, match="403"):
        client._post("/device/v1/records", sign(encode(batch), PayloadType.BATCH, one.key))
    assert fleet.client.telemetry() == []


def _batch(device: Any) -> Batch:
    return Batch(device=device.device, stream="s", boot_id="b", records=())


def test_a_device_that_is_not_enrolled_is_turned_away(fleet: Any) -> None:
    with (
        closing(DeviceClient(fleet.devices, "stranger", generate())) as client,
        pytest.raises(TrustError, match="not enrolled"),
    ):
        client.desired()


def test_a_replaced_device_keeps_its_place_and_the_old_key_ends(
    fleet: Any, make_device: Make
) -> None:
    old = make_device("cam-1", site="north")
    fleet.client.configure("cam-1", {"telemetry_every_s": 2.0})
    token = fleet.client.enroll("cam-1", {}, 60)["token"]
    key = generate()
    enroll(fleet.devices, EnrollRequest(token=token, csr=make_request("cam-1", key)))
    with pytest.raises(TrustError):
        old.client().desired()
    with closing(DeviceClient(fleet.devices, "cam-1", key)) as new:
        assert new.desired() is not None
    assert fleet.client.device("cam-1")["labels"] == {"site": "north"}


def test_every_route_but_enrolment_wants_a_device(fleet: Any) -> None:
    routes = [r for r in device_app(fleet.services, fleet.ingest).routes if isinstance(r, Route)]
    assert len(routes) >= 7
    for route in routes:
        path = route.path.replace("{path:path}", "metadata/timestamp.json").format(
            **dict.fromkeys(("model", "reference", "digest", "director"), "sha256:" + "0" * 64)
        )
        for method in route.methods or ():
            answer = httpx.request(method, f"{fleet.devices}{path}")
            if route.path == "/device/v1/enroll":
                assert answer.status_code == 400
                continue
            assert answer.status_code == 401, (method, path)
            assert answer.headers["WWW-Authenticate"].startswith(f"{SCHEME} challenge=")


def test_a_stale_challenge_is_answered_with_a_new_one(fleet: Any, make_device: Make) -> None:
    device = make_device()
    stale = make_challenge(fleet.services.keys.challenge_secret, fleet.services.now() - 3600)
    token = make_token("cam-1", stale, device.key)
    answer = httpx.get(f"{fleet.devices}/device/v1/desired", headers={"Authorization": token})
    assert answer.status_code == 401
    assert "too old" in answer.json()["detail"]


def test_a_body_without_end_is_cut_off(fleet: Any) -> None:
    answer = httpx.post(f"{fleet.devices}/device/v1/enroll", content=b"x" * (3 << 20))
    assert answer.status_code == 400
    assert "longer than" in answer.json()["detail"]


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(
        st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60),
        st.binary(max_size=60).map(lambda b: f"{SCHEME} {base64.urlsafe_b64encode(b).decode()}"),
    )
)
def test_any_authorization_is_401_or_403(shared_fleet: Any, header: str) -> None:
    answer = httpx.get(f"{shared_fleet.devices}/v2/", headers={"Authorization": header.strip()})
    assert answer.status_code in {401, 403}
    assert answer.headers["content-type"] == "application/problem+json"


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["enroll", "hello", "records"]), st.binary(max_size=200))
def test_any_body_is_an_answer_with_a_sentence(shared_device: Any, name: str, body: bytes) -> None:
    client = shared_device.client()
    with pytest.raises((TrustError, RemoteError)):
        client._post(f"/device/v1/{name}", body)
