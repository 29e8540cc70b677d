"""A net that was unrolled into logic, as a device takes it: its Verilog, and how codes are packed.

The logic takes a sample in each clock. A host over a bus gives one sample at a time: it writes the
input's words, starts, and reads the output's.
"""

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from hardware.fpga import registers as at
from hardware.fpga.control import TIMEOUT_S, Control, wrong_gateware
from hardware.fpga.program import Codes
from hardware.fpga.sources import DATAFLOW, digits, gateware
from hardware.fpga.transport import Transport

_WORD_BITS = 32
_NET = """// What the registers reach of the net: its input, and its output LATENCY clocks later.
module edgeml_net (
    input  wire clock,
    input  wire [{inputs}-1:0] given,
    output wire [{outputs}-1:0] answer
);
    {module} net (.clk(clock), .model_inp(given), .model_out(answer));
endmodule
"""


class Bits(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One code as the logic has it: so many bits, after so many zeros that are left out."""

    signed: bool
    bits: int
    zeros: int


class Dataflow(msgspec.Struct, frozen=True, kw_only=True):
    """The logic of one net.

    Args:
        sources: its Verilog by file name.
        module: that has the ports `clk`, `model_inp` and `model_out`.
        inputs: of its input codes, channel last, the first in the lowest bits.
        outputs: of its output codes.
        input_shape: height, width and channels.
        output_shape: height, width and channels.
        latency: clocks between the one that takes an input and the one that has its output.
    """

    sources: dict[str, str]
    module: str
    inputs: tuple[Bits, ...]
    outputs: tuple[Bits, ...]
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    latency: int

    @property
    def build(self) -> str:
        """The 32 digits that its gateware says of itself: of all its Verilog."""
        return digits(*(f"{name}\n{text}" for name, text in sorted(self.gateware().items())))

    def gateware(self) -> dict[str, str]:
        """All Verilog of it, registers and bus included, by file name."""
        net = _NET.format(
            inputs=_width(self.inputs), outputs=_width(self.outputs), module=self.module
        )
        shell = {name: gateware(name) for name in DATAFLOW}
        return {**self.sources, "edgeml_net.v": net, **shell}

    @property
    def parameters_of_verilog(self) -> dict[str, int | str]:
        """Those of the module `edgeml_dataflow`."""
        return {
            "INPUT_BITS": _width(self.inputs),
            "OUTPUT_BITS": _width(self.outputs),
            "LATENCY": self.latency,
            "BUILD": f"128'h{self.build}",
        }

    def pack(self, codes: Codes) -> np.ndarray:
        """The words, uint32, of one sample's codes, [height, width, channels]."""
        word = place = 0
        for code, port in zip(codes.reshape(-1).tolist(), self.inputs, strict=True):
            word |= (code >> port.zeros & (1 << port.bits) - 1) << place
            place += port.bits
        return np.frombuffer(word.to_bytes(4 * _words(self.inputs), "little"), "<u4")

    def unpack(self, words: np.ndarray) -> Codes:
        """The codes, [height, width, channels], of the output's words."""
        word = int.from_bytes(words.astype("<u4").tobytes(), "little")
        codes = []
        for port in self.outputs:
            code, word = word & (1 << port.bits) - 1, word >> port.bits
            is_negative = port.signed and code >> port.bits - 1
            codes.append((code - (1 << port.bits) if is_negative else code) << port.zeros)
        return np.array(codes, np.int64).reshape(self.output_shape)


class DataflowDriver:
    """Logic behind any transport.

    Args:
        transport: the way to it.
        dataflow: what it must be.
        timeout_s: after which an inference counts as hung.

    Raises:
        DeviceError: there is none of ours, or another net's.
    """

    def __init__(
        self, transport: Transport, dataflow: Dataflow, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._control = Control(transport, timeout_s=timeout_s)
        self._dataflow = dataflow
        self.cycles = 0
        said = self._control.require(dataflow.build, at.DATAFLOW_VERSION)
        wanted = [0, _words(dataflow.inputs), _words(dataflow.outputs), dataflow.latency]
        if said[: len(wanted)] != wanted:
            raise wrong_gateware(f"It has {said}; needed is {wanted}.")
        self._control.stop()
        self._control.take()

    def run(self, codes: Codes) -> Codes:
        """One inference, [height, width, channels] to the like.

        Raises:
            DeviceError: it hangs or does not answer, also after it was stopped and asked again.
        """
        return self._control.twice(lambda: self._run(codes), self._control.stop)

    def stream(self, samples: Iterable[Codes]) -> Iterator[Codes]:
        """Inferences one after the other: of the few clocks of one there is nothing to hide."""
        return map(self.run, samples)

    def close(self) -> None:
        """Let go of it."""
        self._control.transport.close()

    def _run(self, codes: Codes) -> Codes:
        self._control.transport.write(at.ACTIVATIONS, self._dataflow.pack(codes))
        self.cycles = self._control.run().cycles
        words = self._control.transport.read(at.OUTPUTS, _words(self._dataflow.outputs))
        return self._dataflow.unpack(words)


def _width(ports: tuple[Bits, ...]) -> int:
    return sum(port.bits for port in ports)


def _words(ports: tuple[Bits, ...]) -> int:
    return -(-_width(ports) // _WORD_BITS)
