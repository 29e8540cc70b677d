"""The data budget on a whole agent: it waits, says what it needs, and goes on when it may."""

import sqlite3
from contextlib import closing

import msgspec
import pytest

from cloud_sync.messages import Cause, DataBudget, LedgerEntry, LedgerRecord, Phase, RecordKind
from cloud_sync.release import Release
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, Scene
from tests.sim.proxy import Proxy


def ledger(scene: Scene) -> dict[tuple[str, Cause], LedgerEntry]:
    """What the device told of, by rollout and cause."""
    found = {}
    for body in scene.device.of(RecordKind.LEDGER):
        for entry in msgspec.json.decode(body, type=LedgerRecord).entries:
            found[entry.rollout, entry.cause] = entry
    return found


def want(scene: Scene, release: Release, data_budget_bytes: int = 0) -> None:
    desired = msgspec.structs.replace(
        scene.fleet.desired(release), rollout="r1", data_budget_bytes=data_budget_bytes
    )
    scene.fleet.want(DEVICE, {MODEL: desired}, scene.configuration)


def reason(scene: Scene) -> str:
    states = scene.device.states(MODEL)
    return states[-1].reason if states else ""


def with_budget(scene: Scene, version: int, **budget: object) -> None:
    scene.configuration = msgspec.structs.replace(
        scene.configuration,
        config_version=version,
        data_budget=DataBudget(**budget),  # type: ignore[arg-type]
    )


def test_an_update_waits_for_a_larger_budget_and_the_fleet_is_told_what_it_cost(
    scene: Scene,
) -> None:
    release = scene.release("1.0.0")
    with_budget(scene, 2, rollout_bytes=2000)
    want(scene, release)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: "budget:" in reason(scene), what="it waits")
        assert "MB are needed" in reason(scene) or "nothing may be fetched" in reason(scene)
        assert scene.device.states(MODEL)[-1].phase is Phase.RESOLVING
        with_budget(scene, 3, rollout_bytes=10_000_000)
        want(scene, release)
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed")
        assert reason(scene) == ""
        eventually(lambda: ("r1", Cause.FULL) in ledger(scene), what="the ledger came")
        agent.stop()
    told = ledger(scene)
    files = sum(
        file.size
        for variant in release.variants
        for file in variant.files
        if file.role not in {"report", "recipe"}
    )
    assert files <= told["r1", Cause.FULL].received < 2 * files + 64_000
    assert told["r1", Cause.METADATA].received > 500
    assert told["", Cause.TELEMETRY].sent > 1000


def test_an_update_is_refused_where_the_operator_wants_that(scene: Scene) -> None:
    with_budget(scene, 2, rollout_bytes=0, when_spent="refuse")
    want(scene, scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.REFUSED, what="refused")
        agent.stop()
    assert "budget: nothing may be fetched" in reason(scene)


def test_a_spent_month_holds_telemetry_back_and_lets_states_through(scene: Scene) -> None:
    with AgentProcess(scene.config) as agent:
        scene.want(scene.release("1.0.0"))
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed")
        eventually(lambda: len(scene.device.windows()) > 2, what="telemetry")
        with_budget(scene, 3, month_bytes=1)
        scene.want(scene.release("1.1.0", seed=1))
        eventually(lambda: "of this month is" in reason(scene), what="it waits")
        before = None

        def is_quiet() -> bool:
            nonlocal before
            last, before = before, len(scene.device.windows())
            return last == before

        eventually(is_quiet, what="no more telemetry", every_s=7.0, timeout_s=60.0)
        with_budget(scene, 4)
        scene.want(scene.release("1.1.0", seed=1))
        eventually(lambda: len(scene.device.windows()) > (before or 0), what="it comes, late")
        agent.stop()


@pytest.mark.parametrize("bytes_", [1, 3000])
def test_a_policy_s_budget_holds_where_the_device_says_nothing(scene: Scene, bytes_: int) -> None:
    want(scene, scene.release("1.0.0"), bytes_)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: "of the rollout r1" in reason(scene), what="it waits")
        agent.stop()


def test_what_was_leased_and_not_spent_is_given_back_when_the_agent_is_asked_to_end(
    scene: Scene,
) -> None:
    with Proxy(int(scene.fleet.url.rpartition(":")[2])) as link:
        toml = scene.config.read_text()
        assert scene.fleet.url in toml
        scene.config.write_text(toml.replace(scene.fleet.url, f"http://127.0.0.1:{link.port}"))
        with AgentProcess(scene.config) as agent:
            scene.want(scene.release("1.0.0"))
            eventually(
                lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed"
            )
            link.bytes_per_s = 20_000.0
            scene.want(scene.release("1.1.0", seed=1, ballast=2_000_000))
            eventually(lambda: leases(scene, Cause.FULL), what="a download that goes on")
            link.silent = True
            agent.stop()
    assert leases(scene) == []


def leases(scene: Scene, cause: Cause | None = None) -> list[tuple[str, int]]:
    """What the device has written down to be spent soon, by cause."""
    with closing(sqlite3.connect(scene.data / "ledger.db", timeout=30)) as database:
        rows = database.execute("SELECT cause, bytes FROM leases").fetchall()
    return [row for row in rows if cause in (None, row[0])]
