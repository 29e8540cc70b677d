"""Frames over the engine's own UART and SPI cores, whose far end is in Verilator too."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.driver import Driver
from hardware.fpga.serial import WRITE, SerialTransport, request
from tests.hardware.fpga.far_end import FarEnd, serial_engine
from tests.hardware.fpga.networks import (
    SIZE,
    add_one,
    codes,
    expected,
    in_two_banks,
    slow,
    twice,
)


class _Transport(SerialTransport):
    """Time passes in clocks of the simulation."""

    def __init__(self, port: FarEnd) -> None:
        super().__init__(port, "simulated pins")
        self.wait_clocks = port.pause

    def wait(self, seconds: float) -> None:
        self.wait_clocks()


@pytest.fixture(params=["uart", "spi"])
def port(request: pytest.FixtureRequest, models: Path) -> Iterator[FarEnd]:
    is_spi = request.param == "spi"
    made = FarEnd(serial_engine(SIZE, models, is_spi=is_spi), is_spi=is_spi)
    yield made
    made.close()


def test_a_network_runs_over_the_pins(port: FarEnd) -> None:
    driver = Driver(_Transport(port), add_one())
    np.testing.assert_array_equal(driver.run(codes()), expected(codes()))


def test_samples_overlap_over_the_pins(port: FarEnd) -> None:
    driver = Driver(_Transport(port), in_two_banks(slow(add_one())))
    samples = [codes(seed) for seed in range(3)]
    for sample, answer in zip(samples, driver.stream(samples), strict=True):
        np.testing.assert_array_equal(answer, expected(sample))


def test_what_is_spoiled_on_the_way_is_sent_again(port: FarEnd) -> None:
    transport = _Transport(port)
    word = np.array([0xDEADBEEF], np.uint32)
    whole = request(WRITE, at.SCRATCH, 1, word.astype("<u4").tobytes())
    for place in (3, 10, len(whole) - 1):  # the address, the payload, the last check
        port.spoiled.append(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        transport.write(at.SCRATCH, word)
        assert transport.read(at.SCRATCH, 1)[0] == 0xDEADBEEF


_START = request(WRITE, at.CONTROL, 1, bytes([at.START, 0, 0, 0]))


@pytest.mark.parametrize("is_heard", [False, True])
def test_a_start_without_an_answer_begins_again_with_its_input(
    port: FarEnd, is_heard: bool
) -> None:
    """The network writes its output over its input: what ran twice would answer for the first."""
    driver = Driver(_Transport(port), twice(add_one()))
    if is_heard:  # the check fails, behind a word that was taken
        port.instead[_START] = _START[:-1] + bytes([_START[-1] ^ 1])
    else:
        port.unheard.append(_START)
    answer = driver.run(codes())
    np.testing.assert_array_equal(answer, np.minimum(1 - expected(codes()), 127))
    assert port.sent.count(_START) == 2


def test_a_request_that_breaks_off_is_forgotten(port: FarEnd) -> None:
    transport = _Transport(port)
    port.spoiled.append(request(WRITE, at.SCRATCH, 1, bytes(4))[:9])
    transport.write(at.SCRATCH, np.array([5], np.uint32))
    assert transport.read(at.SCRATCH, 1)[0] == 5


def test_silence_is_an_error_with_its_reason(port: FarEnd) -> None:
    port.spoiled += [b"\x00"] * 3
    with pytest.raises(DeviceError, match="does not answer over simulated pins"):
        _Transport(port).read(at.ID, 1)
