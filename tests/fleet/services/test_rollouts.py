from pathlib import Path
from typing import Any

import pytest

from cloud_sync.release import Layout
from edgeml.errors import UserError
from fleet.rollouts import Policy, parse_policy
from fleet.services import Services, releases, rollouts


@pytest.fixture
def release(services: Services, release_folder: Path, operator: Any) -> str:
    layout = Layout.open(release_folder)
    for digest in layout.blobs.all():
        services.registry.blobs.put(layout.blobs.path(digest).read_bytes())
    digest = layout.release().digest
    releases.register(services, operator, "digits", digest)
    return digest


@pytest.mark.parametrize("soak_s", [float("inf"), float("nan")])
def test_a_policy_that_the_database_could_not_hold_is_refused(
    services: Services, release: str, operator: Any, soak_s: float
) -> None:
    with pytest.raises(UserError, match="not finite or too large"):
        rollouts.create(services, operator, "digits", "1.0.0", Policy(soak_s=soak_s))
    assert rollouts.list_rollouts(services) == []


def test_a_rollout_keeps_its_policy_and_is_listed_newest_first(
    services: Services, release: str, operator: Any, clock: Any
) -> None:
    policy = parse_policy('selector = "site=north"\nsoak_s = 5\n[[waves]]\ncount = 2\n')
    first = rollouts.create(services, operator, "digits", "1.0.0", policy)
    clock.now += 1
    second = rollouts.create(services, operator, "digits", "1.0.0", Policy())
    assert first["policy"]["selector"] == "site=north"
    assert (first["wave"], first["waves"], first["status"]) == (1, 1, "running")
    assert [r["id"] for r in rollouts.list_rollouts(services)] == [second["id"], first["id"]]
    assert rollouts.list_rollouts(services, model="faces") == []
    assert rollouts.explain(services, first["id"])["sentence"] == "It has not begun yet."
