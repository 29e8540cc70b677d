"""Every route of the operators' listener: what it needs is said, and held to."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import select
from starlette.routing import Route

from fleet.access.door import OPEN
from fleet.access.needs import Need, need_of
from fleet.client import FleetClient
from fleet.db import tables
from fleet.operator_app import operator_app
from fleet.roles import Role
from fleet.rollouts import Assign, Decision, Policy
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.services import Caller, Services, credentials, rollout_rows, rollouts, security, users
from fleet.services.credentials import Kind
from tests.fleet.conftest import (
    Listening,
    enroll_locally,
    make_evidence,
    make_window,
    write_release,
)

NORTH = parse_selector("site=north")
# FastAPI's own route, for whoever is logged in.
UNMARKED = {"/api/v1/openapi.json"}
OUTSIDE = {"device": "cam-south", "rollout": "of-the-south"}
SHARED = {"model": "digits", "version": "1.0.0", "reference": "1.0.0", "which": "ca"}


@dataclass(frozen=True)
class Found:
    """A route of the application."""

    method: str
    path: str
    need: Need | None

    def url(self, **values: str) -> str:
        names = {part.partition("}")[0] for part in self.path.split("{")[1:]}
        filled = dict.fromkeys(names, "x") | SHARED | values
        return self.path.format(**filled)

    @property
    def is_closed(self) -> bool:
        return not (self.need and self.need.open)

    @property
    def is_api(self) -> bool:
        return self.path.startswith(("/api/", "/v2/"))

    @property
    def names_a_place(self) -> bool:
        return "{device}" in self.path or "{rollout}" in self.path


def walk(app: FastAPI) -> Iterator[Found]:
    """The routes of an application, which includes no other."""
    for route in app.routes:
        assert isinstance(route, APIRoute | Route)
        for method in sorted(route.methods or ()):
            yield Found(method, route.path, need_of(route.endpoint))


def token(services: Services, name: str, role: Role, scope: Selector = EVERYTHING) -> str:
    """A token of a new user, and of that user's role and scope."""
    made = users.create(services, Caller("a test"), name, role, scope=scope.text)
    with services.database.write() as session:
        row = session.get_one(tables.User, made["name"])
        owner = users.principal_of(row)
        secret, _ = credentials.issue(services, session, Kind.TOKEN, owner, 3600.0, name="t")
    return secret


