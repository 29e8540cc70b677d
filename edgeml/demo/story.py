"""The demo's story: every step is a command that a user would type, run for real.

Three agents in processes of their own watch three conveyor belts. Release 1.0.0 goes out in
waves; 1.1.0, whose pipeline scales its input twice, installs cleanly and is stopped in the
canary wave by what it does there; 1.2.0 goes out. Each promise is checked against what the
fleet's API, the agents' result files and the belts' ground truth say.
"""

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from edgeml.demo.children import Children, command
from edgeml.demo.narrator import Narrator
from edgeml.demo.promises import Ledger
from edgeml.demo.truth import Reading, readings
from edgeml.errors import DeviceError, RemoteError, UserError
from fleet.client import FleetClient

MODEL = "digits"
STEP_TIMEOUT_S = 240.0
ROLLOUT_TIMEOUT_S = 150.0
POLL_S = 0.3


@dataclass(frozen=True)
class Ports:
    """Where the demo listens, on loopback."""

    console: int
    devices: int
    mqtt: int


@dataclass(frozen=True)
class Camera:
    """One device of the demo and the light in which its belt runs."""

    device: str
    site: str
    light: float
    noise: float
    seed: int


CAMERAS = (
    Camera("cam-1", "north", light=1.0, noise=4.0, seed=1),
    Camera("cam-2", "north", light=0.8, noise=6.0, seed=2),
    Camera("cam-3", "south", light=0.9, noise=8.0, seed=3),
)

POLICY = """\
soak_s = 6
on_failure = "rollback"

[[waves]]
count = 1

[[waves]]
percent = 100

[trial]
min_inferred = 40
timeout_s = 60
"""


def tell(folder: Path, ports: Ports, *, once: bool) -> bool:
    """Tell the story in `folder` and return whether every promise held.

    Without `once` the fleet and the agents keep running after the story until Ctrl-C.
    """
    examples = find_examples()
    prepare_folder(folder)
    signal.signal(signal.SIGTERM, _as_interrupt)
    narrator = Narrator()
    ledger = Ledger(narrator)
    environment = {
        "EDGEML_FLEET": f"http://127.0.0.1:{ports.console}",
        "EDGEML_FLEET_DATA": str(folder / "fleet"),
    }
    began = time.monotonic()
    with Children(folder / "logs", environment) as children:
        story = Story(folder, examples, ports, children, narrator, ledger)
        story.run()
        summary = folder / "summary.json"
        ledger.write(summary, seconds=round(time.monotonic() - began, 1), version=version("edgeml"))
        narrator.chapter("The end")
        narrator.say(f"Summary: {summary}")
        if not once:
            narrator.say(f"The console: {story.console_link()}")
            narrator.say("Fleet and agents keep running. Ctrl-C ends them.")
            while True:
                children.check()
                time.sleep(1)
    return ledger.all_held


def find_examples() -> Path:
    """The folder `examples/digits` of the clone that edgeml is installed from.

    Raises:
        UserError: edgeml was installed without its repository.
    """
    folder = Path(__file__).resolve().parents[2] / "examples" / "digits"
    if not (folder / "digits.onnx").is_file():
        raise UserError(
            "The demo's example model was not found.",
            why=f"There is no {folder / 'digits.onnx'}.",
            fix="Run the demo from a clone of the repository: make demo",
        )
    return folder


def prepare_folder(folder: Path) -> None:
    """Empty the demo's own folder, and only that.

    Raises:
        UserError: the folder holds something that no demo wrote.
    """
    marker = folder / ".edgeml-demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise UserError(
            f"{folder} is not empty and was not made by the demo.",
            fix="Name another folder with --dir.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()


class Story:
    """The acts in their order; each notes the promises that it can judge."""

    def __init__(
        self,
        folder: Path,
        examples: Path,
        ports: Ports,
        children: Children,
        narrator: Narrator,
        ledger: Ledger,
    ) -> None:
        self._folder = folder
        self._examples = examples
        self._ports = ports
        self._children = children
        self._tell = narrator
        self._ledger = ledger
        self._fleet: FleetClient | None = None

    def run(self) -> None:
        """All acts."""
        self._data()
        self._convert("1.0.0", "digits.onnx", "pipeline.toml")
        self._start_fleet()
        self._start_agents()
        self._good_rollout("1.0.0", first=True)
        self._bad_rollout("1.1.0")
        self._good_rollout("1.2.0", first=False)
        self._judge()
