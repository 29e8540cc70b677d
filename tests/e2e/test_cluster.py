"""Two processes of each role: leaders are killed and paused in mid-rollout, and nothing is lost."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import POLICY, Cluster, Edge, explained, publish, up
from tests.e2e.loop import until
from tests.fleet.conftest import write_release
from tests.needs import module
from tests.sim.postgresql import PostgreSQL

pytestmark = pytest.mark.e2e
DEVICES = 8


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    module("psycopg")
    server = PostgreSQL()
    try:
        with up(tmp_path, server) as made:
            yield made
    finally:
        server.stop()


@pytest.fixture
def edges(cluster: Cluster) -> Iterator[list[Edge]]:
    made = [Edge(cluster, number) for number in range(DEVICES)]
    for edge in made:
        edge.start()
    yield made
    for edge in made:
        edge.end()


def begin(cluster: Cluster, folder: Path, version: str) -> str:
    """Start a rollout, and wait until it is under way; returns its id."""
    write_release(folder, version, version.encode())
    publish(cluster, folder)
    with cluster.client(1) as client:
        rollout = client.create_rollout("digits", version, policy=POLICY)["id"]
    until("the canary to commit", lambda: committed(cluster, rollout) >= 1)
    return rollout


def committed(cluster: Cluster, rollout: str) -> int:
    rows = cluster.sql(
        f"SELECT count(*) FROM assignments WHERE rollout = '{rollout}' AND phase = 'committed'"
    )
    return int(rows[0][0])


def completed(cluster: Cluster, rollout: str) -> None:
    with cluster.client() as client:
        try:
            until("the rollout's end", lambda: client.rollout(rollout)["status"] == "completed")
        except AssertionError:
            raise AssertionError(explained(client, rollout)) from None


def test_leaders_that_die_or_sleep_in_mid_rollout_change_nothing(
    cluster: Cluster, edges: list[Edge], tmp_path: Path
) -> None:
    first = begin(cluster, tmp_path / "one", "1.0.0")
    killed = until("a leader", cluster.leader)
    cluster.kill(killed)
    second = until("another leader", cluster.leader)
    assert second != killed
    completed(cluster, first)

    spare = cluster.start("controller")
    until("the new controller", lambda: cluster.is_up(spare), 120)
    rollout = begin(cluster, tmp_path / "two", "2.0.0")
    cluster.signal(second, signal.SIGSTOP)
    # PostgreSQL lets go of the lock by itself, when it has heard nothing for a while.
    until("a third leader", lambda: cluster.leader() == spare)
    completed(cluster, rollout)
    before = cluster.sql("SELECT name, value FROM facts WHERE name LIKE 'leader.%' ORDER BY name")
    cluster.signal(second, signal.SIGCONT)
    until("the sleeper to know", lambda: "leads no more" in cluster.log(second))
    assert cluster.leader() == spare
    after = cluster.sql("SELECT name, value FROM facts WHERE name LIKE 'leader.%' ORDER BY name")
    assert after == before

    until("all records to arrive", lambda: all(not e.device.outbox.depth() for e in edges))
    for edge in edges:
        assert edge.faults == []
        # Told of each rollout once, by whichever leader: no device was in two waves.
        assert Counter(edge.assigned) == Counter({(first, 1): 1, (rollout, 2): 1})
    stored = cluster.sql(
        "SELECT device, count(*), count(DISTINCT (stream, seq)) FROM records "
        "GROUP BY device ORDER BY device"
    )
    assert stored == [(edge.name, edge.sent, edge.sent) for edge in edges]
    with cluster.client(1) as client:
        assert client.verify_audit() > 0
    turns = cluster.sql("SELECT subject, action, count(*) FROM audit GROUP BY subject, action")
    advanced = {(subject, action): n for subject, action, n in turns if subject in {first, rollout}}
    for name in (first, rollout):
        assert advanced[name, "rollout.complete"] == 1
        assert advanced[name, "rollout.advance"] == 2
