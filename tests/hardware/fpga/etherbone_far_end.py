"""The far end of Etherbone: a UDP server that follows the specification, before an engine.

It is ours, not LiteX's: `docs/fpga-engine.md` says what was tried with LiteX's own.
"""

import socket
import struct
import threading
from collections.abc import Callable

import numpy as np

from hardware.fpga.transport import Transport

BASE = 0x30000000


class EtherboneServer:
    """Answers at `host`, a loopback address that is not the client's, and an unused port.

    Args:
        transport: to the engine, which lies at `BASE`.
        is_lost: says of each datagram, both ways, whether it is dropped.
    """

    host = "127.0.0.2"

    def __init__(self, transport: Transport, is_lost: Callable[[bytes], bool]) -> None:
        self._transport = transport
        self._is_lost = is_lost
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.host, 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self.host, self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, peer = self._socket.recvfrom(4096)
            if not packet:
                return
            if self._is_lost(packet):
                continue
            answer = self._answer(packet)
            if answer and not self._is_lost(answer):
                self._socket.sendto(answer, peer)

    def _answer(self, packet: bytes) -> bytes:
        magic, version, widths = struct.unpack_from(">HBB", packet)
        if magic != 0x4E6F or version >> 4 != 1 or widths != 0x44:
            return b""
        self._transport.wait(1e-4)  # time passes: the engine runs meanwhile
        _, enables, writes, reads = struct.unpack_from(">BBBB", packet, 8)
        words = np.frombuffer(packet, ">u4", offset=12)
        if enables != 0xF or len(words) != writes + reads + (writes > 0) + (reads > 0):
            return b""
        if writes:
            self._transport.write((int(words[0]) - BASE) // 4, words[1 : 1 + writes])
            words = words[1 + writes :]
        if not reads:
            return b""
        found = [self._transport.read((int(at) - BASE) // 4, 1)[0] for at in words[1:]]
        record = struct.pack(">BBBBI", 0x10, enables, reads, 0, int(words[0]))
        return packet[:8] + record + np.array(found, ">u4").tobytes()
