"""The lines about clients that mean harm: malformed, oversize and slow packets."""

import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.broker_contract.candidates import Candidate
from benchmarks.broker_contract.client import MQTT_5, until
from benchmarks.broker_contract.lines import Seen, still_serves

OVERSIZE = 64 << 20


def connect_packet(broker: Candidate, user: str) -> bytes:
    """Return a correct CONNECT of a user that the broker knows, in the version that it speaks."""

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    version = b"\x05\xc2\x00\x1e\x00" if broker.protocol == MQTT_5 else b"\x04\xc2\x00\x1e"
    body = text("MQTT") + version + text(user) + text(user) + text(broker.accounts[user])
    return b"\x10" + remaining(len(body)) + body


def remaining(length: int) -> bytes:
    """Return `length` as MQTT's variable byte integer."""
    out = bytearray()
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(out)


def malformed_packets(hello: bytes) -> Iterator[bytes]:
    """Yield byte strings that no client should send."""
    rng = random.Random(5)
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"\x10\xff\xff\xff\xff\xff\xff"
    yield b"\x00\x00" * 50
    yield b"\x10\x02\x00\xff"
    yield hello[: len(hello) // 2]
    yield hello + hello
    yield hello + b"\x82\x02\x00\x00"
    yield hello + b"\x32\x03\x00\x05a"
    yield hello + b"\x82\x08\x00\x01\x00\x00\x03\xff\xfe\xfd"
    yield hello + b"\x36\x05\x00\x01a\x00\x01"
    yield hello + b"\x40\x02\xff\xff" * 20
    yield hello + b"\xf0\x00\x70\x02\x00\x01"
    for _ in range(150):
        yield rng.randbytes(rng.randint(1, 200))
        broken = bytearray(hello)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        yield bytes(broken) + rng.randbytes(rng.randint(0, 40))
        yield hello + bytes([rng.randrange(256)]) + rng.randbytes(rng.randint(1, 60))


def survives_malformed_packets(broker: Candidate) -> Seen:
    """462 malformed packets do not stop it."""
    hello = connect_packet(broker, "dev-b")
    for packet in malformed_packets(hello):
        with socket.socket() as sock:
            sock.settimeout(2)
            try:
                sock.connect(("127.0.0.1", broker.port))
                sock.sendall(packet)
            except OSError:
                continue
    serves = still_serves(broker)
    return Seen(serves, "serves on" if serves else "serves no more")


def refuses_oversize_packets(broker: Candidate) -> Seen:
    """A 64 MB packet is cut off before it is stored, logged in or not."""
    peaks = []
    for hello in (b"", connect_packet(broker, "dev-b")):
        before = broker.rss_mb()
        peak, sent = before, 0
        with socket.socket() as sock:
            sock.settimeout(2)
            try:
                sock.connect(("127.0.0.1", broker.port))
                sock.sendall(hello)
                kind = b"\x30" if hello else b"\x10"
                sock.sendall(kind + remaining(OVERSIZE) + b"\x00\x14edgeml/v1/dev-b/up/x\x00")
                while sent < OVERSIZE - 100:
                    sent += sock.send(bytes(65536))
                    if sent % (1 << 20) < 65536:
                        peak = max(peak, broker.rss_mb())
            except OSError:
                pass
        peaks.append(max(peak, broker.rss_mb()) - before)
    return Seen(max(peaks) < 20 and still_serves(broker), f"+{max(peaks):.0f} MB at most")


def survives_slowloris(broker: Candidate, connections: int = 300) -> Seen:
    """300 connections that never finish their CONNECT neither block others nor stay (30 s)."""
    with ExitStack() as stack:
        slow = []
        for _ in range(connections):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(1)
            try:
                sock.connect(("127.0.0.1", broker.port))
                sock.sendall(b"\x10")
            except OSError:
                continue
            slow.append(sock)
        serves = still_serves(broker)
        begun = time.monotonic()
        for sock in slow:
            sock.setblocking(False)
        open_now = list(slow)

        def all_closed() -> bool:
            open_now[:] = [sock for sock in open_now if not closed(sock)]
            return not open_now

        until(all_closed, 30)
        took = time.monotonic() - begun
    return Seen(
        serves and not open_now, f"others served {serves}, {len(open_now)} left after {took:.0f} s"
    )


def closed(sock: socket.socket) -> bool:
    """Return whether the other end has closed."""
    try:
        return sock.recv(64) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
