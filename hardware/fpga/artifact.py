"""The one file that a device needs of a network on an FPGA: program, bitstream, host's part.

The host turns real numbers into codes before the engine, and codes into real numbers after it.
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.fpga.dataflow import Dataflow
from hardware.fpga.program import Codes, Program, Size

MAGIC = b"edgeml-fpga/1\n"


class HostSide(msgspec.Struct, frozen=True, kw_only=True):
    """What is computed around the gateware, in float64.

    `code = clamp(floor(x * gain + offset + 0.5), low, high)`, taken in `input_order`; the outputs
    are codes in `output_order` times `output_scale`, with a softmax where the model ends in one,
    or the class's number after an ArgMax. Shapes have no batch axis.
    """

    input_name: str = "input"
    input_shape: tuple[int, ...]
    input_order: tuple[int, ...]
    gain: float
    offset: float
    low: int
    high: int
    output_name: str = "output"
    output_shape: tuple[int, ...]
    output_order: tuple[int, ...]
    output_scale: float
    output_dtype: str = "float32"
    softmax: bool = False

    def encode(self, sample: NDArray[Any], shape: tuple[int, int, int]) -> Codes:
        """Codes, [height, width, channels], of one sample."""
        flat = np.asarray(sample, np.float64).reshape(-1)[np.array(self.input_order)]
        codes = np.clip(np.floor(flat * self.gain + self.offset + 0.5), self.low, self.high)
        shaped: Codes = codes.astype(np.int64).reshape(shape)
        return shaped

    def decode(self, codes: Codes) -> NDArray[Any]:
        """What the model answers, of one sample's output codes."""
        flat = codes.reshape(-1)[np.array(self.output_order)]
        real = (flat * self.output_scale).reshape(self.output_shape)
        if self.softmax:
            powers = np.exp(real - real.max(axis=-1, keepdims=True))
            real = powers / powers.sum(axis=-1, keepdims=True)
        answer: NDArray[Any] = real.astype(self.output_dtype)
        return answer


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of gateware have: the host's part and, where one was made, the bitstream.

    `programmer` is openFPGALoader's name for the board.
    """

    host: HostSide
    board: str = ""
    programmer: str = ""
    clock_mhz: float = 0.0
    bitstream: bytes = b""
    bitstream_sha256: str = ""

    def save(self, path: Path) -> None:
        """Write it, the same bytes for the same content."""
        path.write_bytes(MAGIC + msgspec.msgpack.encode(self))


class Artifact(Loaded, frozen=True, kw_only=True, tag="engine"):
    """A network for an engine.

    `build` is what the engine says of itself: the first 32 digits of a SHA-256 over the
    gateware and its size.
    """

    program: Program
    size: Size
    build: str

    @classmethod
    def load(cls, path: Path) -> "Artifact":
        """Read it.

        Raises:
            ModelError: it is none, or damaged.
        """
        made = load(path)
        if isinstance(made, cls):
            return made
        raise ModelError(f"{path.name} is no network for an engine, but logic of its own.")


class DataflowArtifact(Loaded, frozen=True, kw_only=True, tag="dataflow"):
    """A net unrolled into logic."""

    dataflow: Dataflow


def load(path: Path) -> Artifact | DataflowArtifact:
    """Read a network for an FPGA.

    Raises:
        ModelError: it is none, or damaged.
    """
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise ModelError(
            f"{path.name} is no network for an FPGA.",
            why=f"It does not begin with {MAGIC.decode().strip()}.",
        )
    try:
        made = msgspec.msgpack.decode(content[len(MAGIC) :], type=Artifact | DataflowArtifact)
    except msgspec.MsgspecError as error:
        raise ModelError(
            f"{path.name} is damaged.", why=f"{error}.", fix="Download the release again."
        ) from error
    if made.bitstream and hashlib.sha256(made.bitstream).hexdigest() != made.bitstream_sha256:
        raise ModelError(
            f"The bitstream in {path.name} is damaged.",
            why="Its SHA-256 is not the one that was recorded.",
            fix="Download the release again.",
        )
    return made
