"""What an engine is loaded with: its memories' content, and where a host finds input and output.

Activations lie in words of `lanes` bytes, channel last: a pixel is as many words as its channels
need, and what is left of the last word is of no channel. The pixels of an input that dense layers
alone read lie side by side instead, so that a host has less to write.
"""

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]

DESCRIPTOR_WORDS = 18


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor in the activation memory.

    `channels` has for each byte of a pixel's words the channel that it holds, -1 for none.
    """

    address: int
    height: int
    width: int
    channels: tuple[int, ...]
    signed: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, max(self.channels) + 1

    @property
    def bytes(self) -> int:
        """That it takes in the memory, before what is left of its last word."""
        return self.height * self.width * len(self.channels)

    def words(self, lanes: int) -> int:
        """That it takes in the memory, of `lanes` bytes."""
        return -(-self.bytes // lanes)

    def of_bank(self, bank: int, lanes: int) -> "Placed":
        """The same in a bank, where each bank lies right behind the one before."""
        return msgspec.structs.replace(self, address=self.address + bank * self.words(lanes))

    def pack(self, codes: Codes) -> NDArray[np.uint8]:
        """Whole words of 32 bits, as bytes, of one sample's codes, [height, width, channels]."""
        packed = np.zeros((self.height, self.width, len(self.channels)), np.uint8)
        place = np.array(self.channels)
        packed[..., place >= 0] = codes[..., place[place >= 0]].astype(np.int16).view(np.uint16)
        return np.pad(packed.reshape(-1), (0, -packed.size % 4))

    def unpack(self, content: NDArray[np.uint8]) -> Codes:
        """The codes, [height, width, channels], of the memory's bytes."""
        bytes_ = content.reshape(self.height, self.width, len(self.channels))
        place = np.array(self.channels)
        codes = np.empty(self.shape, np.int64)
        values = bytes_.view(np.int8) if self.signed else bytes_
        codes[..., place[place >= 0]] = values[..., place >= 0]
        return codes


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One network for an engine of so many lanes; the images are little-endian 32-bit words.

    `output` is none where the answer is the index register, after an ArgMax. `activation_words`
    is what the network needs of the activation memory, in words of `lanes` bytes. Where `far` has
    the weights, they lie in a memory outside of the FPGA, and `weight_words` of `lanes` bytes are
    those of the largest layer (`hardware.fpga.far`). Of two `banks` each has a program of its own,
    one after the other, and `input` and `output` are those of the first. `version` is that of the
    gateware's protocol.
    """

    lanes: int
    program: bytes
    weights: bytes
    parameters: bytes
    tables: bytes
    activation_words: int
    input: Placed
    output: Placed | None
    cycles: int
    far: bytes = b""
    weight_words: int = 0
    banks: int = 1
    version: int = 1

    @property
    def layers(self) -> int:
        """How many descriptors an inference has."""
        return len(self.program) // (4 * DESCRIPTOR_WORDS * self.banks)

    @property
    def input_words(self) -> int:
        """Of one bank of the input, of 32 bits."""
        return self.input.words(self.lanes) * self.lanes // 4

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()

    def images(self) -> dict[str, NDArray[np.uint32]]:
        """Each memory's words as the bus has them, by the memory's name."""
        return {
            name: np.frombuffer(getattr(self, name), "<u4")
            for name in ("program", "weights", "parameters", "tables")
        }


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """An engine: its lanes and how many words each memory has.

    Words are of 32 bits in `program`, of `lanes` bytes in `weights` and `activations`, of 64 bits
    in `parameters`; `tables` counts tables of 256 bytes.
    """

    lanes: int
    program: int
    weights: int
    parameters: int
    tables: int
    activations: int

    @classmethod
    def of(cls, program: Program) -> "Size":
        """The smallest engine that a program fits."""
        return cls(
            lanes=program.lanes,
            program=max(2, len(program.program) // 4),
            weights=max(2, program.weight_words, len(program.weights) // program.lanes),
            parameters=max(2, len(program.parameters) // 8),
            tables=max(1, len(program.tables) // 256),
            activations=max(2, program.activation_words),
        )

    def holds(self, other: "Size") -> bool:
        """Whether an engine of this size runs what another one does."""
        mine, wanted = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return self.lanes == other.lanes and all(a >= b for a, b in zip(mine, wanted, strict=True))

    @property
    def parameters_of_verilog(self) -> dict[str, int]:
        """The module's parameters."""
        return {
            "LANES": self.lanes,
            "PROGRAM_WORDS": self.program,
            "WEIGHT_WORDS": self.weights,
            "PARAMETER_WORDS": self.parameters,
            "TABLES": self.tables,
            "ACTIVATION_WORDS": self.activations,
        }
