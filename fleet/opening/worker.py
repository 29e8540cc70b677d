"""The process that opens batches for the fleet: frames in on stdin, frames out on stdout.

A frame is four bytes of length and MessagePack: a list of `Asked` in, a list of `ReadBatch` or
nil out. It ends with its input, so that it never outlives the fleet.
"""

import signal
import sys
from typing import BinaryIO

import msgspec

from fleet.opening.reading import ReadBatch
from fleet.opening.verifying import Asked, opened

_asked: msgspec.msgpack.Decoder[list[Asked]] = msgspec.msgpack.Decoder(list[Asked])
_answers: msgspec.msgpack.Decoder[list[ReadBatch | None]] = msgspec.msgpack.Decoder(
    list[ReadBatch | None]
)
_encode = msgspec.msgpack.Encoder().encode


def ask(stream: BinaryIO, asked: list[Asked]) -> None:
    """Send envelopes to a worker."""
    _send(stream, _encode(asked))


def answer(stream: BinaryIO) -> list[ReadBatch | None]:
    """What a worker says of the envelopes that it was sent.

    Raises:
        EOFError: it is gone.
    """
    return _answers.decode(_receive(stream))


def main() -> None:
    """Work until the input ends."""
    # Ctrl-C is for the fleet, which closes the input when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            asked = _asked.decode(_receive(incoming))
        except EOFError:
            return
        try:
            _send(outgoing, _encode([opened(one) for one in asked]))
        except BrokenPipeError:
            return


def _send(stream: BinaryIO, data: bytes) -> None:
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def _receive(stream: BinaryIO) -> bytes:
    head = stream.read(4)
    data = stream.read(int.from_bytes(head, "big"))
    if len(head) < 4 or len(data) < int.from_bytes(head, "big"):  # noqa: PLR2004 -- as above
        raise EOFError
    return data
