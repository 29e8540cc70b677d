from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from cloud_sync.release import Layout
from cloud_sync.transfer import OciClient
from fleet.services import credentials
from fleet.services.credentials import Kind

Make = Callable[..., Any]


def test_the_openapi_document_names_every_resource(http: httpx.Client) -> None:
    document = http.get("/api/v1/openapi.json").json()
    paths = set(document["paths"])
    assert {
        "/api/v1/releases",
        "/api/v1/models",
        "/api/v1/releases/{model}/{version}",
        "/api/v1/devices",
        "/api/v1/devices/{device}",
        "/api/v1/devices/{device}/configuration",
        "/api/v1/enrollments",
        "/api/v1/rollouts",
        "/api/v1/rollouts/{rollout}",
        "/api/v1/rollouts/{rollout}/explain",
        "/api/v1/rollouts/{rollout}/pause",
        "/api/v1/rollouts/{rollout}/resume",
        "/api/v1/rollouts/{rollout}/abort",
        "/api/v1/evidence",
        "/api/v1/telemetry",
        "/api/v1/audit",
        "/api/v1/health",
    } <= paths
    assert "DeviceInfo" in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/devices/none", None, 404),
        ("GET", "/api/v1/releases/digits/9", None, 404),
        ("GET", "/api/v1/rollouts/none/explain", None, 404),
        ("GET", "/api/v1/nothing", None, 404),
        ("DELETE", "/api/v1/devices", None, 405),
        ("GET", "/api/v1/devices?selector=a%20b%20c", None, 422),
        ("GET", "/api/v1/devices?limit=0", None, 422),
        ("POST", "/api/v1/enrollments", {"device": "a/b"}, 422),
        ("POST", "/api/v1/enrollments", {"device": "a", "colour": "red"}, 422),
        ("POST", "/api/v1/enrollments", {}, 422),
        ("POST", "/api/v1/releases", {"model": "digits", "digest": "none"}, 400),
        ("POST", "/api/v1/rollouts", {"model": "d", "version": "1", "policy": "x = "}, 422),
        ("POST", "/api/v1/rollouts", {"model": "d", "version": "1", "selector": "a b c"}, 422),
        ("POST", "/api/v1/rollouts/none/pause", {}, 404),
        ("POST", "/api/v1/thaw", {}, 422),
    ],
)
def test_errors_are_problem_documents(
    http: httpx.Client, method: str, path: str, body: Any, status: int
) -> None:
    answer = http.request(method, path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert {"type", "title", "status", "detail"} <= set(found)
    assert found["status"] == status
    assert found["detail"]


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=100))
def test_any_body_is_refused_with_a_problem(shared_fleet: Any, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {shared_fleet.services.keys.operator_token}"}
    for path in ("enrollments", "rollouts", "releases"):
        answer = httpx.post(
            f"{shared_fleet.operators}/api/v1/{path}", content=body, headers=headers
        )
        assert answer.status_code == 422


def test_a_release_is_pushed_registered_and_found(
    fleet: Any, http: httpx.Client, release_folder: Path
) -> None:
    pushed = fleet.client.push(release_folder, reason="the first")
    assert http.get("/api/v1/releases/digits/1.0.0").json() == pushed
    assert [v["precision"] for v in pushed["variants"]] == ["float32", "int8"]
    # The pipeline that both variants share counts once.
    assert pushed["bytes"] == len(b"weightsint8") + len(b"weightsfloat32") + len(b"version = 1\n")
    assert fleet.client.models() == [
        {"model": "digits", "releases": 1, "latest": "1.0.0", "running": {}}
    ]
    converters = fleet.client.evidence(release=pushed["digest"])
    assert [(e["stage"], e["device"]) for e in converters] == [("convert", "")]
    assert fleet.client.audit()[0]["reason"] == "the first"
    assert fleet.client.push(release_folder) == pushed


def test_a_login_link_works_once_and_begins_a_session(fleet: Any) -> None:
    link = fleet.client.login_link()["url"].replace("http://127.0.0.1:8080", fleet.operators)
    with httpx.Client(base_url=fleet.operators) as browser:
        first = browser.get(link)
        assert (first.status_code, first.headers["location"]) == (303, "/")
        cookie = first.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert browser.get("/api/v1/health").status_code == 200
    with httpx.Client(base_url=fleet.operators) as other:
        assert other.get(link).status_code == 401
        assert other.get("/api/v1/health").status_code == 401


def test_another_sites_page_changes_nothing_with_a_session(fleet: Any) -> None:
    cookies = {"edgeml_session": fleet.access.make_session()}
    url = f"{fleet.operators}/api/v1/enrollments"
    body = {"device": "cam-1"}
    with httpx.Client(cookies=cookies) as browser:
        for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            assert browser.post(url, json=body, headers=headers).status_code == 401
        own = browser.post(url, json=body, headers={"Origin": fleet.operators})
        assert own.status_code == 201
    assert fleet.client.audit()[0]["actor"] == "console"


def test_a_session_ends(services: Any, clock: Any) -> None:
    from fleet.access.door import SESSION_S, Access

    access = Access(services)
    session, link = access.make_session(), access.make_link()["url"].partition("token=")[2]
    assert credentials.find(services, session, Kind.SESSION)
    clock.now += SESSION_S + 1
    assert not credentials.find(services, session, Kind.SESSION)
    assert not access.use_link(link)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_invented_cookie_or_header_is_a_session(
    shared_fleet: Any, value: str, header: str
) -> None:
    cookie = Headers({"cookie": f"edgeml_session={quote(value)}"})
    assert shared_fleet.access.principal(cookie, "GET", "http") is None
    assert not shared_fleet.access.is_operator(header)
    assert not shared_fleet.access.use_link(value)


def test_pages_may_not_be_framed_or_sniffed(http: httpx.Client) -> None:
    headers = http.get("/api/v1/health").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_health_tells_that_the_broker_is_away(fleet: Any) -> None:
    health = fleet.client.health()
    assert (health["status"], health["broker_connected"]) == ("degraded", False)


def test_lists_come_whole_whatever_the_pages(fleet: Any, make_device: Make) -> None:
    names = [f"cam-{number}" for number in range(3)]
    for name in names:
        make_device(name)
    assert [d["device"] for d in fleet.client.devices()] == names
    page = fleet.client._get("/devices", limit="2")
    rest = fleet.client._get("/devices", limit="2", after=page["next"])
    assert [d["device"] for d in rest["items"]] == ["cam-2"]
    assert rest["next"] is None


def test_a_fault_of_the_fleets_own_is_told_without_its_traceback(
    fleet: Any, http: httpx.Client
) -> None:
    from sqlalchemy import text

    with fleet.services.database.write() as session:
        session.execute(text("DROP TABLE evidence"))
    answer = http.get("/api/v1/evidence")
    assert answer.status_code == 500
    assert answer.json()["title"] == "The fleet met a fault of its own."
    assert "Traceback" not in answer.text
    assert fleet.client.health()["devices"] == 0


def test_a_release_that_many_register_at_once_is_registered_once(
    fleet: Any, http: httpx.Client, release_folder: Path
) -> None:
    layout = Layout.open(release_folder)
    release = layout.release()
    with closing(OciClient(fleet.operators, fleet.client._auth)) as pusher:
        pusher.push(layout, release)
    body = {"model": "digits", "digest": release.digest}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post("/api/v1/releases", json=body), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.text for answer in answers}) == 1
    assert len(http.get("/api/v1/releases").json()["items"]) == 1
