"""Figures of pages are told from figures that no answer has; `test_every_page` asks it of each."""

import pytest

from tests.fleet.console.figures import Known


@pytest.mark.parametrize(
    ("shown", "is_known"),
    [
        ("11.8 ms", True), ("11.9 ms", False), ("99.1 %", True), ("98.1 %", False),
        ("412 kB", True), ("413 kB", False), ("digits:1.2.0 on 2 devices", True),
        ("digits:1.3.0", False), ("1,204", True), ("1,205", False), ("14 Nov 22:13 UTC", True),
        ("14 Nov 22:14 UTC", False), ("5 min ago", True), ("7 min ago", False),
    ],
)  # fmt: skip
def test_a_figure_is_told_from_one_that_nobody_said(shown: str, is_known: bool) -> None:
    known = Known(
        [
            {"p95_ms": 11.84, "accuracy": 0.991, "bytes": 411_600, "at": 1_700_000_000.0},
            {"release": "digits:1.2.0", "devices": [{"sent": 602}, {"sent": 602}]},
        ]
    )
    assert (known.missing([shown], now=1_700_000_320.0) == []) is is_known