@dataclass(frozen=True)
class Site:
    """A fleet with a device, a rollout and records in the north and in the south."""

    http: httpx.Client
    routes: list[Found]
    tokens: dict[str, str]

    def ask(self, method: str, path: str, who: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return self.http.request(method, path, headers=headers, **request)

    def text(self, path: str, who: str) -> str:
        """The answer's text; of a stream that does not end, its first event."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        with self.http.stream("GET", path, headers=headers) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                return answer.read().decode(errors="replace")
            return "\n".join(itertools.takewhile(bool, answer.iter_lines()))


@pytest.fixture(scope="module")
def site(shared_fleet: Listening, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    services, folder = shared_fleet.services, tmp_path_factory.mktemp("site")
    release = write_release(folder / "release")
    with FleetClient(shared_fleet.operators, services.keys.operator_token) as client:
        client.push(folder / "release")
    for where in ("north", "south"):
        device = f"cam-{where}"
        enroll_locally(services, folder, device, site=where).close()
        _records(services, device, release.digest)
        security.record(services, "forged_batch", device, f"A batch of {device} was refused.")
        _rollout(services, f"of-the-{where}", f"site={where}", device)
    _rollout(services, "of-all", "", "cam-south", "cam-north")
    made = {
        role: token(services, f"one-{role}", role)
        for role in (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)
    }
    made["north"] = token(services, "north-admin", Role.ADMIN, NORTH)
    made["owner"] = services.keys.operator_token
    app = operator_app(services, shared_fleet.access)
    with httpx.Client(base_url=shared_fleet.operators, timeout=60.0) as client:
        yield Site(client, list(walk(app)), made)


def _records(services: Services, device: str, release: str) -> None:
    wanted = SimpleNamespace(nonce="n", variant="sha256:" + "b" * 64, release=release)
    with services.database.write() as session:
        session.add(
            tables.Evidence(
                device=device,
                model="digits",
                release=release,
                variant=wanted.variant,
                rollout="of-all",
                stage="trial",
                nonce="n",
                received_at=services.now(),
                document=msgspec.json.encode(make_evidence(device, wanted)),
                signed_batch=None,
            )
        )
        session.add(
            tables.Record(
                device=device,
                stream="s",
                seq=1,
                kind="telemetry",
                model="digits",
                release=release,
                at=1.0,
                received_at=services.now(),
                body=msgspec.json.encode(make_window()),
            )
        )


def _rollout(services: Services, name: str, selector: str, *devices: str) -> None:
    """A paused rollout with these devices in it."""
    caller = Caller("operator", "a test")
    made = rollouts.create(services, caller, "digits", "1.0.0", Policy(selector=selector))
    rollouts.pause(services, caller, made["id"])
    with services.database.write() as session:
        row = session.get_one(tables.Rollout, made["id"])
        values = {c.key: getattr(row, c.key) for c in tables.Rollout.__table__.columns}
        scopes = session.scalars(
            select(tables.RolloutScope.requirement).where(tables.RolloutScope.rollout == row.id)
        ).all()
        state = rollouts.state_of(row)
        sentence = f"It waits for {' and '.join(devices)}."
        assigned = tuple(Assign(device=device, variant="v") for device in devices)
        decision = Decision(actions=assigned, sentence=sentence, gates=())
        values |= {
            "id": name,
            "decision": rollout_rows.encoded(decision),
            "state": msgspec.json.encode(msgspec.structs.replace(state, id=name)).decode(),
        }
        session.add(tables.Rollout(**values))
        session.flush()
        session.add_all(tables.RolloutScope(rollout=name, requirement=one) for one in scopes)
        session.add_all(
            tables.Assignment(
                rollout=name,
                device=device,
                wave=0,
                variant="sha256:" + "b" * 64,
                attempt=1,
                nonce="n",
                assigned_at=services.now(),
                previous="",
                phase="",
                reason="",
                phase_at=None,
                restored_at=None,
            )
            for device in devices
        )


def _is_problem(answer: httpx.Response) -> bool:
    kind = answer.headers["content-type"]
    return kind == "application/problem+json" and answer.json()["status"] == answer.status_code


def test_the_walk_finds_every_route_of_the_document(site: Site) -> None:
    document = site.ask("GET", "/api/v1/openapi.json", "owner").json()
    promised = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert promised <= {(route.method, route.path) for route in site.routes}


def test_every_route_says_what_it_needs(site: Site) -> None:
    silent = [f"{r.method} {r.path}" for r in site.routes if not r.need and r.path not in UNMARKED]
    assert not silent
    assert {route.path for route in site.routes if not route.is_closed} == OPEN


def test_no_route_lets_a_stranger_in(site: Site) -> None:
    for route in site.routes:
        if route.is_closed:
            answer = site.http.request(route.method, route.url())
            assert answer.status_code == 401, route
            assert route.method == "HEAD" or not route.is_api or _is_problem(answer)


@pytest.mark.parametrize("path", ["/", "/nothing/here", "/api/v1/devices", "/v2/", "/api/v1/none"])
def test_nothing_invented_lets_a_stranger_in(site: Site, path: str) -> None:
    owner = site.tokens["owner"]
    for headers in (
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {owner}"},
        {"Cookie": "edgeml_session=9999999999.x.forged"},
        {"Cookie": f"edgeml_session={owner}"},
        {"Cookie": f"edgeml_session={site.tokens[Role.VIEWER]}"},
    ):
        assert site.http.get(path, headers=headers).status_code == 401


def test_no_route_lets_a_role_in_that_is_too_low(site: Site) -> None:
    tried = 0
    for route in site.routes:
        need = route.need or Need(Role.VIEWER)
        lower = [role for role in Role if not role.reaches(need.role)]
        for role in lower[-1:]:
            answer = site.ask(route.method, route.url(), role)
            assert answer.status_code == 403, (route, role)
            assert route.method == "HEAD" or _is_problem(answer)
            tried += 1
    assert tried > 50


def test_what_concerns_the_whole_fleet_is_not_for_a_part_of_it(site: Site) -> None:
    whole = [route for route in site.routes if route.need and route.need.whole_fleet]
    assert len(whole) > 10
    for route in whole:
        answer = site.ask(route.method, route.url(), "north")
        assert answer.status_code == 403, route
        assert route.method == "HEAD" or "your scope is" in answer.json()["why"]


def test_what_is_outside_the_scope_is_not_found(site: Site) -> None:
    places = [r for r in site.routes if r.names_a_place and r.need and not r.need.whole_fleet]
    assert len(places) > 15
    for route in places:
        json: Any = {} if route.method in {"POST", "PUT", "PATCH"} else None
        answer = site.ask(route.method, route.url(**OUTSIDE), "north", json=json)
        assert answer.status_code == 404, route
        assert _is_problem(answer)


def test_no_list_tells_of_what_is_outside_the_scope(site: Site) -> None:
    inside = {"device": "cam-north", "rollout": "of-all"}
    told = set()
    for route in site.routes:
        if route.method != "GET" or not route.is_api or not route.is_closed:
            continue
        path = route.url(**inside)
        assert "south" not in site.text(path, "north"), path
        if "cam-south" in site.text(path, "owner"):
            told.add(route.path)
    # What would tell of it, if it were not for the scope.
    assert {
        "/api/v1/devices",
        "/api/v1/evidence",
        "/api/v1/telemetry",
        "/api/v1/audit",
        "/api/v1/security-events",
        "/api/v1/rollouts/{rollout}",
        "/api/v1/rollouts/{rollout}/explain",
    } <= told


def test_a_rollout_that_reaches_further_is_seen_and_not_changed(site: Site) -> None:
    seen = site.ask("GET", "/api/v1/rollouts/of-all", "north").json()
    assert [device["device"] for device in seen["devices"]] == ["cam-north"]
    refused = site.ask("POST", "/api/v1/rollouts/of-all/resume", "north", json={})
    assert (refused.status_code, refused.json()["kind"]) == (403, "TrustError")
    assert "reaches devices outside your scope" in refused.json()["why"]
    own = site.ask("POST", "/api/v1/rollouts/of-the-north/abort", "north", json={})
    assert own.status_code == 200


def test_a_plan_and_a_rollout_stay_inside_the_scope(site: Site) -> None:
    body = {"model": "digits", "version": "1.0.0", "selector": "site in (north, south)"}
    plan = site.ask("POST", "/api/v1/rollouts/plan", "north", json=body).json()
    assert [device["device"] for device in plan["devices"]] == ["cam-north"]
    made = site.ask("POST", "/api/v1/rollouts", "north", json=body)
    assert made.status_code == 201
    assert made.json()["policy"]["selector"] == "site in (north,south),site in (north)"
    assert [device["device"] for device in made.json()["devices"]] == ["cam-north"]


@pytest.mark.parametrize(
    ("device", "labels", "status"),
    [
        ("cam-new", {"site": "north"}, 201),
        ("cam-new", {"site": "south"}, 403),
        ("cam-new", {}, 403),
        ("cam-north", {"site": "north"}, 201),
        ("cam-south", {"site": "north"}, 409),
    ],
)
def test_only_devices_of_the_scope_are_let_in(
    site: Site, device: str, labels: dict[str, str], status: int
) -> None:
    body = {"device": device, "labels": labels}
    one = site.ask("POST", "/api/v1/enrollments", "north", json=body)
    many = {"devices": {device: labels}}
    batch = site.ask("POST", "/api/v1/enrollments/batch", "north", json=many)
    assert (one.status_code, batch.status_code) == (status, status)


def test_a_device_is_not_labelled_out_of_the_scope(site: Site) -> None:
    path = "/api/v1/devices/cam-north/labels"
    assert site.ask("PUT", path, "north", json={"site": "south"}).status_code == 403
    kept = site.ask("PUT", path, "north", json={"site": "north", "line": "1"})
    assert kept.json()["labels"] == {"line": "1", "site": "north"}
