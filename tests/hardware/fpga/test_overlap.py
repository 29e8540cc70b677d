"""While the engine runs, the next input is written and the last output read, and none is mixed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.driver import Driver
from hardware.fpga.program import DESCRIPTOR_WORDS, Program
from hardware.fpga.simulated import SimulatedEngine
from tests.hardware.fpga.networks import SIZE, TAPS, add_one, codes, expected, in_two_banks, slow

PROGRAM = in_two_banks(slow(add_one()))
WORDS = PROGRAM.input_words
SAMPLES = [codes(seed) for seed in range(5)]
_WROTE_WHILE_BUSY = 2


@pytest.fixture(scope="module")
def shared(models: Path) -> Iterator[SimulatedEngine]:
    made = SimulatedEngine(SIZE, cache_folder=models)
    yield made
    made.close()


@pytest.fixture
def engine(shared: SimulatedEngine) -> SimulatedEngine:
    Driver(shared, PROGRAM)  # stops what runs, and loads
    return shared


def _command(engine: SimulatedEngine, word: int) -> None:
    engine.write(at.CONTROL, np.array([word], np.uint32))


def _start(engine: SimulatedEngine, bank: int) -> None:
    entry = bank * DESCRIPTOR_WORDS
    _command(engine, at.START | at.START_BANK * bank | entry << at.ENTRY_SHIFT)


def _status(engine: SimulatedEngine) -> int:
    return int(engine.read(at.STATUS, 1)[0])


def _words(sample: np.ndarray) -> np.ndarray:
    words: np.ndarray = PROGRAM.input.pack(sample).view("<u4")
    return words


def _output(engine: SimulatedEngine, bank: int) -> np.ndarray:
    assert PROGRAM.output
    words = engine.read(at.ACTIVATIONS + PROGRAM.output.address + bank * WORDS, WORDS)
    return PROGRAM.output.unpack(words.astype("<u4").view(np.uint8))


@pytest.mark.parametrize("program", [PROGRAM, in_two_banks(add_one()), slow(add_one())])
@pytest.mark.parametrize("samples", [SAMPLES, SAMPLES[::-1], SAMPLES[:1], []])
def test_a_stream_gives_every_samples_answer_in_its_order(
    shared: SimulatedEngine, program: Program, samples: list[np.ndarray]
) -> None:
    """In one bank and in two, where it ends before the next is written and where it does not."""
    driver = Driver(shared, program)
    answers = list(driver.stream(iter(samples)))
    assert len(answers) == len(samples)
    for sample, answer in zip(samples, answers, strict=True):
        np.testing.assert_array_equal(answer, expected(sample))


def test_a_sample_is_asked_for_and_written_while_the_one_before_it_runs(
    shared: SimulatedEngine,
) -> None:
    driver = Driver(shared, PROGRAM)

    def asked() -> Iterator[np.ndarray]:
        for number, sample in enumerate(SAMPLES):
            assert bool(_status(shared) & at.BUSY) == (number > 0)
            yield sample

    assert len(list(driver.stream(asked()))) == len(SAMPLES)
    alone = driver.run(SAMPLES[0])
    np.testing.assert_array_equal(alone, expected(SAMPLES[0]))
    assert driver.cycles > SAMPLES[0].size // SIZE.lanes * TAPS


_ACCESSES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, WORDS - 1)),
        st.tuples(st.just("read"), st.integers(0, SIZE.activations - 1)),
        st.tuples(st.just("wait"), st.integers(1, 9)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(_ACCESSES, st.integers(0, 1), st.integers(0, 1000))
def test_whatever_a_host_does_meanwhile_the_answer_is_right(
    shared: SimulatedEngine, accesses: list[tuple[str, int]], bank: int, seed: int
) -> None:
    """Also what it writes and reads: the free bank, and all that is at rest."""
    Driver(shared, PROGRAM)
    rng = np.random.default_rng(seed)
    sample, other = codes(seed), rng.integers(0, 1 << 32, WORDS, dtype=np.uint32)
    shared.write(at.ACTIVATIONS + bank * WORDS, _words(sample))
    free = at.ACTIVATIONS + (1 - bank) * WORDS
    shared.write(free, other)
    _start(shared, bank)
    for kind, place in accesses:
        if kind == "write":
            other[place] = rng.integers(0, 1 << 32, dtype=np.uint32)
            shared.write(free + place, other[place : place + 1])
        elif kind == "read":
            found = shared.read(at.ACTIVATIONS + place, 1)[0]
            if place // WORDS < 2:
                own = _words(sample) if place // WORDS == bank else other
                assert found == own[place % WORDS]
        else:
            shared.wait(place * 1e-7)
    assert _status(shared) & at.BUSY
    shared.wait(1.0)
    assert _status(shared) == at.DONE | at.BANK * bank
    np.testing.assert_array_equal(_output(shared, bank), expected(sample))
    np.testing.assert_array_equal(shared.read(free, WORDS), other)


@pytest.mark.parametrize("bank", [0, 1])
def test_what_must_not_be_written_meanwhile_is_dropped_and_said(
    engine: SimulatedEngine, bank: int
) -> None:
    """The bank that runs, what lies behind both, and every other memory."""
    engine.write(at.ACTIVATIONS + bank * WORDS, _words(SAMPLES[0]))
    places = [at.ACTIVATIONS + bank * WORDS, at.ACTIVATIONS + (bank + 1) * WORDS - 1]
    places += [at.ACTIVATIONS + 2 * WORDS, *at.MEMORIES.values()]
    for place in places:
        before = engine.read(place, 1)
        _start(engine, bank)
        engine.write(place, ~before)
        assert _status(engine) >> at.ERROR_SHIFT == _WROTE_WHILE_BUSY
        _command(engine, at.STOP)
        assert engine.read(place, 1) == before
        assert _status(engine) == 0


def test_an_error_in_the_middle_begins_again_what_was_begun(shared: SimulatedEngine) -> None:
    driver = Driver(shared, PROGRAM)

    def asked() -> Iterator[np.ndarray]:
        for number, sample in enumerate(SAMPLES):
            if number in (2, 4):  # the one before runs
                shared.write(at.MEMORIES["weights"], np.array([7], np.uint32))
            yield sample

    for sample, answer in zip(SAMPLES, driver.stream(asked()), strict=True):
        np.testing.assert_array_equal(answer, expected(sample))


def test_what_a_stream_left_running_is_nobody_elses_answer(shared: SimulatedEngine) -> None:
    driver = Driver(shared, PROGRAM)
    left = driver.stream(SAMPLES)
    next(left)
    np.testing.assert_array_equal(driver.run(SAMPLES[4]), expected(SAMPLES[4]))
    np.testing.assert_array_equal(next(left), expected(SAMPLES[1]))  # begun again


def test_a_program_for_another_version_of_the_gateware_is_refused(
    shared: SimulatedEngine,
) -> None:
    with pytest.raises(DeviceError, match="speaks version 2") as refused:
        Driver(shared, replace(PROGRAM, version=1))
    assert "made for version 1" in refused.value.why
