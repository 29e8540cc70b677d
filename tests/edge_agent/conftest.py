"""A fleet, a device and a scene for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge_agent.scene import Scene
from tests.sim.fleet import SimFleet


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with SimFleet(tmp_path / "registry") as fleet:
        yield Scene(tmp_path, fleet)
