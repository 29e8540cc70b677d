"""Whether classes have drifted is told apart from chance."""

import pytest

from cloud_sync.messages import Window
from fleet.console.views import drift

DIGEST = "sha256:" + "0" * 64


def windows(*shares: dict[str, int]) -> list[tuple[float, Window]]:
    return [
        (
            float(at),
            Window(
                model="m", source="s", release=DIGEST, variant=DIGEST, seconds=5.0, accepted=60,
                replaced=0, inferred=60, classes=classes,
            ),
        )
        for at, classes in enumerate(shares)
    ]  # fmt: skip


def test_a_shift_of_the_classes_stands_out_from_what_is_usual() -> None:
    before, after = {"cat": 30, "dog": 30}, {"cat": 55, "dog": 5}
    found, usual = drift.lines("m", windows(*[before] * 6, *[after] * 6))
    assert [value for _, value in found.points[:6]] == [0.0] * 6
    assert found.points[-1][1] == pytest.approx(25 / 60)
    assert usual.points[0][1] == 0


def test_what_comes_and_goes_all_the_time_is_usual() -> None:
    one, other = {"cat": 60}, {"dog": 60}
    found, usual = drift.lines("m", windows(*[one, other] * 8))
    most = max(value or 0.0 for _, value in found.points)
    assert most == usual.points[0][1]


@pytest.mark.parametrize("shares", [(), ({},), *[({"cat": 60},) * n for n in (1, 3, 5)]])
def test_too_few_results_say_nothing(shares: tuple[dict[str, int], ...]) -> None:
    assert drift.lines("m", windows(*shares)) == ()
