"""The lines of the contract: each a function that a running candidate passes or fails.

A line gets a fresh broker with the accounts of `candidates.ACCOUNTS`, talks to it through real
sockets with paho 2 (MQTT 5), and returns what it saw. The docstring is the line's text in the
table; the essential ones decide.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.broker_contract.candidates import FLEET, Candidate, answers
from benchmarks.broker_contract.client import MQTT_5, Probe, until

A = "edgeml/v1/dev-a"
B = "edgeml/v1/dev-b"
STEP = 500
QUIET_S = 0.6
"""How long a forbidden message is given to arrive."""


@dataclass(frozen=True)
class Seen:
    """Whether the line holds, and the figure or the reason."""

    holds: bool
    detail: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the contract; of one that holds, the table shows `figure`s only."""

    run: Callable[[Candidate], Seen]
    essential: bool = True
    figure: bool = False

    @property
    def name(self) -> str:
        """Its name in `--line` and in JSON."""
        return self.run.__name__

    @property
    def text(self) -> str:
        """Its text in the table."""
        return (self.run.__doc__ or "").strip().splitlines()[0].rstrip(".")


def probe(broker: Candidate, user: str, **options: object) -> Probe:
    """Return a client of this broker, with the password that the account has."""
    options = {"protocol": broker.protocol} | options
    return Probe(broker.port, user, broker.accounts.get(user, "?"), **options)  # type: ignore[arg-type]


def connects(broker: Candidate) -> Seen:
    """MQTT 5 connect, clean_start=False, session expiry."""
    with probe(broker, "dev-a", protocol=MQTT_5) as device:
        return Seen(device.connected, "" if device.connected else device.reason or "no answer")


def qos1_both_ways(broker: Candidate) -> Seen:
    """QoS 1 both ways, acknowledged by hand, 200 messages each."""
    with probe(broker, FLEET) as fleet, probe(broker, "dev-a") as device:
        fleet.subscribe("edgeml/v1/+/up/#")
        device.subscribe(f"{A}/down/#")
        for n in range(200):
            device.publish(f"{A}/up/state", b"%d" % n, wait=False)
            fleet.publish(f"{A}/down/desired", b"%d" % n, wait=False)
        until(lambda: len(fleet.messages) >= 200 and len(device.messages) >= 200, 5)
        up = [int(payload) for _, payload in fleet.messages]
        down = [int(payload) for _, payload in device.messages]
        whole = list(range(200))
        return Seen(up == whole and down == whole, f"{len(up)} up, {len(down)} down")


def wrong_password_is_refused(broker: Candidate) -> Seen:
    """A wrong password, an unknown user and no user are refused."""
    for user, word in (("dev-a", "secret-b"), ("dev-z", "x"), ("", "")):
        device = Probe(broker.port, user, word, client_id="dev-a", protocol=broker.protocol).open()
        if device.connected:
            device.close()
            return Seen(False, f"{user or 'anonymous'} got in")
        device.close()
    with probe(broker, "dev-a") as right:
        return Seen(right.connected, "" if right.connected else "the right one, too")


def accounts_change_without_restart(broker: Candidate) -> Seen:
    """Accounts come and go without a restart."""
    broker.accounts["dev-c"] = "secret-c"
    broker.changed()
    with probe(broker, "dev-c") as device:
        came = device.connected
    del broker.accounts["dev-c"]
    broker.changed()
    late = Probe(broker.port, "dev-c", "secret-c", protocol=broker.protocol).open()
    went = not late.connected
    late.close()
    return Seen(
        came and went,
        f"new one {'in' if came else 'refused'}, old one {'refused' if went else 'in'}",
    )


def publish_below_own_id_only(broker: Candidate) -> Seen:
    """A device publishes below edgeml/v1/{its id}/ only, retained or not."""
    with probe(broker, FLEET) as fleet, probe(broker, "dev-a") as device:
        fleet.subscribe("#")
        for topic in (f"{B}/up/state", "edgeml/v1/dev-ab/up", "elsewhere"):
            device.publish(topic, b"forged", wait=False)
            device.publish(topic, b"forged", retain=True, wait=False)
        until(lambda: not device.connected, QUIET_S)
        with probe(broker, "dev-a") as again:
            again.publish(f"{A}/up/state", b"own")
        arrived = until(lambda: fleet.has(f"{A}/up/state", b"own"))
        until(lambda: any(payload == b"forged" for _, payload in fleet.messages), QUIET_S)
        forged = sorted({topic for topic, payload in fleet.messages if payload == b"forged"})
        return Seen(arrived and not forged, f"got through: {forged}" if forged else "")


