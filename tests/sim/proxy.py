"""A TCP link that misbehaves on command, between real processes.

    with Proxy(port_of_the_fleet) as link:
        url = f"http://127.0.0.1:{link.port}"
        link.delay_s = 0.2          # each chunk comes that much later
        link.bytes_per_s = 10_000   # a slow line, in each direction
        link.corrupt_every = 5_000  # one bit in so many bytes is wrong
        link.silent = True          # connected, and nothing comes through any more
        link.half_close()           # what comes back ends; what goes up is still taken
        link.cut()                  # every connection is reset
        link.down = True            # and no new one is let through

`broken` and `passed` count what it did, so that a test can tell a fault that never struck.
"""

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType

CHUNK = 16 << 10
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """See the module.

    Args:
        target: the port on this machine that it leads to.
        host: where it listens.
        port: where it listens; 0 chooses a free one.
        to: the host that it leads to.
    """

    def __init__(
        self, target: int, *, host: str = "127.0.0.1", port: int = 0, to: str = "127.0.0.1"
    ) -> None:
        self._target = (to, target)
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.corrupt_every = 0
        self.silent = False
        self.down = False
        self.passed = 0
        self.broken = 0
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server((host, port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def lead_to(self, target: int) -> None:
        """Lead to another port from now on, and cut what leads to the one before."""
        self._target = (self._target[0], target)
        self.cut()

    def cut(self) -> int:
        """Reset every connection, as a router that forgot them; returns how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self.broken += len(pairs)
        return len(pairs)

    def half_close(self) -> int:
        """End the direction to the client alone; returns of how many connections."""
        with self._lock:
            pairs = tuple(self._pairs)
        for client, _ in pairs:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
        self.broken += len(pairs)
        return len(pairs)

    def heal(self) -> None:
        """Be a good link again."""
        self.delay_s = self.bytes_per_s = 0.0
        self.corrupt_every = 0
        self.silent = self.down = False

    def close(self) -> None:
        """Listen no more, and end every connection."""
        self.down = True
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                self.broken += 1
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, 10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(source, sink, pair), daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        since_corrupt = 0
        try:
            while data := source.recv(CHUNK):
                since_corrupt += len(data)
                sink.sendall(self._treated(data, since_corrupt))
                if self.corrupt_every and since_corrupt >= self.corrupt_every:
                    since_corrupt = 0
                self.passed += len(data)
            sink.shutdown(socket.SHUT_WR)  # a proper end of one direction goes on as such
        except OSError:
            with self._lock:
                self._pairs.discard(pair)
            for end in pair:
                end.close()

    def _treated(self, data: bytes, since_corrupt: int) -> bytes:
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.bytes_per_s:
            time.sleep(len(data) / self.bytes_per_s)
        while self.silent:
            time.sleep(0.02)
        if self.corrupt_every and since_corrupt >= self.corrupt_every:
            self.broken += 1
            spoilt = bytearray(data)
            spoilt[len(spoilt) // 2] ^= 0x10
            return bytes(spoilt)
        return data
