"""What the story does: commands as a user would type them, the example's scripts, and waiting."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.demo.children import Children
from edgeml.demo.narrator import Narrator
from edgeml.errors import DeviceError, ExitCode

STEP_TIMEOUT_S = 240.0
POLL_S = 0.3


class Commands:
    """Runs every step to its end, and says what a user would type.

    Args:
        folder: of the demo.
        examples: the folder `examples/digits`.
        children: runs them.
        narrator: says them.
    """

    def __init__(
        self, folder: Path, examples: Path, children: Children, narrator: Narrator
    ) -> None:
        self._folder = folder
        self._examples = examples
        self._children = children
        self._tell = narrator

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        """Wait until something is true.

        Raises:
            DeviceError: it did not become true in time.
        """
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while not ready():
            self._children.check()
            self._tell.progress(f"waiting for {what}")
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"Waited too long for {what}.", fix=f"Look at {self._folder / 'logs'}."
                )
            time.sleep(POLL_S)

    def edgeml(self, *arguments: str) -> Any:
        """Run a command as a user would, with `--json`, and return what it printed."""
        self._tell.command([self._short(a) for a in arguments])
        done = self._children.run([*arguments, "--json"], timeout_s=STEP_TIMEOUT_S)
        # An undecided gate is an answer: what stays undecided here is for the devices to prove.
        if done.returncode not in {ExitCode.DONE, ExitCode.GATE_UNDECIDED}:
            raise DeviceError(
                f"The command `edgeml {' '.join(arguments[:2])}` ended with {done.returncode}.",
                why=(done.stdout + done.stderr).strip()[-2000:],
            )
        return json.loads(done.stdout)

    def script(self, name: str, *arguments: str) -> None:
        """Run one of the example's scripts."""
        done = self._children.run_python(
            ["-m", f"examples.digits.{name}", *arguments],
            timeout_s=STEP_TIMEOUT_S,
            folder=self._examples.parents[1],
        )
        if done.returncode != 0:
            raise DeviceError(f"The script {name} failed.", why=done.stderr.strip()[-2000:])

    def _short(self, argument: str) -> str:
        """A path as it looks from where the user stands."""
        here = f"{Path.cwd()}/"
        return argument.removeprefix(here)