def subscribe_below_own_id_only(broker: Candidate) -> Seen:
    """A device receives what is below edgeml/v1/{its id}/ only, whatever it subscribes to."""
    with probe(broker, FLEET) as fleet, probe(broker, "dev-a") as device:
        fleet.publish(f"{B}/down/desired", b"retained", retain=True)
        for topic in ("#", "+/#", f"{B}/down/#", "edgeml/v1/+/down/#", f"$share/g/{B}/down/#"):
            device.subscribe(topic, timeout_s=1)
        if not device.connected:
            device.open()  # a broker may have cut it off for asking
        device.subscribe(f"{A}/down/#")
        fleet.publish(f"{B}/down/desired", b"b's")
        fleet.publish(f"{A}/down/desired", b"a's")
        own = until(lambda: device.has(f"{A}/down/desired", b"a's"))
        until(lambda: any(topic.startswith(B) for topic, _ in device.messages), QUIET_S)
        read = [topic for topic, _ in device.messages if not topic.startswith(f"{A}/")]
        return Seen(own and not read, f"read {len(read)} of another's" if read else "")


def will_below_own_id_only(broker: Candidate) -> Seen:
    """A will on another's topic is not published."""
    with probe(broker, FLEET) as fleet:
        (heard_all,) = fleet.subscribe("#")
        forger = probe(broker, "dev-a", will=(f"{B}/up/presence", b"forged")).open()
        forger.cut()
        heard = until(lambda: fleet.has(f"{B}/up/presence", b"forged"), 2)
        honest = probe(broker, "dev-a", will=(f"{A}/up/presence", b"own")).open()
        honest.cut()
        own = until(lambda: fleet.has(f"{A}/up/presence", b"own"))
        detail = "published" if heard else "" if own else "nor is any other"
        return Seen(heard_all and own and not heard, detail)


def will_on_a_cut(broker: Candidate) -> Seen:
    """The will is published on a cut, retained, and not on a proper goodbye."""
    with probe(broker, FLEET) as fleet:
        fleet.subscribe("edgeml/v1/+/up/#")
        polite = probe(broker, "dev-b", will=(f"{B}/up/presence", b"offline")).open()
        polite.close()
        device = probe(broker, "dev-a", will=(f"{A}/up/presence", b"offline")).open()
        begun = time.monotonic()
        device.cut()
        heard = until(lambda: fleet.has(f"{A}/up/presence", b"offline"))
        took = time.monotonic() - begun
        wrongly = fleet.has(f"{B}/up/presence", b"offline")
    with probe(broker, FLEET, client_id=f"{FLEET}-late") as late:
        late.subscribe("edgeml/v1/+/up/presence")
        kept = until(lambda: (f"{A}/up/presence", b"offline") in late.retained, 1)
    return Seen(
        heard and not wrongly and kept,
        f"heard {heard} ({took * 1000:.0f} ms), retained {kept}, on goodbye {wrongly}",
    )


def retained_presence(broker: Candidate) -> Seen:
    """Retained presence reaches a later subscriber; an empty payload clears it."""
    with probe(broker, "dev-a") as device:
        device.publish(f"{A}/up/presence", b"online", retain=True)
        with probe(broker, FLEET) as fleet:
            fleet.subscribe("edgeml/v1/+/up/presence")
            kept = until(lambda: (f"{A}/up/presence", b"online") in fleet.retained, 1)
        device.publish(f"{A}/up/presence", b"", retain=True)
    with probe(broker, FLEET, client_id=f"{FLEET}-late") as late:
        late.subscribe("edgeml/v1/+/up/presence")
        cleared = not until(lambda: bool(late.retained), QUIET_S)
    return Seen(kept and cleared, f"kept {kept}, cleared {cleared}")


def foreign_client_id_is_refused(broker: Candidate) -> Seen:
    """Another identity cannot take over a session by its client id."""
    with probe(broker, FLEET) as fleet:
        victim = probe(broker, "dev-b").open()
        victim.subscribe(f"{B}/down/#")
        thief = probe(broker, "dev-a", client_id="dev-b").open()
        fleet.publish(f"{B}/down/desired", b"for b")
        read = until(lambda: bool(thief.messages), QUIET_S)
        held = victim.connected and until(lambda: victim.has(f"{B}/down/desired", b"for b"))
        thief.close()
        victim.close()
        return Seen(held and not read, f"victim kept {held}, thief read {read}")


def own_takeover(broker: Candidate) -> Seen:
    """The same device connecting again ends its old connection and keeps its session."""
    with probe(broker, FLEET) as fleet:
        old = probe(broker, "dev-a").open()
        old.subscribe(f"{A}/down/#")
        with probe(broker, "dev-a") as new:
            ended = until(lambda: not old.connected)
            fleet.publish(f"{A}/down/desired", b"x")
            reached = until(lambda: bool(new.messages))
        old.close()
        return Seen(ended and reached, f"old ended {ended}, subscription kept {reached}")


def redelivers(broker: Candidate) -> Seen:
    """What was not acknowledged comes again after a reconnect."""
    with probe(broker, FLEET) as fleet:
        silent = probe(broker, "dev-a", acknowledge=False).open()
        silent.subscribe(f"{A}/down/#")
        fleet.publish(f"{A}/down/desired", b"one")
        first = until(lambda: bool(silent.messages))
        silent.cut()
        with probe(broker, "dev-a") as again:
            second = until(lambda: again.has(f"{A}/down/desired", b"one"))
        with probe(broker, "dev-a") as third:
            more = until(lambda: bool(third.messages), QUIET_S)
        return Seen(first and second and not more, f"again {second}, after its ack {more}")


