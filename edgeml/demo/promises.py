"""What the demo promises, checked one by one against what really happened."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeml.demo.narrator import Narrator


@dataclass(frozen=True)
class Promise:
    """One promise, whether it held, and the numbers that say so."""

    promise: str
    held: bool
    numbers: str


class Ledger:
    """Collects promises as the story is told and writes the summary."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator
        self._promises: list[Promise] = []

    def note(self, promise: str, *, held: bool, numbers: str) -> None:
        """Record a promise and say aloud whether it held."""
        self._promises.append(Promise(promise, held, numbers))
        say = self._narrator.good if held else self._narrator.bad
        say(f"{promise}: {numbers}")

    @property
    def all_held(self) -> bool:
        """Whether there were promises and every one of them held."""
        return bool(self._promises) and all(p.held for p in self._promises)

    def write(self, path: Path, **facts: object) -> None:
        """Write the summary as JSON, beside and renamed."""
        body = {
            "held": self.all_held,
            "promises": [asdict(p) for p in self._promises],
            **facts,
        }
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(body, indent=2) + "\n")
        os.replace(beside, path)
