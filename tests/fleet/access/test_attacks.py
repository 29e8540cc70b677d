"""What was tried against the operators' listener: each of these once went through."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from cloud_sync.messages import EnrollRequest
from cloud_sync.trust import generate
from cloud_sync.trust.identity import make_request
from edgeml.errors import TrustError, UserError
from fleet.access import Access
from fleet.access.rate import Rate, Rates
from fleet.client import FleetClient
from fleet.db import tables
from fleet.roles import Role
from fleet.rollouts import Policy
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.services import (
    Caller,
    Services,
    configuration,
    enrollment,
    facts,
    rollouts,
    tokens,
    users,
)
from fleet.services.credentials import Principal
from fleet.services.rollout_begin import fresh
from tests.fleet.access.test_walk import token
from tests.fleet.conftest import (
    Listening,
    enroll_locally,
    listen,
    make_services,
    write_release,
)

NORTH = parse_selector("site=north")
OPERATOR = Caller("operator", "a test")
CAMERA = "rtsp://viewer:hunter2@10.0.0.7/stream1"
RATES = Rates(login=Rate(burst=3, per_s=0.0001))


@dataclass(frozen=True)
class Fleet:
    """A fleet with a camera in the north and one in the south, and a token of some callers."""

    http: httpx.Client
    listening: Listening
    tokens: dict[str, str]

    def ask(self, who: str, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} | request.pop("headers", {})
        return self.http.request(method, f"/api/v1{path}", headers=headers, **request)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("attacked")
    services = make_services(folder / "fleet")
    listening, end = listen(services, lambda made: Access(made, RATES))
    write_release(folder / "release")
    with FleetClient(listening.operators, services.keys.operator_token) as client:
        client.push(folder / "release")
    for site in ("north", "south"):
        enroll_locally(services, folder, f"cam-{site}", site=site).close()
        settings = {"sources": [{"name": "gate", "uri": CAMERA, "model": "digits"}]}
        configuration.set_own(services, OPERATOR, f"cam-{site}", settings)
    scopes: dict[str, tuple[Role, Selector]] = {
        "viewer": (Role.VIEWER, EVERYTHING),
        "operator": (Role.OPERATOR, EVERYTHING),
        "north": (Role.ADMIN, NORTH),
    }
    secrets = {name: token(services, f"the-{name}", *may) for name, may in scopes.items()}
    secrets["owner"] = services.keys.operator_token
    with httpx.Client(base_url=listening.operators, timeout=60.0) as client:
        yield Fleet(client, listening, secrets)
    end()
    services.database.close()


def principal(services: Services, user: str) -> Principal:
    with services.database.read() as session:
        return users.principal_of(session.get_one(tables.User, user))


@pytest.mark.parametrize(
    "path",
    [
        "/devices",
        "/devices/cam-north",
        "/devices/cam-north/configuration",
        "/devices/cam-north/configuration/effective",
        "/audit",
    ],
)
def test_viewers_do_not_read_the_passwords_of_cameras(fleet: Fleet, path: str) -> None:
    seen, hidden = fleet.ask("operator", "GET", path), fleet.ask("viewer", "GET", path)
    assert CAMERA in seen.text
    assert "rtsp://***@10.0.0.7/stream1" in hidden.text
    assert "hunter2" not in hidden.text
    # A hash of what is hidden would be as good as the password: it can be guessed at.
    assert hidden.headers["etag"] != seen.headers["etag"]
    again = fleet.ask("viewer", "GET", path, headers={"If-None-Match": seen.headers["etag"]})
    assert again.status_code == 200


def test_viewers_see_what_is_shown_to_them_alone(fleet: Fleet) -> None:
    services = fleet.listening.services
    users.create(services, OPERATOR, "vera", Role.VIEWER, password="four words of nobody")
    known = users.change_password(
        services, Caller("vera"), "vera", "four words of nobody", "and other four words"
    )
    secret = fleet.listening.access.make_session(known)
    with FleetClient(fleet.listening.operators, secret) as client:
        assert "?token=" in client.login_link()["url"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/devices/cam-north/configuration", b'{"site":' + b'{"a":' * 200 + b"1" + b"}" * 201),
        ("/devices/cam-north/configuration", b'{"site":{"a":' + b"[" * 200 + b"]" * 200 + b"}}"),
        ("/devices/cam-north/labels", json.dumps({f"k{n}": "v" for n in range(5000)}).encode()),
    ],
)
def test_what_cannot_be_shown_again_is_not_kept(fleet: Fleet, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    refused = fleet.ask("north", "PUT", path, content=body, headers=headers)
    assert refused.status_code == 422
    assert fleet.ask("owner", "GET", "/devices").status_code == 200
    assert fleet.ask("owner", "GET", "/audit").status_code == 200


@pytest.mark.parametrize("parts", [65, 1500])
def test_a_selector_is_no_query_without_end(fleet: Fleet, parts: int) -> None:
    selector = ",".join(["a"] * parts)
    assert fleet.ask("viewer", "GET", f"/devices?selector={selector}").status_code == 422
    body = {"name": f"bomb-{parts}", "role": "viewer", "scope": selector}
    assert fleet.ask("owner", "POST", "/users", json=body).status_code == 422


def test_a_policy_does_not_keep_the_fleet_busy(fleet: Fleet) -> None:
    policy = "a" + ".a" * 30_000 + " = 1"
    body = {"model": "digits", "version": "1.0.0", "policy": policy}
    refused = fleet.ask("viewer", "POST", "/rollouts/plan", json=body)
    assert (refused.status_code, "too many dots" in refused.text) == (422, True)


def test_a_scoped_policy_blocks_nothing_for_others(fleet: Fleet) -> None:
    body = {"model": "digits", "version": "1.0.0", "policy": "block_class = true", "draft": True}
    assert fleet.ask("north", "POST", "/rollouts", json=body).status_code == 403
    assert fleet.ask("operator", "POST", "/rollouts", json=body).status_code == 201


def test_a_plan_is_not_kept_for_its_key(fleet: Fleet) -> None:
    body = {"model": "digits", "version": "1.0.0"}
    for _ in range(2):
        plan = fleet.ask(
            "viewer", "POST", "/rollouts/plan", json=body, headers={"Idempotency-Key": "k"}
        )
        assert plan.status_code == 200
        assert "idempotent-replayed" not in plan.headers


def test_health_names_nobody_outside_the_scope(fleet: Fleet) -> None:
    services = fleet.listening.services
    with services.database.write() as session:
        facts.put(session, facts.FROZEN, "cam-south holds a newer state.")
    try:
        seen, hidden = (fleet.ask(who, "GET", "/health").json() for who in ("owner", "north"))
    finally:
        with services.database.write() as session:
            facts.put(session, facts.FROZEN, "")
    assert "cam-south" in seen["frozen"]
    assert hidden["frozen"]
    assert "cam-south" not in hidden["frozen"]
    assert (hidden["status"], hidden["counters"]) == ("frozen", {})


def test_a_token_of_before_does_not_take_a_device_over(fleet: Fleet, tmp_path: Path) -> None:
    services = fleet.listening.services
    body = {"device": "cam-later", "labels": {"site": "north"}}
    early = fleet.ask("north", "POST", "/enrollments", json=body).json()["token"]
    enroll_locally(services, tmp_path, "cam-later", site="south").close()
    request = EnrollRequest(token=early, csr=make_request("cam-later", generate()))
    with pytest.raises(TrustError, match="older than the enrolment"):
        enrollment.enroll(services, request)
    assert fleet.ask("owner", "GET", "/devices/cam-later/labels").json() == {"site": "south"}


def test_a_guess_at_ones_own_password_is_counted(fleet: Fleet) -> None:
    services, body = fleet.listening.services, {"old": "a guess", "new": "any other four words"}
    users.create(services, OPERATOR, "mallory", Role.VIEWER, password="four words of nobody")
    stolen = fleet.listening.access.make_session(principal(services, "mallory"))
    headers = {"Authorization": f"Bearer {stolen}"}
    answers = [
        fleet.http.put("/api/v1/me/password", json=body, headers=headers).status_code
        for _ in range(4)
    ]
    assert answers == [401, 401, 401, 429]


def test_a_scope_and_a_tokens_own_are_not_too_long_together(fleet: Fleet) -> None:
    services = fleet.listening.services
    long = f"site in ({','.join(f'n{n}' for n in range(600))})"
    users.create(services, OPERATOR, "wide", Role.VIEWER, scope=long)
    owner, own = principal(services, "wide"), long.replace("site", "line")
    with pytest.raises(UserError, match="too long"):
        tokens.create(services, owner, "ci", scope=own)


def test_counts_of_rollouts_are_of_the_scope(fleet: Fleet) -> None:
    services = fleet.listening.services
    made = fleet.ask("owner", "POST", "/rollouts", json={"model": "digits", "version": "1.0.0"})
    rollout = made.json()["id"]
    with services.database.write() as session:
        session.add_all(
            tables.Assignment(
                rollout=rollout,
                device=device,
                wave=0,
                variant="v",
                attempt=1,
                nonce="n",
                assigned_at=1.0,
                previous="",
                phase="",
                reason="",
                phase_at=None,
                restored_at=None,
            )
            for device in ("cam-north", "cam-south")
        )
    counts = {
        who: {
            item["id"]: item["counts"]
            for item in fleet.ask(who, "GET", "/rollouts").json()["items"]
        }[rollout]
        for who in ("owner", "north")
    }
    assert counts == {"owner": {"updating": 2}, "north": {"updating": 1}}
    rollouts.abort(services, OPERATOR, rollout)


def test_layers_and_blocks_of_others_are_not_told(fleet: Fleet) -> None:
    for site in ("north", "south"):
        body = {"settings": {"telemetry_every_s": 5.0}, "selector": f"site={site}"}
        path = f"/configurations/at-{site}/rollouts"
        made = fleet.ask("owner", "POST", path, json=body | {"draft": True})
        assert made.status_code == 201, made.text
    seen = {
        who: [one["layer"] for one in fleet.ask(who, "GET", "/configurations").json()["items"]]
        for who in ("owner", "north")
    }
    assert seen == {"owner": ["at-north", "at-south"], "north": ["at-north"]}
    assert fleet.ask("north", "GET", "/configurations/at-south").status_code == 404
    block = {"model": "digits", "version": "1.0.0", "hardware_class": "slow"}
    why = "cam-south burnt"
    fleet.ask("owner", "POST", "/rollouts/blocks", json=block | {"reason": why})
    told = {who: fleet.ask(who, "GET", "/rollouts/blocks").text for who in ("owner", "north")}
    fleet.ask("owner", "POST", "/rollouts/blocks/remove", json=block | {"reason": why})
    assert why in told["owner"]
    assert "slow" in told["north"]
    assert why not in told["north"]


def test_members_of_a_rollout_are_of_the_scope(fleet: Fleet) -> None:
    services = fleet.listening.services
    north = Caller("one-of-the-north", "a test", role=Role.OPERATOR, scope=NORTH)
    with services.database.read() as session:
        release = session.scalars(select(tables.Release)).one().digest
    made = rollouts.begin(
        services,
        north,
        fresh("digits", "1.0.0", release),
        Policy(membership="fixed"),
        draft=True,
        members=["cam-north", "cam-south"],  # the one was of the north when it was reached
    )
    member = tables.RolloutMember
    with services.database.read() as session:
        kept = session.scalars(select(member.device).where(member.rollout == made["id"])).all()
    assert kept == ["cam-north"]
