"""Cursors, ETags, idempotency keys and bounds, over HTTP."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UserError
from fleet.rest.cursors import decode, encode, sliced
from fleet.rest.etags import etag_of
from fleet.services import idempotency

LISTS = [
    "devices",
    "models",
    "releases",
    "rollouts",
    "evidence",
    "telemetry",
    "audit",
    "security-events",
    "alerts",
    "webhooks",
]


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P"])), st.sampled_from(LISTS))
def test_a_cursor_comes_back_as_it_was(key: str, what: str) -> None:
    assert decode(what, encode(what, key), str) == key


@given(st.text(max_size=60))
def test_what_is_no_cursor_of_the_list_is_refused(text: str) -> None:
    for wrong in (text, encode("other", text)):
        with pytest.raises(UserError):
            decode("devices", wrong, int)


@given(st.sets(st.text("abc", min_size=1, max_size=3)), st.integers(1, 4), st.booleans())
def test_slices_make_up_the_whole_list(items: set[str], limit: int, newest: bool) -> None:
    seen: list[str] = []
    page = sliced(items, str, "", limit, newest=newest)
    seen += page["items"]
    while page["next"]:
        page = sliced(items, str, page["next"], limit, newest=newest)
        seen += page["items"]
    assert seen == sorted(items, reverse=newest)


def test_every_list_is_a_page_with_an_opaque_cursor(http: httpx.Client) -> None:
    for name in LISTS:
        answer = http.get(f"/api/v1/{name}")
        assert set(answer.json()) == {"items", "next"}, name
        assert http.get(f"/api/v1/{name}", params={"after": "cam-1"}).status_code == 422, name


def test_a_page_goes_on_where_the_last_one_ended_whatever_came_between(
    http: httpx.Client, make_device: Any
) -> None:
    for name in ("b", "d", "f"):
        make_device(name)
    first = http.get("/api/v1/devices?limit=2").json()
    for name in ("a", "e"):
        make_device(name)
    rest = http.get("/api/v1/devices", params={"limit": 2, "after": first["next"]}).json()
    assert [d["device"] for d in (*first["items"], *rest["items"])] == ["b", "d", "e", "f"]


def test_what_has_not_changed_is_not_sent_again(http: httpx.Client, make_device: Any) -> None:
    make_device("cam-1")
    first = http.get("/api/v1/devices/cam-1")
    known = {"If-None-Match": first.headers["etag"]}
    again = http.get("/api/v1/devices/cam-1", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    http.put("/api/v1/devices/cam-1/labels", json={"site": "north"})
    assert http.get("/api/v1/devices/cam-1", headers=known).status_code == 200


def test_a_change_of_labels_that_somebody_else_changed_is_not_made(
    fleet: Any, http: httpx.Client, make_device: Any
) -> None:
    make_device("cam-1")
    path = "/api/v1/devices/cam-1/labels"
    read = http.get(path)
    assert read.headers["etag"] == etag_of(read.json())
    match = {"If-Match": read.headers["etag"]}
    assert http.put(path, json={"site": "north"}, headers=match).status_code == 200
    late = http.put(path, json={"site": "south"}, headers=match)
    assert late.status_code == 412
    assert late.headers["content-type"] == "application/problem+json"
    assert http.get(path).json() == {"site": "north"}
    labels, etag = fleet.client.labels("cam-1")
    assert fleet.client.label("cam-1", {**labels, "line": "3"}, etag=etag)["labels"]["line"] == "3"


def enrol(http: httpx.Client, device: str, key: str) -> httpx.Response:
    body = {"device": device}
    return http.post("/api/v1/enrollments", json=body, headers={"Idempotency-Key": key})


def test_a_request_that_is_sent_again_is_done_once(fleet: Any, http: httpx.Client) -> None:
    first, again = enrol(http, "cam-1", "key-1"), enrol(http, "cam-1", "key-1")
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert again.headers["idempotent-replayed"] == "true"
    made = [entry for entry in fleet.client.audit() if entry["subject"] == "cam-1"]
    assert len(made) == 1


def test_a_refusal_is_the_same_again_too(http: httpx.Client) -> None:
    first, again = enrol(http, "a/b", "key-2"), enrol(http, "a/b", "key-2")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["content-type"] == "application/problem+json"


def test_a_key_belongs_to_one_request(http: httpx.Client) -> None:
    enrol(http, "cam-1", "key-3")
    other = enrol(http, "cam-2", "key-3")
    assert other.status_code == 409
    assert "another request" in other.json()["what"]
    assert enrol(http, "cam-2", "key-4").status_code == 201


def test_many_at_once_with_one_key_do_it_once(fleet: Any, http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: enrol(http, "cam-1", "key-5"), range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({a.content for a in answers if a.status_code == 201}) == 1
    assert len([e for e in fleet.client.audit() if e["subject"] == "cam-1"]) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_key_that_cannot_be_is_refused(http: httpx.Client, key: str) -> None:
    assert enrol(http, "cam-1", key).status_code == 422


def test_the_answer_is_kept_so_that_the_database_does_not_give_it_away(
    fleet: Any, http: httpx.Client
) -> None:
    from sqlalchemy import select

    from fleet.db import tables

    token = enrol(http, "cam-1", "key-6").json()["token"]
    with fleet.services.database.read() as session:
        kept = session.scalars(select(tables.IdempotencyKey)).all()
    assert len(kept) == 1
    assert token.encode() not in (kept[0].answer or b"")
    assert "key-6" not in kept[0].name


def test_a_key_is_forgotten_after_a_day(services: Any, clock: Any) -> None:
    answer = idempotency.Answer(status=201, headers={}, body=b"{}")
    assert idempotency.begin(services, "alice", "k", "f") is None
    idempotency.finish(services, "alice", "k", answer)
    assert idempotency.begin(services, "alice", "k", "f") == answer
    assert idempotency.begin(services, "bob", "k", "f") is None  # each has keys of their own
    clock.now += idempotency.KEEP_S + 1
    assert idempotency.begin(services, "alice", "k", "f") is None


@pytest.mark.parametrize("told", [True, False])
def test_a_body_that_is_too_long_is_refused(fleet: Any, told: bool) -> None:
    body = json.dumps({"device": "x" * (9 << 20)}).encode()
    headers = {"Authorization": f"Bearer {fleet.services.keys.operator_token}"}
    content = body if told else iter([body[: 5 << 20], body[5 << 20 :]])
    with httpx.Client(base_url=fleet.operators, headers=headers, timeout=60) as client:
        answer = client.post("/api/v1/enrollments", content=content)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 413
