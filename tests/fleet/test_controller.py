import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from cloud_sync.evidence import Verdict
from cloud_sync.messages import DesiredModel, Measure, Phase, RecordKind, encode
from cloud_sync.release import Layout, Release
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import UserError
from fleet.controller import Controller
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.rollouts import Policy
from fleet.rollouts.gates import FAILURES
from fleet.rollouts.policy import Gates, Limits, Metric, Wave
from fleet.rollouts.together import Together
from fleet.services import (
    Services,
    audit,
    devices,
    records,
    recovery,
    releases,
    reported,
    rollouts,
    rollups,
    webhooks,
)
from fleet.show import cost_text

POLICY = Policy(waves=(Wave(count=1), Wave(percent=100)), soak_s=10.0)
ROLLBACK_REASON = "confident share 0.1 against 0.9"


class Sim:
    """Devices that do what a test tells them, through signed messages only."""

    def __init__(self, services: Services, devices: list[Any], kit: Any) -> None:
        self.services = services
        self.devices = {device.device: device for device in devices}
        self.running: dict[str, DesiredModel] = {}
        self.kit = kit

    def wanted(self, device: str) -> DesiredModel | None:
        """What the device is told to run."""
        state = self.devices[device].take(reported.current_desired(self.services, device))
        return state.models.get("digits") if state else None

    def say(self, device: str, phase: Phase, reason: str = "", *gates: Any) -> None:
        """Report a phase of what is wanted, and at its end evidence."""
        wanted, one = self.wanted(device), self.devices[device]
        assert wanted is not None
        if phase in {Phase.COMMITTED, Phase.ROLLED_BACK}:
            one.outbox.append(RecordKind.EVIDENCE, self.kit.evidence(device, wanted, *gates))
        if phase is Phase.COMMITTED:
            self.running[device] = wanted
        one.report("digits", self.kit.reported(wanted, phase, self.running.get(device), reason))
        self._send(one)

    def report(self, device: str, **counted: Any) -> None:
        """Send a window of telemetry of what the device runs."""
        one, running = self.devices[device], self.running[device]
        window = msgspec.structs.replace(
            self.kit.window(100), release=running.release, variant=running.variant, **counted
        )
        one.outbox.append(RecordKind.TELEMETRY, window)
        self._send(one)

    def _send(self, one: Any) -> None:
        envelope = sign(encode(one.outbox.batch()), PayloadType.BATCH, one.key)
        signed = records.verify(self.services, one.device, envelope, one.key.public_key())
        for ack in records.store(self.services, [signed]):
            one.outbox.acknowledge(one.open_ack(ack))


@pytest.fixture
def sim(services: Services, tmp_path: Path, enroll: Callable[..., Any], kit: Any) -> Sim:
    made = [enroll(services, tmp_path, f"cam-{n}", site="north") for n in (1, 2, 3)]
    return Sim(services, made, kit)


@pytest.fixture
def push(services: Services, tmp_path: Path, operator: Any, kit: Any) -> Callable[..., Release]:
    def make(version: str) -> Release:
        folder = tmp_path / f"release-{version}"
        release: Release = kit.write_release(folder, version, version.encode())
        layout = Layout.open(folder)
        registry = services.registry
        for digest in layout.blobs.all():
            registry.blobs.put(layout.blobs.path(digest).read_bytes())
        releases.register(services, operator, "digits", release.digest)
        return release

    return make


def settle(controller: Controller) -> None:
    """Look until there is nothing more to do."""
    while controller.tick():
        pass
    assert "controller.faults" not in controller._services.counters.all()


def roll_out(
    services: Services, controller: Controller, sim: Sim, clock: Any, operator: Any, version: str
) -> str:
    """A whole good rollout; returns its id."""
    rollout = rollouts.create(services, operator, "digits", version, POLICY)["id"]
    settle(controller)
    for names in (["cam-1"], ["cam-2", "cam-3"]):
        for name in names:
            sim.say(name, Phase.COMMITTED)
        settle(controller)
        clock.now += POLICY.soak_s
        settle(controller)
    assert rollouts.show(services, rollout)["status"] == "completed"
    return rollout


