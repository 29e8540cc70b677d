"""What was really on the belt, against what an agent read: the demo's independent judge.

The agent never sees the ground truth. It is written beside the belt's video when that is
generated, and compared here with the agent's results file, release by release.
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """How a release read the belt: `right` of `read` results, `confident` ones among them."""

    release_version: str
    read: int
    right: int
    confident: int

    @property
    def accuracy(self) -> float:
        """The share that was right; 0 where nothing was read."""
        return self.right / self.read if self.read else 0.0


def readings(results: Path, truth: Path) -> dict[str, Reading]:
    """Compare a results file (JSON lines) with the belt's ground truth, by release version.

    Only frames in which a digit lies wholly inside the region, and on which the agent
    inferred, count. Lines about the source itself, and a last one that is still being written, are
    left out.
    """
    labels: list[int | None] = json.loads(truth.read_text())["frames"]
    counts: dict[str, list[int]] = {}
    for line in results.read_text().splitlines():
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "label" not in result:
            continue
        expected = labels[result["frame"] % len(labels)]
        if expected is None:
            continue
        count = counts.setdefault(result["release_version"], [0, 0, 0])
        count[0] += 1
        count[1] += result["label"] == str(expected)
        count[2] += bool(result["confident"])
    return {version: Reading(version, *count) for version, count in counts.items()}
