"""Runs a network on an engine behind any transport: load, start, poll, read, recover."""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.control import TIMEOUT_S, Control, wrong_gateware
from hardware.fpga.far import alone
from hardware.fpga.program import DESCRIPTOR_WORDS, Codes, Placed, Program, Size
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
        self._running: tuple[int, Codes] | None = None  # the bank, and what is in it
        self._build = build
        self.cycles = 0
        self.load()

    def load(self) -> None:
        """Stop whatever runs, write the network into the engine's memories, and read it back.

        Raises:
            DeviceError: as the driver itself; another bitstream may be there by now.
        """
        self._running = None
        program = self._program
        said = self._control.require(self._build, program.version)
        size = Size(**dict(zip(Size.__struct_fields__, said, strict=True)))
        if not size.holds(wanted := Size.of(program)):
            raise wrong_gateware(f"It has {size}; needed is {wanted}.")
        self._control.stop()
        self._control.take()
        self._transport.write(
            at.REGISTERS + at.INPUT,
            np.array([program.input_words if program.banks > 1 else 0], np.uint32),
        )
        for name, words in program.images().items():
            base = at.MEMORIES[name]
            self._transport.write(base, words)
            if words.size and not np.array_equal(self._transport.read(base, words.size), words):
                raise DeviceError(
                    f"The FPGA does not hold its {name}.",
                    why="What is read back is not what was written.",
                    fix="Load the bitstream again; if it stays, the board is broken.",
                )
        if program.far:
            self._require_far()

    def run(self, codes: Codes) -> Codes:
        """One inference, [height, width, channels] to the like; [1, 1, 1] after an ArgMax.

        An engine that hangs, or says an error, is stopped, loaded again and asked once more.

        Raises:
            DeviceError: that did not help.
        """
        [answer] = self.stream([codes])
        return answer

    def stream(self, samples: Iterable[Codes]) -> Iterator[Codes]:
        """Inferences one after the other; a sample is asked for while the one before it runs.

        Where input and output have two banks, it is written meanwhile, too, and an answer is read
        while the next runs. After an error all that was begun is begun again.

        Raises:
            DeviceError: as `run`.
        """
        given = iter(samples)
        if (codes := next(given, None)) is None:
            return
        self._control.twice(partial(self._begin, codes), self.load)
        while codes is not None:
            following = next(given, None)
            yield self._control.twice(partial(self._step, codes, following), self.load)
            codes = following

    def close(self) -> None:
        """Let go of the engine."""
        self._transport.close()

    def _begin(self, codes: Codes) -> None:
        """Stop whatever runs, and start a sample."""
        self._control.rest()
        self._give(codes, 0)
        self._start(codes, 0)

    def _step(self, codes: Codes, following: Codes | None) -> Codes:
        """The answer to what runs; then the sample that follows runs, where banks allow it."""
        if self._running is None or self._running[1] is not codes:
            self._begin(codes)
        bank = self._running[0] if self._running else 0
        ahead = following if self._program.banks > 1 else None
        if ahead is not None:
            self._give(ahead, 1 - bank)
        self.cycles, winner = self._control.finish(bank)
        self._running = None
        if ahead is not None:
            self._start(ahead, 1 - bank)
        return self._answer(bank, winner)

    def _give(self, codes: Codes, bank: int) -> None:
        given = self._program.input.of_bank(bank, self._program.lanes)
        self._transport.write(self._address(given), given.pack(codes).view("<u4"))

    def _start(self, codes: Codes, bank: int) -> None:
        self._control.start(bank, bank * self._program.layers * DESCRIPTOR_WORDS)
        self._running = bank, codes

    def _answer(self, bank: int, winner: int) -> Codes:
        if self._program.output is None:
            return np.full((1, 1, 1), winner, np.int64)
        output = self._program.output.of_bank(bank, self._program.lanes)
        words = self._transport.read(self._address(output), output.bytes // _ONE_WORD)
        return output.unpack(words.astype("<u4").view(np.uint8))

    def _require_far(self) -> None:
        """Let each layer run alone, and compare the weights that it fetched."""
        at_program, at_weights = at.MEMORIES["program"], at.MEMORIES["weights"]
        for number in range(self._program.layers):
            layer, weights = alone(self._program, number)
            self._transport.write(at_program, layer)
            self._control.twice(self._control.run, self._control.stop)
            if not np.array_equal(self._transport.read(at_weights, weights.size), weights):
                raise DeviceError(
                    "The FPGA's flash does not hold the network's weights.",
                    why=f"Those of layer {number} are others.",
                    fix="Write the release's weights into the flash (docs/fpga-engine.md).",
                )
        self._transport.write(at_program, self._program.images()["program"])

    def _address(self, placed: Placed) -> int:
        return at.ACTIVATIONS + placed.address * self._program.lanes // _ONE_WORD
