"""`edgeml models`, `alerts`, `webhooks` and `top`, against real listeners."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeml.cli import app
from edgeml.errors import EdgemlError, RemoteError, UserError
from fleet.overview import rates
from fleet.services import alerts, security
from fleet.webhooks.sender import WebhookSender

Run = Callable[..., str]


@pytest.fixture
def run(fleet: Any) -> Run:
    """Run a command against the fleet; returns what it printed."""

    def make(*arguments: str) -> str:
        environment = {
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_TOKEN": fleet.services.keys.operator_token,
        }
        done = CliRunner().invoke(app, list(arguments), env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return make


@pytest.fixture
def taking() -> Iterator[str]:
    """The URL of a receiver that takes everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_models_are_listed_and_shown(run: Run, release_folder: Path) -> None:
    assert "There is no model yet" in run("models", "list")
    run("releases", "push", str(release_folder))
    assert "digits" in run("models", "list")
    shown = json.loads(run("models", "show", "digits", "--json"))
    assert [r["version"] for r in shown["releases"]] == ["1.0.0"]
    assert "digits:1.0.0" in run("models", "show", "digits")
    with pytest.raises(UserError, match="no model 'nope'"):
        run("models", "show", "nope")


def test_an_alert_is_listed_and_acknowledged(run: Run, fleet: Any, tmp_path: Path) -> None:
    run("alerts", "rules", str(rules(tmp_path, "disk_free_share = 0")))
    assert run("alerts", "list").strip() == "Nothing fires."
    security.record(fleet.services, "forged-hello", "cam-1", "")
    alerts.look(fleet.services)
    [one] = json.loads(run("alerts", "list", "--json"))
    assert "I look." in run("alerts", "ack", str(one["id"]), "--why", "I look.")
    assert "by operator" in run("alerts", "list", "--state", "all", "--kind", "security-event")


def rules(folder: Path, text: str) -> Path:
    file = folder / "rules.toml"
    file.write_text(text)
    return file


def test_what_rules_print_sets_them_again(run: Run, tmp_path: Path) -> None:
    changed = run("alerts", "rules").replace("ingest_waiting = 1000", "ingest_waiting = 7")
    assert run("alerts", "rules", str(rules(tmp_path, changed))) == changed
    with pytest.raises(UserError, match="cannot be used"):
        run("alerts", "rules", str(rules(tmp_path, "nope = 1")))


def test_a_webhook_is_added_tested_shown_and_removed(run: Run, fleet: Any, taking: str) -> None:
    assert "no webhook yet" in run("webhooks", "list")
    made = json.loads(run("webhooks", "add", taking, "--allow-private", "--json"))
    assert made["secret"].startswith("whsec_")
    sender = WebhookSender(fleet.services)
    sender.start()
    try:
        assert "delivered" in run("webhooks", "test", made["id"], "--wait", "60")
    finally:
        sender.stop()
    assert "1 sent" in run("webhooks", "list")
    assert made["secret"] not in run("webhooks", "show", made["id"], "--json")
    assert "Nothing was given up" in run("webhooks", "retry", made["id"])
    with pytest.raises(RemoteError, match="not taken"):
        run("webhooks", "test", made["id"], "--wait", "0")  # nobody sends it
    assert "is removed" in run("webhooks", "remove", made["id"])
    with pytest.raises(UserError, match="no webhook"):
        run("webhooks", "show", made["id"])


def test_top_shows_the_fleet_once(run: Run, fleet: Any, make_device: Any) -> None:
    device = make_device("cam-1")
    device.client().hello(device.hello())
    security.record(fleet.services, "forged-hello", "cam-1", "Not its key.")
    alerts.look(fleet.services)
    shown = run("top", "--once")
    assert "away of 1 devices" in shown
    assert "forged-hello of cam-1" in " ".join(shown.split())
    found = json.loads(run("top", "--json"))
    assert set(found) == {"health", "alerts", "rollouts", "models", "rates"}


def test_a_fleet_that_began_anew_has_no_negative_rates() -> None:
    assert rates({"hello": 100}, {"hello": 3}, 1.0) == {"hellos": 0.0}
    assert rates({}, {"hello": 3}, 0.0) == {}