def test_a_rollout_advances_on_commits_evidence_and_soak(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
) -> None:
    release = push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    settle(controller)
    wanted = sim.wanted("cam-1")
    assert wanted is not None
    assert wanted.release == release.digest
    assert release.variant(wanted.variant).target == "cpu-x86-64-vnni"
    assert (wanted.rollout, wanted.attempt) == (rollout, 1)
    assert wanted.nonce
    assert sim.wanted("cam-2") is None
    sim.say("cam-1", Phase.TESTING)
    settle(controller)
    assert "cam-1 is testing" in rollouts.show(services, rollout)["sentence"]
    sim.say("cam-1", Phase.COMMITTED)
    settle(controller)
    assert sim.wanted("cam-2") is None
    clock.now += POLICY.soak_s
    settle(controller)
    assert {sim.wanted("cam-2"), sim.wanted("cam-3")} != {None}
    for name in ("cam-2", "cam-3"):
        sim.say(name, Phase.COMMITTED)
    settle(controller)
    clock.now += POLICY.soak_s
    settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["status"], info["counts"]) == ("completed", {"committed": 3})
    assert {d["running_version"] for d in info["devices"]} == {"1.0.0"}
    assert info["finished_at"] == clock.now
    actions = [entry["action"] for entry in audit.entries(services)["items"]]
    assert actions[:2] == ["rollout.complete", "rollout.advance"]


class Once(Controller):
    """Its loop ends at its first rest."""

    looks = 0

    def tick(self) -> int:
        self.looks += 1
        return super().tick()

    def _rest(self, seen: int, seconds: float) -> None:
        self._stop.set()


@pytest.mark.parametrize(("soak_s", "looks"), [(0.0, 3), (10.0, 2)])
def test_what_a_look_makes_due_is_looked_at_without_a_rest_and_a_soak_is_not(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
    soak_s: float,
    looks: int,
) -> None:
    push("1.0.0")
    policy = msgspec.structs.replace(POLICY, soak_s=soak_s)
    rollouts.create(services, operator, "digits", "1.0.0", policy)
    settle(controller)
    sim.say("cam-1", Phase.COMMITTED)
    once = Once(services)
    once._run()
    assert once.looks == looks
    given = {name for name in sim.devices if sim.wanted(name)}
    assert given == ({"cam-1"} if soak_s else {"cam-1", "cam-2", "cam-3"})


