"""What Prometheus reads, and what reads Prometheus: the rules and the dashboard of `deploy/`."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet.db import tables
from fleet.services import alerts, security, webhooks
from fleet.services.context import Caller
from fleet.trust.changes import RoleKeys
from tests.needs import program

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "edgeml.json"


@pytest.fixture
def samples(fleet: Any, http: httpx.Client, make_device: Any, operator: Caller) -> list[Any]:
    """Everything that a fleet tells in which everything has happened."""
    services = fleet.services
    services.gauges["ingest.waiting"] = lambda: 0.0
    device = make_device("cam-1")
    device.client().hello(device.hello())
    security.record(services, "forged-hello", "cam-1", "")
    webhooks.add(services, operator, "https://hooks.example/x")
    alerts.look(services)
    services.counters.add("ingest.records")
    fleet.client.trust_init(RoleKeys(keys={}, threshold=1), RoleKeys(keys={}, threshold=1))
    with services.database.write() as session:
        session.add(release := tables.Release(digest="sha256:1", model="m", version="1",
                    created_at=0.0, created_by="", document="{}"))  # fmt: skip
        session.flush()
        empty = {c.name: None if c.nullable else c.type.python_type()
                 for c in tables.Rollout.__table__.columns}  # fmt: skip
        row = {**empty, "id": "r", "release": release.digest, "status": "completed"}
        session.add(tables.Rollout(**row))
    http.get("/api/v1/devices/cam-1")
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return [s for family in text_string_to_metric_families(answer.text) for s in family.samples]


def test_no_metric_names_a_device_and_their_number_is_bounded(samples: list[Any]) -> None:
    assert not [sample for sample in samples if "cam-1" in str(sample.labels)]
    assert len(samples) < 2000
    routes = {s.labels["route"] for s in samples if s.name == "edgeml_http_request_seconds_count"}
    assert "/api/v1/devices/{device}" in routes


def test_rules_and_dashboard_speak_of_metrics_that_are_there(samples: list[Any]) -> None:
    told = {sample.name for sample in samples}
    expressions = re.findall(r"^\s+expr: (.*)$", RULES.read_text(), re.MULTILINE)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for text in expressions for name in re.findall(r"\b(?:edgeml|process)_\w+", text)}
    assert len(expressions) > 20
    assert named <= told
    for name, label in re.findall(r"(edgeml_\w+)\{(\w+)", " ".join(expressions)):
        assert any(label in s.labels for s in samples if s.name == name), (name, label)


def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", str(RULES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_metrics_are_for_those_who_may_see_the_fleet(fleet: Any) -> None:
    assert httpx.get(f"{fleet.operators}/metrics").status_code == 401
