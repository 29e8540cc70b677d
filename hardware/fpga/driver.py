"""Runs a network on an engine behind any transport: load, start, poll, read, recover."""

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.control import TIMEOUT_S, Control, wrong_gateware
from hardware.fpga.far import alone
from hardware.fpga.program import Codes, Program, Size
from hardware.fpga.transport import Transport

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
        self,
        transport: Transport,
        program: Program,
        *,
        build: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._transport = transport
        self._program = program
        self._control = Control(transport, timeout_s=timeout_s)
        self.cycles = 0
        said = self._control.require(build)
        size = Size(**dict(zip(Size.__struct_fields__, said, strict=True)))
        if not size.holds(wanted := Size.of(program)):
            raise wrong_gateware(f"It has {size}; needed is {wanted}.")
        self.load()

    def load(self) -> None:
        """Stop whatever runs, write the network into the engine's memories, and read it back."""
        self._control.stop()
        for name, words in self._program.images().items():
            base = at.MEMORIES[name]
            self._transport.write(base, words)
            if words.size and not np.array_equal(self._transport.read(base, words.size), words):
                raise DeviceError(
                    f"The FPGA does not hold its {name}.",
                    why="What is read back is not what was written.",
                    fix="Load the bitstream again; if it stays, the board is broken.",
                )
        if self._program.far:
            self._require_far()

    def run(self, codes: Codes) -> Codes:
        """One inference, [height, width, channels] to the like; [1, 1, 1] after an ArgMax.

        An engine that hangs, or says an error, is stopped, loaded again and asked once more.

        Raises:
            DeviceError: that did not help.
        """
        return self._control.twice(lambda: self._run(codes), self.load)

    def close(self) -> None:
        """Let go of the engine."""
        self._transport.close()

    def _run(self, codes: Codes) -> Codes:
        given = self._program.input
        self._transport.write(self._address(given.address), given.pack(codes).view("<u4"))
        self._control.run()
        self.cycles = self._control.register(at.CYCLES)
        output = self._program.output
        if output is None:
            return np.full((1, 1, 1), self._control.register(at.INDEX), np.int64)
        words = self._transport.read(self._address(output.address), output.bytes // _ONE_WORD)
        return output.unpack(words.astype("<u4").view(np.uint8))

    def _require_far(self) -> None:
        """Let each layer run alone, and compare the weights that it fetched."""
        at_program, at_weights = at.MEMORIES["program"], at.MEMORIES["weights"]
        for number in range(self._program.layers):
            layer, weights = alone(self._program, number)
            self._transport.write(at_program, layer)
            self._control.run()
            if not np.array_equal(self._transport.read(at_weights, weights.size), weights):
                raise DeviceError(
                    "The FPGA's flash does not hold the network's weights.",
                    why=f"Those of layer {number} are others.",
                    fix="Write the release's weights into the flash (docs/fpga-engine.md).",
                )
        self._transport.write(at_program, self._program.images()["program"])

    def _address(self, activation: int) -> int:
        return at.ACTIVATIONS + activation * self._program.lanes // _ONE_WORD