@pytest.mark.sqlite
def test_a_rest_ends_when_others_have_spoken_and_are_silent(
    services: Services, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.controller._MAX_PAUSE_S", 3600.0)
    monkeypatch.setattr("fleet.controller._SILENCE_S", 0.01)
    seen = services.changes.count
    services.changes.announce()  # a device, not the controller itself
    resting = threading.Thread(target=controller._rest, args=(seen, 3600.0), daemon=True)
    resting.start()
    resting.join(60)
    ended = not resting.is_alive()
    controller._stop.set()
    assert ended


def test_a_device_that_rolled_back_halts_the_rollout_and_gets_the_earlier_release(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
    kit: Any,
) -> None:
    good, _ = push("1.0.0"), push("1.1.0")
    roll_out(services, controller, sim, clock, operator, "1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.1.0", POLICY)["id"]
    settle(controller)
    before = sim.devices["cam-1"].counter
    sim.say("cam-1", Phase.ROLLED_BACK, ROLLBACK_REASON, kit.gate(Verdict.FAIL, "confidence"))
    settle(controller)
    info = rollouts.show(services, rollout)
    assert info["status"] == "halted"
    assert ROLLBACK_REASON in info["sentence"]
    outcomes = {d["device"]: d["outcome"] for d in info["devices"]}
    assert outcomes == {"cam-1": "failed", "cam-2": "waiting", "cam-3": "waiting"}
    back = sim.wanted("cam-1")
    assert back is not None
    assert (back.release, back.rollout, back.attempt) == (good.digest, "", 3)
    assert sim.devices["cam-1"].counter > before
    for name in ("cam-2", "cam-3"):
        wanted = sim.wanted(name)
        assert wanted is not None
        assert wanted.release == good.digest
    explained = rollouts.explain(services, rollout)
    failed = [gate for gate in explained["gates"] if gate["result"] == "fail"]
    assert {"devices.failed", "x86_64-avx512_vnni-2c: confidence"} <= {g["name"] for g in failed}
    # When the device speaks of the earlier release again, why it failed stays known.
    sim.say("cam-1", Phase.COMMITTED)
    settle(controller)
    kept = {d["device"]: d["reason"] for d in rollouts.show(services, rollout)["devices"]}
    assert kept["cam-1"] == ROLLBACK_REASON


def test_a_first_release_that_fails_leaves_nothing_wanted(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    settle(controller)
    sim.say("cam-1", Phase.ROLLED_BACK, "it crashed")
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "halted"
    assert sim.wanted("cam-1") is None
    # Tried again later, its attempt is above the one that the device has blocked.
    rollouts.create(services, operator, "digits", "1.0.0", POLICY)
    settle(controller)
    wanted = sim.wanted("cam-1")
    assert wanted is not None
    assert wanted.attempt == 2


def test_an_abort_takes_the_release_back_from_all_it_reached(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
) -> None:
    good, _ = push("1.0.0"), push("1.1.0")
    roll_out(services, controller, sim, clock, operator, "1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.1.0", POLICY)["id"]
    settle(controller)
    sim.say("cam-1", Phase.COMMITTED)
    info = rollouts.abort(services, operator, rollout)
    assert "Aborted by operator: a test." in info["reason"]
    settle(controller)
    back = sim.wanted("cam-1")
    assert back is not None
    assert back.release == good.digest
    with pytest.raises(Conflict):
        rollouts.resume(services, operator, rollout)


def test_a_paused_rollout_reaches_nobody_until_it_is_resumed(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    rollouts.pause(services, operator, rollout)
    settle(controller)
    assert sim.wanted("cam-1") is None
    rollouts.resume(services, operator, rollout)
    settle(controller)
    assert sim.wanted("cam-1") is not None


def test_a_device_is_in_one_rollout_of_a_model_at_a_time(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    second_release = push("1.1.0")
    rollouts.create(services, operator, "digits", "1.0.0", POLICY)
    settle(controller)
    everyone = Policy(waves=(Wave(percent=100),), limits=Limits(max_failures=3))
    second = rollouts.create(services, operator, "digits", "1.1.0", everyone)["id"]
    settle(controller)
    first = sim.wanted("cam-1")
    assert first is not None
    assert first.release_version == "1.0.0"
    place = {d["device"]: d["wave"] for d in rollouts.show(services, second)["devices"]}
    assert place["cam-1"] is None
    other = sim.wanted("cam-2")
    assert other is not None
    assert other.release == second_release.digest


def test_what_was_refused_is_planned_anew_with_another_variant(
    services: Services,
    controller: Controller,
    sim: Sim,
    clock: Any,
    push: Callable[..., Release],
    operator: Any,
    kit: Any,
) -> None:
    release = push("1.0.0")
    devices.set_labels(services, operator, "cam-1", {"only": "this"})
    policy = Policy(selector="only=this")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", policy)["id"]
    settle(controller)
    sim.say("cam-1", Phase.REFUSED, "it has no VNNI any more")
    settle(controller)
    clock.now += 2 * POLICY.limits.device_timeout_s
    assert rollouts.show(services, rollout)["status"] == "running"
    device = sim.devices["cam-1"]
    device.capabilities = msgspec.structs.replace(
        device.capabilities,
        cpu=msgspec.structs.replace(device.capabilities.cpu, features=("avx2",)),
    )
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    reported.hello(services, "cam-1", hello)
    settle(controller)
    wanted = sim.wanted("cam-1")
    assert wanted is not None
    assert release.variant(wanted.variant).precision == "float32"
    assert wanted.attempt == 2
    # It has its whole time again: the wait for another variant is no failure.
    assert rollouts.show(services, rollout)["status"] == "running"


def test_a_fleet_that_was_down_for_long_takes_what_devices_kept_for_it(
    services: Services, sim: Sim, push: Callable[..., Release], clock: Any, operator: Any
) -> None:
    push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    settle(Controller(services))
    clock.now += 2 * POLICY.limits.device_timeout_s  # down; the device commits meanwhile
    started = Controller(services)
    settle(started)
    assert rollouts.show(services, rollout)["status"] == "running"
    assert sim.wanted("cam-1") is not None
    sim.say("cam-1", Phase.COMMITTED)
    settle(started)
    clock.now += POLICY.soak_s
    settle(started)
    assert sim.wanted("cam-2") is not None


def test_a_late_state_does_not_undo_the_end_of_the_same_attempt(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    settle(controller)
    sim.say("cam-1", Phase.COMMITTED)
    sim.say("cam-1", Phase.DOWNLOADING)
    settle(controller)
    phases = {d["device"]: d["phase"] for d in rollouts.show(services, rollout)["devices"]}
    assert phases["cam-1"] == "committed"


def test_a_restart_in_the_middle_goes_on_where_it_was(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
    make: Callable[..., Services],
    tmp_path: Path,
) -> None:
    push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    settle(controller)
    for names in (["cam-1"], ["cam-2", "cam-3"], []):
        services.database.close()
        sim.services = services = make(tmp_path / "fleet", clock)
        controller = Controller(services)
        settle(controller)
        for name in names:
            sim.say(name, Phase.COMMITTED)
        settle(controller)
        clock.now += POLICY.soak_s
        settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["status"], info["counts"]) == ("completed", {"committed": 3})
    assert sim.devices["cam-1"].counter == 1
    services.database.close()


def test_a_rollout_that_cannot_be_read_does_not_stop_the_others(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    from fleet.db import tables

    push("1.0.0")
    broken = rollouts.create(services, operator, "digits", "1.0.0", POLICY)["id"]
    with services.database.write() as session:
        session.get_one(tables.Rollout, broken).policy = "damaged"
    rollouts.create(services, operator, "digits", "1.0.0", POLICY)
    controller.tick()
    assert sim.wanted("cam-1") is not None
    assert services.counters.all()["controller.faults"] == 1


def test_frozen_rollouts_do_not_move(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    rollouts.create(services, operator, "digits", "1.0.0", POLICY)
    recovery.freeze(services, "restored", 0)
    settle(controller)
    assert sim.wanted("cam-1") is None
    recovery.thaw(services, operator)
    assert controller.tick() > 0


def test_the_plan_says_who_gets_what_and_who_nothing_and_why(
    services: Services,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
    tmp_path: Path,
    enroll: Callable[..., Any],
) -> None:
    import msgspec

    release = push("1.0.0")
    poor = enroll(services, tmp_path, "cam-4", site="south")
    poor.capabilities = msgspec.structs.replace(poor.capabilities, runtimes=())
    hello = sign(encode(poor.hello()), PayloadType.HELLO, poor.key)
    reported.hello(services, "cam-4", hello)
    plan = rollouts.plan(services, "digits", "1.0.0", POLICY)
    assert (plan["fitting"], plan["unfitting"]) == (3, 1)
    best = next(v for v in release.variants if v.precision == "int8")
    assert plan["bytes"] == 3 * best.total_bytes
    nothing = plan["devices"][3]
    assert (nothing["device"], nothing["variant"]) == ("cam-4", None)
    assert "needs onnxruntime>=1.17, the device has no runtime" in nothing["reason"]
    south = rollouts.plan(services, "digits", "1.0.0", Policy(selector="site=south"))
    assert [d["device"] for d in south["devices"]] == ["cam-4"]


def test_what_is_not_there_is_not_found(services: Services, operator: Any) -> None:
    with pytest.raises(NotFound):
        rollouts.create(services, operator, "digits", "9.9.9", POLICY)
    with pytest.raises(NotFound):
        rollouts.show(services, "none")


def test_a_version_is_registered_once(
    services: Services, push: Callable[..., Release], tmp_path: Path, operator: Any, kit: Any
) -> None:
    release = push("1.0.0")
    again = releases.register(services, operator, "digits", release.digest)
    assert again["digest"] == release.digest
    other = kit.write_release(tmp_path / "other", "1.0.0", b"another")
    for digest in Layout.open(tmp_path / "other").blobs.all():
        blobs = Layout.open(tmp_path / "other").blobs
        services.registry.blobs.put(blobs.path(digest).read_bytes())
    with pytest.raises(UserError, match="immutable"):
        releases.register(services, operator, "digits", other.digest)


def test_the_thread_acts_on_changes_and_ends(
    services: Services, sim: Sim, push: Callable[..., Release], operator: Any
) -> None:
    controller = Controller(services, every_s=60.0)
    controller.start()
    push("1.0.0")
    seen = services.changes.count
    rollouts.create(services, operator, "digits", "1.0.0", POLICY)
    for _ in range(100):
        seen = services.changes.wait(seen, 0.1)
        if sim.wanted("cam-1"):
            break
    assert sim.wanted("cam-1") is not None
    controller.stop()


def test_a_gate_over_a_metric_of_the_devices_waits_for_it_and_then_decides(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    gates = Gates(max_temperature_c=80.0, metrics=(Metric(name="glare", max=0.5, min_samples=3),))
    policy = msgspec.structs.replace(POLICY, gates=gates)
    rollout = rollouts.create(services, operator, "digits", "1.0.0", policy)["id"]
    settle(controller)
    sim.say("cam-1", Phase.COMMITTED)
    settle(controller)
    waits = {g["name"].partition(": ")[2]: g for g in rollouts.explain(services, rollout)["gates"]}
    assert {waits["glare"]["result"], waits["temperature_c"]["result"]} == {"undecided"}
    assert "has reported glare yet" in waits["glare"]["reason"]

    cool, dim = Measure(n=1, sum=61.0, min=61.0, max=61.0), Measure(n=2, sum=0.2, min=0.1, max=0.1)
    sim.report("cam-1", metrics={"temperature_c": cool, "glare": dim}, inferred=90, energy_j=45.0)
    rollups.fold_all(services)
    settle(controller)
    waits = {g["name"].partition(": ")[2]: g for g in rollouts.explain(services, rollout)["gates"]}
    assert (waits["temperature_c"]["result"], waits["glare"]["result"]) == ("pass", "undecided")
    cost = rollouts.show(services, rollout)["cost"]
    assert cost is not None
    assert cost_text(cost) == "0 bytes, 0.5 J an inference on 1 device that measures it"

    bright = Measure(n=4, sum=3.6, min=0.8, max=1.0)
    sim.report("cam-1", metrics={"glare": bright})
    rollups.fold_all(services)
    settle(controller)
    info = rollouts.show(services, rollout)
    assert info["status"] == "halted"
    assert "glare is 0.6333 on 6 samples; at most 0.5 is wanted" in info["sentence"]


TOGETHER = msgspec.structs.replace(
    POLICY,
    waves=(Wave(percent=100),),
    together=Together(label="site", prepare_timeout_s=100, commit_timeout_s=100),
)
ALL = ("cam-1", "cam-2", "cam-3")


def stages(sim: Sim) -> set[tuple[str, str]]:
    """Which release, and how far, the signed states want of the devices."""
    found = [sim.wanted(name) for name in ALL]
    return {(wanted.release_version, wanted.until) if wanted else ("", "") for wanted in found}


def test_a_group_prepares_switches_and_commits_in_one_transaction_each(
    services: Services, sim: Sim, push: Callable[..., Release], operator: Any, kit: Any
) -> None:
    push("1.0.0")
    rollout = rollouts.create(services, operator, "digits", "1.0.0", TOGETHER)["id"]
    settle(Controller(services))
    assert stages(sim) == {("1.0.0", "prepared")}
    for name in ALL[:2]:
        sim.say(name, Phase.PREPARED)
    settle(Controller(services))  # as after a restart: nothing is in memory
    assert stages(sim) == {("1.0.0", "prepared")}
    assert "site=north waits for 1 of 3 to be prepared (cam-3)" in told(services, rollout)
    sim.say("cam-3", Phase.PREPARED)
    settle(Controller(services))
    assert stages(sim) == {("1.0.0", "trial")}
    assert {sim.wanted(name).switch_at for name in ALL} == {services.now() + 2}  # type: ignore[union-attr]
    live = kit.gate(name="live.error_rate")
    for name in ALL:
        sim.devices[name].outbox.append(
            RecordKind.EVIDENCE, kit.evidence(name, sim.wanted(name), live)
        )
        sim.say(name, Phase.TRIAL)
    rollouts.pause(services, operator, rollout)  # what has begun comes to its end
    settle(Controller(services))
    assert stages(sim) == {("1.0.0", "")}
    actions = [entry["action"] for entry in audit.entries(services)["items"]]
    assert actions.count("rollout.proceed") == 2


def test_a_member_that_fails_takes_its_group_back_to_what_it_ran(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
) -> None:
    push("1.0.0")
    push("1.1.0")
    roll_out(services, controller, sim, clock, operator, "1.0.0")
    policy = msgspec.structs.replace(TOGETHER, on_failure="pause")
    rollout = rollouts.create(services, operator, "digits", "1.1.0", policy)["id"]
    settle(controller)
    for name in ALL:
        sim.say(name, Phase.PREPARED)
    settle(controller)
    sim.say("cam-1", Phase.TRIAL)
    sim.say("cam-2", Phase.ROLLED_BACK, ROLLBACK_REASON)
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "paused"
    assert stages(sim) == {("1.0.0", "")}  # cam-3 never heard that it may switch
    rollouts.retry(services, operator, rollout)
    settle(controller)
    assert stages(sim) == {("1.1.0", "prepared")}


def test_a_member_that_is_away_too_long_takes_the_group_back_and_counts_as_failed(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
) -> None:
    push("1.0.0")
    policy = msgspec.structs.replace(TOGETHER, limits=Limits(max_failures=1))
    rollout = rollouts.create(services, operator, "digits", "1.0.0", policy)["id"]
    settle(controller)
    for name in ALL[:2]:
        sim.say(name, Phase.PREPARED)
    clock.now += 101
    settle(controller)
    assert stages(sim) == {("", "")}  # they ran nothing before
    [gate] = [g for g in rollouts.explain(services, rollout)["gates"] if g["name"] == FAILURES]
    assert "cam-3 was not prepared within 100 s" in gate["reason"]


def test_an_agent_that_is_too_old_to_wait_keeps_its_group_from_a_rollout(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    operator: Any,
) -> None:
    push("1.0.0")
    old = sim.devices["cam-2"]
    old.features = ()
    reported.hello(services, "cam-2", sign(encode(old.hello()), PayloadType.HELLO, old.key))
    plan = rollouts.plan(services, "digits", "1.0.0", TOGETHER)
    reasons = {d["device"]: d["reason"] for d in plan["devices"]}
    assert "agent is too old" in reasons["cam-2"]
    assert "its group site=north waits for cam-2" in reasons["cam-1"]
    rollout = rollouts.create(services, operator, "digits", "1.0.0", TOGETHER)["id"]
    settle(controller)
    assert stages(sim) == {("", "")}
    assert "agent is too old" in told(services, rollout)


def told(services: Services, rollout: str) -> str:
    return str(rollouts.show(services, rollout)["sentence"])


def test_webhooks_are_told_of_each_turning_point_once(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Callable[..., Release],
    clock: Any,
    operator: Any,
) -> None:
    url = "https://hooks.example/edgeml"
    hook = webhooks.add(services, operator, url, ["dev.edgeml.rollout.*"])["id"]
    push("1.0.0"), push("1.1.0")
    good = roll_out(services, controller, sim, clock, operator, "1.0.0")
    bad = rollouts.create(services, operator, "digits", "1.1.0", POLICY, draft=True)["id"]
    rollouts.start(services, operator, bad)
    settle(controller)
    sim.say("cam-1", Phase.ROLLED_BACK, ROLLBACK_REASON)
    settle(controller)
    told: dict[str, list[Any]] = {good: [], bad: []}
    with services.database.read() as session:
        for row in session.scalars(select(tables.Delivery).order_by(tables.Delivery.id)):
            event = msgspec.json.decode(row.body)
            assert (event["type"], row.webhook) == (row.type, hook)
            told[event["subject"]].append((row.type.rpartition(".")[2], event["data"]))
    assert [kind for kind, _ in told[good]] == ["created", "started", "advanced", "completed"]
    assert [kind for kind, _ in told[bad]] == ["created", "started", "halted"]
    _, advanced = told[good][2]
    assert (advanced["wave"], advanced["waves"], advanced["by"]) == (2, 2, "controller")
    _, halted = told[bad][-1]
    assert (halted["status"], halted["version"]) == ("halted", "1.1.0")
    assert ROLLBACK_REASON in halted["reason"]
