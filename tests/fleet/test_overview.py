"""The fleet at a glance, on a terminal of the usual width."""

import io
from typing import Any, cast

from rich.console import Console

from fleet.overview import Overview, render

SENTENCE = (
    "In wave 2 of 4 (5 %), 2 of 12 devices committed with evidence; cam-17 is downloading "
    "(waits for its data budget), and 9 more are on the way; 3 devices wait for the window."
)


def shown(width: int, **parts: Any) -> str:
    health = {
        "status": "ok",
        "devices": 12_003,
        "online": 11_998,
        "frozen": "",
        "counters": {},
    }
    overview = Overview(
        health=cast("Any", health),
        alerts=parts.get("alerts", []),
        rollouts=parts.get("rollouts", []),
        models=parts.get("models", []),
        rates={"records": 1234.5, "batches": 120.0, "hellos": 0.2, "desired states": 11.0},
    )
    out = io.StringIO()
    Console(file=out, width=width).print(render(overview, 1_700_000_000.0))
    return out.getvalue()


def rollout(identity: str) -> dict[str, Any]:
    return {
        "id": identity,
        "status": "running",
        "wave": 2,
        "waves": 4,
        "counts": {"committed": 2, "failed": 1, "updating": 10, "waiting": 11_990},
        "sentence": SENTENCE,
    }


def test_nothing_that_is_one_word_is_broken_in_80_columns() -> None:
    alert = {
        "id": 7,
        "began_at": 1_700_000_000.0,
        "acknowledged_at": None,
        "acknowledged_by": "alice",
        "severity": "warning",
        "summary": "cam-3 has been offline for 20 minutes, and a rollout waits for it.",
    }
    model = {"model": "digits", "latest": "1.10.0", "running": {"1.9.0": 11_000, "1.10.0": 998}}
    text = shown(80, alerts=[alert], rollouts=[rollout("ro-4711aabbccdd")] * 2, models=[model])
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "fleet ok  11,998 online, 5 away of 12,003 devices  alerts: 1"
    assert "ro-4711aabbccdd  running  2/4   2 committed, 1 failed, 10 updating, 11990" in text
    assert "2023-11-14 22:13:20Z" in text
    assert "11,000 x 1.9.0" in text
    assert set(SENTENCE.split()) <= set(text.split())
