"""The way to an engine in a LiteX SoC over a network: Etherbone over UDP.

Packets as in the Etherbone specification 1.0, with one record of 32-bit accesses each and no more
words than a LiteX SoC keeps by default. A datagram may be lost: what is read is asked for again,
told apart by the return address that its answer repeats, and what is written is read back. The
registers alone are not: a start that is lost ends as a hang, which the driver recovers from.
"""

import socket
import struct
import time
from itertools import count

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga.registers import MEMORIES
from hardware.fpga.transport import Words, lost

PORT = 1234
_WORDS = 14  # of a packet: LiteX's buffers take 16 with their addresses
_TRIES = 5
_TIMEOUT_S = 0.5
_DATAGRAM = 2048
# Magic, version 1 without flags, addresses and data of 32 bits, and four bytes of padding.
_HEADER = struct.pack(">HBBI", 0x4E6F, 0x10, 0x44, 0)
_RECORD = struct.Struct(">BBBB")  # flags, byte enables, writes, reads
_DROP_CYCLE, _ALL_BYTES = 0x10, 0x0F


class EtherboneTransport:
    """An engine at an address of a SoC's bus.

    Args:
        host: the SoC's name or address.
        base: of the engine on the bus, in bytes.
        port: of UDP, there and here: a SoC answers to the port that it listens on.
        timeout_s: for one answer.

    Raises:
        DeviceError: the host has no address, or the port is taken here.
    """

    def __init__(
        self, host: str, base: int, *, port: int = PORT, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self.kind = f"Etherbone {host}:{port}"
        self._base = base
        self._tags = count(1)
        try:
            self._socket = _connected(host, port)
        except OSError as error:
            raise DeviceError(
                f"The FPGA cannot be reached over {self.kind}.",
                why=f"{error}.",
                fix="Check the address, and that nothing else here uses that UDP port.",
            ) from error
        self._socket.settimeout(timeout_s)

    def read(self, address: int, count: int) -> Words:
        """So many words from an address on."""
        parts = [
            self._read(address + at, min(_WORDS, count - at)) for at in range(0, count, _WORDS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint32)

    def write(self, address: int, words: Words) -> None:
        """Write words from an address on."""
        given = np.ascontiguousarray(words, np.uint32)
        for at in range(0, given.size, _WORDS):
            self._write(address + at, given[at : at + _WORDS])

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()

    def _write(self, address: int, words: Words) -> None:
        record = _RECORD.pack(_DROP_CYCLE, _ALL_BYTES, words.size, 0)
        place = struct.pack(">I", self._base + 4 * address)
        packet = _HEADER + record + place + words.astype(">u4").tobytes()
        for _ in range(_TRIES):
            self._send(packet)
            if address < min(MEMORIES.values()) or np.array_equal(
                self._read(address, words.size), words
            ):
                return
        raise lost(self.kind, "What is read back is not what was written.")

    def _read(self, address: int, words: int) -> Words:
        places = [self._base + 4 * (address + at) for at in range(words)]
        for _ in range(_TRIES):
            tag = next(self._tags) & 0xFFFFFFFF
            record = _RECORD.pack(_DROP_CYCLE, _ALL_BYTES, 0, words)
            self._send(_HEADER + record + struct.pack(f">{words + 1}I", tag, *places))
            if (answer := self._answer(tag, words)) is not None:
                return answer
        raise lost(self.kind, f"It sent no answer to {_TRIES} requests.")

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet)
        except OSError as error:
            raise lost(self.kind, f"{error}.") from error

    def _answer(self, tag: int, words: int) -> Words | None:
        """What was read; None where it did not come in time. Answers to others are passed over."""
        until = time.monotonic() + (self._socket.gettimeout() or 0.0)
        while time.monotonic() < until:
            try:
                said = self._socket.recv(_DATAGRAM)
            except TimeoutError:
                return None
            except OSError as error:  # ICMP: nobody listens there
                raise lost(self.kind, f"{error}.") from error
            start = len(_HEADER) + _RECORD.size
            content = said[start + 4 :]
            if len(said) < start + 4 or said[:3] != _HEADER[:3] or said[start - 2] != words:
                continue
            if said[start : start + 4] == struct.pack(">I", tag) and len(content) >= 4 * words:
                return np.frombuffer(content[: 4 * words], ">u4").astype(np.uint32)
        return None


def _connected(host: str, port: int) -> socket.socket:
    """A socket on the same port here as there, at the address that leads there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect((host, port))
        here = route.getsockname()[0]
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((here, port))
        made.connect((host, port))
    except OSError:
        made.close()
        raise
    return made
