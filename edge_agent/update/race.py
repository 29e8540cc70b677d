"""The test of an update, and the race in it: each way to run a variant, in a child of its own."""

import threading
from collections.abc import Callable

import msgspec

from cloud_sync.evidence import Raced
from cloud_sync.messages import DesiredModel
from cloud_sync.release import Variant
from edge_agent.choices import Choices
from edge_agent.execution import Execution, following, winner
from edge_agent.store import ReleaseStore
from edge_agent.testing import TestRequest, TestResult, run_child
from edge_agent.update.evidence import raced

RunTest = Callable[[TestRequest, threading.Event], TestResult | None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What won, its own test, and everything that was raced."""

    execution: Execution
    result: TestResult
    race: tuple[Raced, ...]


def run_race(
    store: ReleaseStore,
    choices: Choices,
    desired: DesiredModel,
    stop: threading.Event,
    run: RunTest = run_child,
) -> Outcome | None:
    """Test a variant in every way that may be the best; None where `stop` was set before the end.

    Raises:
        ModelError: nothing here may run it.
        ReleaseError: something of the release is missing.
    """
    variant = store.variant(desired.release, desired.variant)
    candidates = choices.candidates(variant)
    ran: list[tuple[Execution, TestResult]] = []
    race: list[Raced] = []
    while (execution := following(candidates, race)) is not None:
        result = run(_request(store, variant, execution, spin=choices.spin), stop)
        if result is None:
            return None
        ran.append((execution, result))
        race.append(raced(execution, result))
    best = winner(race)
    race[best] = msgspec.structs.replace(race[best], chosen=True)
    return Outcome(execution=ran[best][0], result=ran[best][1], race=tuple(race))


def _request(
    store: ReleaseStore, variant: Variant, execution: Execution, *, spin: bool
) -> TestRequest:
    return TestRequest(
        execution=execution,
        model=str(store.path(variant, "model")),
        pipeline=str(store.path(variant, "pipeline")) if variant.find("pipeline") else "",
        golden=str(store.path(variant, "golden")),
        recorded=str(store.path(variant, "recorded")),
        compiled=str(store.compiled(variant)),
        spin=spin,
    )
