"""The command `edgeml convert` run as a user does: how long each step took, and what it tried.

A **candidate** is something that could have become a variant and was executed to find out: each
distinct file that the search made (static of any ranges, dynamic, weights alone, float16, for any
runtime; two moves that give the same file are one, what was refused before a file was made is
none), and float32 on each runtime beside the model's own. A file that runs on two runtimes is one
candidate, though it is raced and judged on both.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.release import Layout, oci
from converters.build import FINDINGS
from converters.toolchains.service import Service
from converters.toolchains.store import installed, require
from edgeml.errors import ModelError

_ROOT = Path(__file__).resolve().parents[1]
_CONVERTING_S = 1200.0

_FLOAT = "  float32 on "
_STARTS = 3


class Converted(msgspec.Struct, frozen=True):
    """What the command made: its best variant, how many candidates it tried, and its steps.

    `steps` are seconds by the first word of what it said that it does; `starting` until it said
    anything.
    """

    best: dict[str, Any]
    seconds: float
    files: int
    floats: int
    steps: dict[str, float]

    @property
    def tried(self) -> int:
        """How many candidates, at least one."""
        return max(1, self.files + self.floats)


def convert(arguments: Sequence[str], out: Path) -> Converted:
    """Run the command with an empty cache.

    Args:
        arguments: all but `--out` and `--json`.
        out: the folder that the release becomes.

    Raises:
        ModelError: it failed; its last words.
    """
    command = [
        *(sys.executable, "-c", "from edgeml.cli import main; main()", "convert"),
        *(*arguments, "--json", "--out", str(out)),
    ]
    begun = time.perf_counter()
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            command,
            cwd=_ROOT,
            env=os.environ | {"EDGEML_CACHE": ""},
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        watch = threading.Timer(_CONVERTING_S, child.kill)
        watch.start()
        assert child.stderr is not None
        lines = [(time.perf_counter() - begun, line) for line in child.stderr]
        code = child.wait()
        watch.cancel()
        printed.seek(0)
        answer = printed.read()
    seconds = time.perf_counter() - begun
    said = [line for _, line in lines]
    if code not in {0, 3, 4}:
        raise ModelError(
            "edgeml convert failed.", why="".join([*said, answer.decode()]).strip()[-400:]
        )
    result = json.loads(answer)
    return Converted(
        best=result["variants"][0],
        seconds=seconds,
        files=len(_made(out, result["evidence"])),
        floats=sum(line.startswith(_FLOAT) for line in said) - 1,
        steps=_steps(lines, seconds),
    )


def starting_times() -> Iterator[tuple[str, list[float]]]:
    """Seconds that each toolchain's process takes to start and import what it needs, by name."""
    for name in ("onnx2tf", "ai-edge-quantizer"):
        if installed(name) is None:
            continue
        taken = []
        for _ in range(_STARTS):
            begun = time.perf_counter()
            with Service(require(name)) as service:
                service.begin({})
                service.settle()
                taken.append(time.perf_counter() - begun)
        yield name, taken


def _made(out: Path, evidence: str) -> set[str]:
    """Digests of the files that the search made and a runtime loaded or refused."""
    blobs = Layout.open(out).blobs
    layers = json.loads(blobs.path(evidence).read_bytes())["layers"]
    found = next(each for each in layers if each["annotations"].get(oci.FILEPATH) == FINDINGS)
    contests = json.loads(blobs.path(found["digest"]).read_bytes())["attempts"]
    made = (attempt["artifact"] for attempts in contests.values() for attempt in attempts)
    return {digest for digest in made if digest}


def _steps(lines: Sequence[tuple[float, str]], seconds: float) -> dict[str, float]:
    """What is indented is a result of the step before it; a step lasts until the next one."""
    marks = [(0.0, "starting")]
    marks += [(at, line.split()[0].lower()) for at, line in lines if line[:1].strip()]
    steps: dict[str, float] = {}
    for (at, name), end in zip(marks, [*(at for at, _ in marks[1:]), seconds], strict=True):
        steps[name] = steps.get(name, 0.0) + end - at
    return steps
