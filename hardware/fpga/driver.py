"""Runs a network on an engine behind any transport: load, start, poll, read, recover."""

import time

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.program import Codes, Program, Size
from hardware.fpga.transport import Transport

_POLL_S = 0.02
_ONE_WORD = 4


class Driver:
    """An engine with a network in it.

    Args:
        transport: the way to the engine.
        program: the network.
        build: the 32 digits that the engine must say of itself; empty takes any engine.
        timeout_s: after which an inference counts as hung.

    Raises:
        DeviceError: there is no engine, another one, a smaller one, or its memory does not keep
            what is written.
    """

    def __init__(
        self, transport: Transport, program: Program, *, build: str = "", timeout_s: float = 30.0
    ) -> None:
        self._transport = transport
        self._program = program
        self._timeout_s = timeout_s
        self.cycles = 0
        self._require(build)
        self.load()

    def load(self) -> None:
        """Stop whatever runs, write the network into the engine's memories, and read it back."""
        self._control(at.STOP)
        for name, words in self._program.images().items():
            base = at.MEMORIES[name]
            self._transport.write(base, words)
            if words.size and not np.array_equal(self._transport.read(base, words.size), words):
                raise DeviceError(
                    f"The FPGA does not hold its {name}.",
                    why="What is read back is not what was written.",
                    fix="Load the bitstream again; if it stays, the board is broken.",
                )

    def run(self, codes: Codes) -> Codes:
        """One inference, [height, width, channels] to the like; [1, 1, 1] after an ArgMax.

        An engine that hangs, or says an error, is stopped, loaded again and asked once more.

        Raises:
            DeviceError: that did not help.
        """
        try:
            return self._run(codes)
        except DeviceError:
            self.load()
            return self._run(codes)

    def close(self) -> None:
        """Let go of the engine."""
        self._transport.close()

    def _run(self, codes: Codes) -> Codes:
        given = self._program.input
        self._transport.write(self._address(given.address), given.pack(codes).view("<u4"))
        self._control(at.START)
        self._await()
        self.cycles = self._register(at.CYCLES)
        output = self._program.output
        if output is None:
            return np.full((1, 1, 1), self._register(at.INDEX), np.int64)
        words = self._transport.read(self._address(output.address), output.bytes // _ONE_WORD)
        return output.unpack(words.astype("<u4").view(np.uint8))

    def _await(self) -> None:
        until = time.monotonic() + self._timeout_s
        while True:
            status = self._register(at.STATUS)
            if code := status >> at.ERROR_SHIFT & 0xFF:
                raise DeviceError(
                    "The FPGA stopped with an error.",
                    why=f"It says that {at.ERRORS.get(code, f'error {code} happened')}.",
                    fix="Load the release again.",
                )
            if status & at.DONE:
                return
            if time.monotonic() > until:
                layer = self._register(at.LAYER)
                raise DeviceError(
                    "The FPGA hangs.",
                    why=f"It was not done after {self._timeout_s:g} s; it is at layer {layer}.",
                    fix="Check its clock and power; it was stopped.",
                )
            self._transport.wait(_POLL_S)

    def _require(self, build: str) -> None:
        said = [int(word) for word in self._transport.read(at.REGISTERS, at.CONTROL)]
        if said[at.ID] != at.ID_VALUE:
            raise DeviceError(
                f"There is no engine of edgeml behind {self._transport.kind}.",
                why=f"Its identification is {said[at.ID]:#010x}, not {at.ID_VALUE:#010x}.",
                fix="Load the release's bitstream into the FPGA.",
            )
        if said[at.VERSION] != at.VERSION_VALUE:
            raise DeviceError(
                f"The engine in the FPGA speaks version {said[at.VERSION]} of the protocol.",
                why=f"This driver speaks version {at.VERSION_VALUE}.",
                fix="Load the release's bitstream into the FPGA, or update the agent.",
            )
        found = "".join(f"{word:08x}" for word in said[at.BUILD : at.SIZE])
        if build and found != build:
            raise DeviceError(
                "Another bitstream is in the FPGA than the release's.",
                why=f"It was built as {found}, the release's as {build}.",
                fix="Load the release's bitstream into the FPGA.",
            )
        size = Size(**dict(zip(Size.__struct_fields__, said[at.SIZE : at.CONTROL], strict=True)))
        if not size.holds(wanted := Size.of(self._program)):
            raise DeviceError(
                "The engine in the FPGA is not one for this network.",
                why=f"It has {size}; needed is {wanted}.",
                fix="Load the release's bitstream into the FPGA.",
            )

    def _address(self, activation: int) -> int:
        return at.ACTIVATIONS + activation * self._program.lanes // _ONE_WORD

    def _control(self, value: int) -> None:
        self._transport.write(at.REGISTERS + at.CONTROL, np.array([value], np.uint32))

    def _register(self, number: int) -> int:
        return int(self._transport.read(at.REGISTERS + number, 1)[0])
