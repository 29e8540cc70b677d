"""An engine over Etherbone: datagrams are lost, and what they carried is not."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.driver import Driver
from hardware.fpga.etherbone import EtherboneTransport
from hardware.fpga.program import DESCRIPTOR_WORDS
from hardware.fpga.simulated import SimulatedEngine
from hardware.fpga.way import open_way
from tests.hardware.fpga.etherbone_far_end import BASE, EtherboneServer
from tests.hardware.fpga.networks import SIZE, add_one, codes, expected, in_two_banks

_WRITES = 10  # where a packet says how many
_START_OF_SECOND = at.START | at.START_BANK | DESCRIPTOR_WORDS << at.ENTRY_SHIFT


@pytest.fixture
def lost() -> list[Callable[[bytes], bool]]:
    """What is asked of each datagram; none is lost at first."""
    return []


@pytest.fixture
def server(models: Path, lost: list[Callable[[bytes], bool]]) -> Iterator[EtherboneServer]:
    engine = SimulatedEngine(SIZE, cache_folder=models, is_quick=True)
    made = EtherboneServer(engine, lambda packet: any(says(packet) for says in lost))
    yield made
    made.close()
    engine.close()


@pytest.fixture
def transport(server: EtherboneServer) -> Iterator[EtherboneTransport]:
    made = EtherboneTransport(server.host, BASE, port=server.port, timeout_s=0.1)
    yield made
    made.close()


def test_a_network_runs_over_etherbone(transport: EtherboneTransport) -> None:
    driver = Driver(transport, add_one())
    np.testing.assert_array_equal(driver.run(codes()), expected(codes()))


def test_what_is_lost_is_asked_for_and_written_again(
    transport: EtherboneTransport, lost: list[Callable[[bytes], bool]]
) -> None:
    driver = Driver(transport, add_one())
    left = [2, 3]  # writes of the input, and answers

    def takes(packet: bytes) -> bool:
        kind = 0 if packet[_WRITES] > 1 and packet[_WRITES + 1] == 0 else 1
        left[kind] -= 1
        return left[kind] >= 0

    lost.append(takes)
    np.testing.assert_array_equal(driver.run(codes(1)), expected(codes(1)))
    assert max(left) < 0


def test_a_start_that_is_lost_is_no_answer(
    transport: EtherboneTransport, lost: list[Callable[[bytes], bool]]
) -> None:
    """The answer before it is still done; the driver waits, and begins again."""
    driver = Driver(transport, in_two_banks(add_one()), timeout_s=0.5)
    start_of_second = struct.pack(">II", BASE + 4 * at.CONTROL, _START_OF_SECOND)
    left = [1]

    def takes(packet: bytes) -> bool:
        if start_of_second in packet:
            left[0] -= 1
            return left[0] >= 0
        return False

    lost.append(takes)
    samples = [codes(seed) for seed in range(4)]
    for sample, answer in zip(samples, driver.stream(samples), strict=True):
        np.testing.assert_array_equal(answer, expected(sample))
    assert left[0] < 0


def test_an_answer_to_an_earlier_question_is_no_answer(
    transport: EtherboneTransport, server: EtherboneServer
) -> None:
    transport.read(at.ID, 1)
    transport._send(_question(at.ID))  # whose answer nobody waits for
    transport.write(at.SCRATCH, np.array([77], np.uint32))
    assert transport.read(at.SCRATCH, 1)[0] == 77


def _question(address: int) -> bytes:
    place = (BASE + 4 * address).to_bytes(4, "big")
    return bytes.fromhex("4e6f104400000000 100f0001 00000000".replace(" ", "")) + place


def test_silence_is_an_error_with_its_reason(
    transport: EtherboneTransport, lost: list[Callable[[bytes], bool]]
) -> None:
    lost.append(lambda _: True)
    with pytest.raises(DeviceError, match="does not answer over Etherbone"):
        transport.read(at.ID, 1)


def test_a_way_names_the_host_the_port_and_the_place_on_the_bus(server: EtherboneServer) -> None:
    opened = open_way(f"etherbone:{server.host}:{server.port}@{BASE:#x}")
    try:
        assert opened.read(at.ID, 1)[0] == at.ID_VALUE
    finally:
        opened.close()
    with pytest.raises(DeviceError, match="is no way to an FPGA"):
        open_way("etherbone:127.0.0.1@somewhere")
