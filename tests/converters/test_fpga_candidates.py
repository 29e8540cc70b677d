"""The search among engines and logic: what is exact, what no other beats, and what is chosen."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.fpga.candidates import (
    DATAFLOW,
    ENGINE,
    LANES,
    Budget,
    Candidate,
    engines,
    front,
    images,
    logic,
    ranked,
    refused,
    told,
)
from converters.fpga.estimate import Need, running
from converters.fpga.flow import budget_of, fits

from .fpga.small_nets import SETTINGS, net_of_two_layers

BUDGET = Budget(
    part="25k",
    family="ecp5",
    clock_mhz=50.0,
    luts=24288,
    dsp=28,
    bram=56,
    has_dsp=True,
    latency_ms=math.inf,
)


def _candidate(cycles: int, luts: int, dsp: int = 0, bram: int = 0, *, fits: bool) -> Candidate:
    return Candidate(
        architecture=ENGINE,
        clock_mhz=50.0,
        cycles=cycles,
        need=Need(luts=luts, dsp=dsp, bram=bram),
        lacking=() if fits else ("1 bram of 0",),
    )


few = st.integers(1, 4)
candidates = st.lists(st.builds(_candidate, few, few, few, few, fits=st.booleans()), max_size=12)


def _cost(each: Candidate) -> tuple[float, ...]:
    return (each.cycles, *msgspec.structs.astuple(each.need))


@given(candidates)
def test_on_the_front_is_what_fits_and_no_other_beats(found: list[Candidate]) -> None:
    best = front(found)
    fitting = [each for each in found if not each.lacking]
    assert bool(best) == bool(fitting)
    for each in found:
        is_beaten = any(
            _cost(other) != _cost(each)
            and all(a <= b for a, b in zip(_cost(other), _cost(each), strict=True))
            for other in fitting
        )
        assert (each in best) == (not each.lacking and not is_beaten)


@given(candidates, st.sampled_from([math.inf, 1.0]))
def test_what_is_built_first_fits_and_is_on_the_front(
    found: list[Candidate], latency_ms: float
) -> None:
    budget = msgspec.structs.replace(BUDGET, latency_ms=latency_ms)
    order = ranked(found, budget)
    assert sorted(map(_cost, order)) == sorted(_cost(c) for c in found if not c.lacking)
    if not order:
        return
    assert order[0] in front(found)
    if latency_ms == math.inf:
        assert order[0].cycles == min(each.cycles for each in order)


@given(st.integers(1, 3000), st.integers(1, 60), st.sampled_from(LANES))
def test_clocks_of_a_layer_are_those_that_are_counted_one_by_one(
    groups: int, taps: int, lanes: int
) -> None:
    """Against the sequencer's rules, a clock after the other."""
    written_after, clock, issued, at, earliest = lanes + 12, 0, 0, 0, 0
    writes: set[int] = set()
    for _ in range(groups):
        issued = 0
        while issued < taps:
            is_last = issued == taps - 1
            if clock not in writes and not (is_last and clock < earliest):
                issued += 1
                at = clock
            clock += 1
        earliest = at + lanes
        writes.add(at + written_after)
    assert running(groups, taps, lanes) == clock


def test_more_lanes_are_sooner_and_take_more() -> None:
    found = list(engines(net_of_two_layers(), BUDGET))
    assert [each.lanes for each in found] == list(LANES)
    fitting = [each for each in found if not each.lacking]
    assert [each.lanes for each in fitting] == [4, 8, 16]
    assert found[-1].lacking == ("34 dsp of 28",)
    for less, more in itertools.pairwise(found):
        assert less.need.luts < more.need.luts
        assert less.need.dsp < more.need.dsp
    for each in fitting:
        assert images(net_of_two_layers(), each).cycles == each.cycles
        assert images(net_of_two_layers(), each).banks == each.banks == 2


def test_a_share_of_the_part_is_all_that_is_taken() -> None:
    board = SETTINGS | {"architecture": ENGINE, "lanes": "auto"}
    all_of_it = Budget.of(board, clock_mhz=12.0, has_flash=True)
    some = Budget.of(board | {"share": 0.76}, clock_mhz=12.0, has_flash=True)
    assert (some.luts, some.dsp, some.bram) == (4012, 6, 22)
    assert [c.lanes for c in engines(net_of_two_layers(), some) if not c.lacking] == [4, 4]
    assert not [c for c in engines(net_of_two_layers(), some, LANES[1:]) if not c.lacking]
    assert fits(net_of_two_layers(), board).size.lanes == 4
    assert budget_of(board | {"clock_mhz": 40.0}).clock_mhz == 12.0  # the board has no PLL
    assert all_of_it.fullest(Need(luts=2640, bram=30)) == 1.0


def test_a_latency_asks_for_the_smallest_that_keeps_it() -> None:
    free = list(engines(net_of_two_layers(), BUDGET))
    quickest = ranked(free, BUDGET)[0]
    for each in free:
        bound = msgspec.structs.replace(BUDGET, latency_ms=each.latency_ms)
        found = ranked(list(engines(net_of_two_layers(), bound)), bound)
        if found:
            assert found[0].latency_ms <= each.latency_ms
            assert all(found[0].need.luts <= other.need.luts for other in found)
    late = msgspec.structs.replace(BUDGET, latency_ms=quickest.latency_ms / 2)
    found = tuple(engines(net_of_two_layers(), late))
    assert not ranked(found, late)
    assert "ms of" in refused(found, late).why


def test_logic_is_first_where_it_fits_and_the_error_has_the_nearest_of_both() -> None:
    net = net_of_two_layers()
    unrolled = logic(net, BUDGET, "weights of 3 bits")
    assert (unrolled.architecture, unrolled.lacking) == (DATAFLOW, ())
    both = [*engines(net, BUDGET), unrolled]
    assert ranked(both, BUDGET)[0] == unrolled
    assert [each.chosen for each in told(both, BUDGET, unrolled)] == [False] * 4 + [True]
    tiny = msgspec.structs.replace(BUDGET, luts=100, bram=1)
    found = (*engines(net, tiny), logic(net, tiny, "weights of 3 bits"))
    error = refused(found, tiny)
    assert "does not fit 25k" in error.what
    assert "share" not in error.fix  # all of it was allowed
    assert "share" in refused(found, msgspec.structs.replace(tiny, share=0.5)).fix
    assert "The nearest, engine of 4 lanes" in error.why
    assert "bytes of weights" in error.why
    assert "Unrolled into logic it would take" in error.why


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"lacking": ("da4ml is not installed",)},
            "not unrolled into logic: da4ml",
        ),
        ({}, "LUTs or more, of 100 (70 % may be filled)"),
    ],
)
def test_the_error_says_why_logic_that_is_small_enough_is_none(
    change: dict[str, tuple[str, ...]], said: str
) -> None:
    budget = msgspec.structs.replace(BUDGET, luts=100, bram=1)
    small = Candidate(
        architecture=DATAFLOW, clock_mhz=50.0, need=Need(luts=80), lacking=("80 luts of 70",)
    )
    found = (*engines(net_of_two_layers(), budget), msgspec.structs.replace(small, **change))
    assert said in refused(found, budget).why


@pytest.mark.parametrize("taps", [1, 7, 8, 9, 200])
def test_a_layer_of_one_group_waits_for_nothing(taps: int) -> None:
    assert running(1, taps, 8) == taps
