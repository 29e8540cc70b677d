"""Webhooks against a real receiver that fails, hangs, redirects and dies in between."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook

from edgeml.errors import UserError
from fleet.problem import Conflict, NotFound
from fleet.services import alerts, outbox, webhooks
from fleet.services.context import Caller, Services
from fleet.webhooks.events import SCHEDULE_S
from fleet.webhooks.post import post
from fleet.webhooks.sender import WebhookSender

DEADLINE_S = 60.0


class Receiver:
    """An HTTP server that answers as it is told: a status, `hang`, `die` or `drip`."""

    def __init__(self) -> None:
        self.behaviour: list[int | str] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                answer = receiver.behaviour.pop(0) if receiver.behaviour else 204
                if answer == "hang":
                    receiver.release.wait(DEADLINE_S)
                elif answer == "die":
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif answer == "drip":
                    self._drip()
                else:
                    assert isinstance(answer, int)
                    self.send_response(answer)
                    if answer == 302:
                        self.send_header("Location", receiver.url)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def _drip(self) -> None:
                try:
                    while not receiver.release.wait(0.05):
                        self.wfile.write(b"H")
                except OSError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def send(services: Any) -> Iterator[Callable[[], None]]:
    """Send what is due, and wait until it is settled."""
    sender = WebhookSender(services, timeout_s=5.0)

    def sending() -> None:
        sender.tick()
        end = time.monotonic() + DEADLINE_S
        while sender._under_way:
            assert time.monotonic() < end
            time.sleep(0.01)

    yield sending
    sender._pool.shutdown()


@pytest.fixture
def hook(services: Any, receiver: Receiver, operator: Caller) -> Any:
    return webhooks.add(services, operator, receiver.url, allow_private=True)


def only(services: Any, hook: Any) -> Any:
    [found] = webhooks.deliveries(services, hook["id"])["items"]
    return found


def test_an_event_is_a_cloud_event_that_standard_webhooks_verify(
    services: Any, receiver: Receiver, hook: Any, operator: Caller, send: Any, clock: Any
) -> None:
    clock.now = time.time()  # the library refuses what is old
    webhooks.test(services, operator, hook["id"])
    send()
    [(headers, body)] = receiver.got
    assert Webhook(hook["secret"]).verify(body, headers) == json.loads(body)
    event = from_http_event(HTTPMessage(headers=headers, body=body))
    assert (event.get_type(), event.get_subject()) == (webhooks.TEST, hook["id"])
    assert event.get_id() == headers["webhook-id"]
    assert only(services, hook)["status"] == "delivered"


def test_what_fails_is_sent_again_with_the_same_id_until_it_is_taken(
    services: Any, receiver: Receiver, hook: Any, operator: Caller, send: Any, clock: Any
) -> None:
    receiver.behaviour = [500, "die", 302, 204]
    webhooks.test(services, operator, hook["id"])
    for attempt, why in enumerate(("500", "", "redirects are not followed", None), 1):
        send()
        found = only(services, hook)
        assert found["attempts"] == attempt
        if why is None:
            assert (found["status"], found["error"]) == ("delivered", "")
        else:
            assert found["status"] == "waiting"
            assert why in found["error"]
            assert found["next_at"] >= clock.now + SCHEDULE_S[attempt - 1]
            send()  # nothing is due yet
            assert len(receiver.got) == attempt
            clock.now = found["next_at"]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({headers["webhook-signature"] for headers, _ in receiver.got}) == 4
    assert len({body for _, body in receiver.got}) == 1


def test_what_is_never_taken_is_given_up_shown_and_sent_again_on_demand(
    services: Any, receiver: Receiver, hook: Any, operator: Caller, send: Any, clock: Any
) -> None:
    receiver.behaviour = [503] * (len(SCHEDULE_S) + 1)
    webhooks.test(services, operator, hook["id"])
    while only(services, hook)["status"] == "waiting":
        clock.now = only(services, hook)["next_at"]
        send()
    found = only(services, hook)
    assert (found["status"], found["attempts"]) == ("dead", len(SCHEDULE_S) + 1)
    shown = webhooks.show(services, hook["id"])
    assert (shown["dead"], shown["last_error"]) == (1, "It answered 503.")
    alerts.look(services)
    firing = alerts.list_alerts(services, kind="webhook-dead")["items"]
    assert [alert["subject"] for alert in firing] == [hook["id"]]
    webhooks.retry(services, operator, hook["id"], found["id"])
    send()
    assert webhooks.delivery(services, hook["id"], found["id"])["status"] == "delivered"
    with pytest.raises(Conflict):
        webhooks.retry(services, operator, hook["id"], found["id"])


def test_a_receiver_that_is_gone_gets_nothing_more(
    services: Any, receiver: Receiver, hook: Any, operator: Caller, send: Any
) -> None:
    receiver.behaviour = [410]
    for _ in range(2):
        webhooks.test(services, operator, hook["id"])
    send()
    assert "410" in webhooks.show(services, hook["id"])["disabled"]
    assert {d["status"] for d in webhooks.deliveries(services, hook["id"])["items"]} <= {
        "dead",
        "delivered",
    }
    with pytest.raises(Conflict):
        webhooks.test(services, operator, hook["id"])


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_a_receiver_that_does_not_end_its_answer_is_left(
    receiver: Receiver, behaviour: str
) -> None:
    receiver.behaviour = [behaviour]
    outcome = post(receiver.url, {}, b"{}", allow_private=True, timeout_s=0.5)
    assert (outcome.status, outcome.is_taken) == (None, False)
    assert outcome.error


def test_one_that_hangs_holds_up_no_other(
    services: Any, receiver: Receiver, hook: Any, operator: Caller
) -> None:
    slow = Receiver()
    slow.behaviour = ["hang"] * 20
    slow_hook = webhooks.add(services, operator, slow.url, allow_private=True)
    sender = WebhookSender(services, every_s=0.05, timeout_s=DEADLINE_S)
    for _ in range(10):
        webhooks.test(services, operator, slow_hook["id"])
    sender.start()
    try:
        for _ in range(5):
            webhooks.test(services, operator, hook["id"])
        end = time.monotonic() + DEADLINE_S
        while webhooks.show(services, hook["id"])["delivered"] < 5:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert len(slow.got) <= 2
    finally:
        slow.close()
        sender.stop()
        sender._pool.shutdown()


def test_what_a_dead_sender_had_claimed_is_sent_by_another(
    services: Any, receiver: Receiver, hook: Any, operator: Caller, send: Any, clock: Any
) -> None:
    webhooks.test(services, operator, hook["id"])
    assert len(outbox.claim(services, 8)) == 1  # and dies
    send()
    assert receiver.got == []
    clock.now += outbox.CLAIM_S + 1
    send()
    assert only(services, hook)["status"] == "delivered"


def test_two_senders_never_claim_the_same(services: Any, hook: Any, operator: Caller) -> None:
    for _ in range(20):
        webhooks.test(services, operator, hook["id"])
    claimed: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: claimed.extend(c.id for c in outbox.claim(services, 5, each=5))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 5  # five of one webhook at most are under way


def test_only_the_types_that_a_webhook_asks_for_come(
    services: Any, receiver: Receiver, operator: Caller, send: Any
) -> None:
    made = webhooks.add(
        services, operator, receiver.url, ["dev.edgeml.alert.resolved"], allow_private=True
    )
    with services.database.write() as session:
        outbox.enqueue(services, session, "dev.edgeml.alert.firing", "x", {})
        outbox.enqueue(services, session, "dev.edgeml.alert.resolved", "x", {})
    send()
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["dev.edgeml.alert.resolved"]
    webhooks.remove(services, operator, made["id"])
    with pytest.raises(NotFound):
        webhooks.show(services, made["id"])


def test_the_secret_is_in_one_answer_and_not_in_the_database(services: Any, hook: Any) -> None:
    assert hook["secret"].startswith("whsec_")
    assert "secret" not in webhooks.show(services, hook["id"])
    from fleet.db import tables

    with services.database.read() as session:
        kept = session.get_one(tables.Webhook, hook["id"]).secret
    assert hook["secret"].encode() not in kept


@pytest.mark.parametrize(
    ("url", "allow_private"),
    [
        ("http://hooks.example/x", False),  # without TLS
        ("http://hooks.example/x", True),
        ("https://127.0.0.1/x", False),
        ("https://localhost/x", False),
        ("https://[::1]/x", False),
        ("https://[::ffff:10.0.0.1]/x", False),
        ("https://10.1.2.3/x", False),
        ("https://169.254.169.254/latest", True),  # a cloud's metadata, never
        ("https://[64:ff9b::a00:1]/x", False),
        ("https://0.0.0.0/x", True),
        ("https://user:word@hooks.example/x", False),
        ("ftp://hooks.example/x", False),
        ("https:///x", False),
        ("https://hooks.example:99999/x", False),
        ("https://hooks.example/ x", False),
    ],
)
def test_a_url_that_leads_inside_or_nowhere_is_refused(
    services: Any, operator: Caller, url: str, allow_private: bool
) -> None:
    with pytest.raises(UserError):
        webhooks.add(services, operator, url, allow_private=allow_private)


def test_a_name_that_leads_inside_is_refused_when_it_is_sent(receiver: Receiver) -> None:
    port = receiver.server.server_address[1]
    outcome = post(f"http://localhost:{port}/", {}, b"{}", allow_private=False)
    assert "not a public one" in outcome.error
    assert receiver.got == []


@pytest.mark.parametrize("asked", ["dev.edgeml.rollout.finished", "alert", "dev.*.alert", ""])
def test_a_type_of_event_that_does_not_exist_is_refused_with_those_that_do(
    services: Services, operator: Caller, asked: str
) -> None:
    with pytest.raises(UserError, match=r"There is no event .*dev\.edgeml\.rollout\.completed"):
        webhooks.add(services, operator, "https://hooks.example/x", [asked])
    assert webhooks.list_webhooks(services) == []


@pytest.mark.parametrize(
    "asked", ["dev.edgeml.*", "dev.edgeml.alert.*", "dev.edgeml.rollout.halted"]
)
def test_a_type_that_exists_and_a_group_of_them_are_taken(
    services: Services, operator: Caller, asked: str
) -> None:
    webhooks.add(services, operator, "https://hooks.example/x", [asked])