def queues_offline(broker: Candidate) -> Seen:
    """Messages to an absent device wait in its session."""
    with probe(broker, FLEET) as fleet:
        with probe(broker, "dev-a") as device:
            device.subscribe(f"{A}/down/#")
        for n in range(20):
            fleet.publish(f"{A}/down/desired", b"%d" % n)
        with probe(broker, "dev-a") as again:
            until(lambda: len(again.messages) >= 20, 2)
            return Seen(len(again.messages) == 20, f"{len(again.messages)} of 20")


def sustains_1000_a_second(broker: Candidate, clients: int = 200, rate: int = 1000) -> Seen:
    """1,000 messages/s from 200 clients to the fleet, none lost."""
    seconds = float(os.environ.get("EDGEML_CONTRACT_SECONDS", "5"))
    # Some read their accounts at the start only, which is another line's matter.
    broker.stop()
    broker.accounts |= {f"load-{n}": "w" for n in range(clients)}
    broker.start()
    late: list[float] = []
    with probe(broker, FLEET) as fleet:
        fleet.subscribe("edgeml/v1/+/up/#")
        inner = fleet.client.on_message
        assert inner is not None

        def timed(client: object, data: object, message: object) -> None:
            late.append(time.monotonic() - float(message.payload))  # type: ignore[attr-defined]
            inner(client, data, message)  # type: ignore[arg-type]

        fleet.client.on_message = timed
        devices = [probe(broker, f"load-{n}").open() for n in range(clients)]
        up = sum(device.connected for device in devices)
        if up < clients:
            for device in devices:
                device.close()
            return Seen(False, f"{up} of {clients} connected")
        before = cpu_s(broker)
        begun, sent = time.monotonic(), 0
        while (now := time.monotonic() - begun) < seconds:
            while sent < now * rate:
                device = devices[sent % clients]
                stamp = repr(time.monotonic()).encode()
                device.publish(f"edgeml/v1/load-{sent % clients}/up/telemetry", stamp, wait=False)
                sent += 1
            time.sleep(0.002)
        until(lambda: len(late) >= sent, 10)
        busy = (cpu_s(broker) - before) / seconds
        for device in devices:
            device.close()
    late.sort()
    p99 = late[int(len(late) * 0.99)] * 1000 if late else 0.0
    return Seen(
        len(late) == sent and p99 < 1000,
        f"{len(late)}/{sent}, p99 {p99:.0f} ms, {busy:.0%} of a core",
    )


def cpu_s(broker: Candidate) -> float:
    """Return the processor seconds that the broker has used."""
    return sum(sum(process.cpu_times()[:2]) for process in broker.processes())


def memory_stays(broker: Candidate) -> Seen:
    """Memory: 300 reconnects and 20,000 messages add less than 20 MB."""

    def work(connects: int, messages: int) -> bool:
        with probe(broker, FLEET) as fleet, probe(broker, "dev-a") as device:
            fleet.subscribe("edgeml/v1/+/up/#")
            whole = True
            # Not all at once: a broker may bound what waits for a client.
            for sent in range(STEP, messages + 1, STEP):
                for _ in range(STEP):
                    device.publish(f"{A}/up/telemetry", bytes(1000), wait=False)
                whole = whole and until(lambda: len(fleet.messages) >= sent, 10)  # noqa: B023
        for _ in range(connects):
            with probe(broker, "dev-b") as other:
                other.subscribe(f"{B}/down/#")
        return whole

    work(20, 2000)
    first = broker.rss_mb()
    whole = work(300, 20_000)
    grown = broker.rss_mb() - first
    lost = "" if whole else ", messages lost"
    return Seen(whole and grown < 20, f"{first:.0f} MB, +{grown:.1f} MB{lost}")


def listens_on_loopback(broker: Candidate) -> Seen:
    """Listens on loopback only."""
    addresses = broker.listens()
    return Seen(addresses <= {"127.0.0.1", "::1"} and bool(addresses), ", ".join(sorted(addresses)))


def stops_cleanly(broker: Candidate) -> Seen:
    """Stops within five seconds with clients connected, frees its port, leaves no process."""
    with probe(broker, "dev-a"), probe(broker, FLEET):
        children = broker.processes()
        begun = time.monotonic()
        status = broker.stop()
        took = time.monotonic() - begun
        gone = until(lambda: not any(child.is_running() for child in children), 2)
        return Seen(
            status in (0, -15) and gone and not answers(broker.port),
            f"status {status:.0f}, {took:.1f} s",
        )


def still_serves(broker: Candidate) -> bool:
    """Return whether a message still gets from a device to the fleet."""
    with probe(broker, FLEET) as fleet, probe(broker, "dev-a") as device:
        if not (fleet.connected and device.connected):
            return False
        fleet.subscribe("edgeml/v1/+/up/#")
        mark = os.urandom(8).hex().encode()
        device.publish(f"{A}/up/state", mark)
        return until(lambda: fleet.has(f"{A}/up/state", mark))
