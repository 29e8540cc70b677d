"""FPGAs as a runtime: networks on edgeml's engine, behind a cable, in a SoC, or simulated.

The provider is the way to the engine: `simulated FPGA` (the very gateware in Verilator),
`serial:/dev/ttyUSB0`, `uio:/dev/uio0` or `mem:0x43c00000`. `EDGEML_FPGA` names it: nothing on
a machine tells of itself that an engine is behind it, so without it there is none.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeml.errors import DeviceError
from hardware.capabilities import RuntimeInfo
from hardware.fpga.artifact import Artifact
from hardware.fpga.driver import Driver
from hardware.fpga.mapped import MappedTransport
from hardware.fpga.registers import VERSION_VALUE
from hardware.fpga.serial import open_serial
from hardware.fpga.simulated import KIND, SimulatedEngine
from hardware.fpga.transport import Transport
from hardware.runtimes.formats import FPGA
from hardware.runtimes.interface import Session, SessionOptions, TensorSpec
from hardware.runtimes.refusal import fits, refused

NAME = "fpga"
VARIABLE = "EDGEML_FPGA"


class FpgaRuntime:
    """The runtime `fpga`; its version is that of the engine's protocol."""

    name = NAME
    formats: tuple[str, ...] = (FPGA,)

    def info(self) -> RuntimeInfo | None:
        """What `EDGEML_FPGA` says leads to an FPGA; None where it says nothing."""
        chosen = os.environ.get(VARIABLE, "")
        if not chosen or (chosen == KIND and shutil.which("verilator") is None):
            return None
        return RuntimeInfo(name=self.name, version=f"{VERSION_VALUE}.0", providers=(chosen,))

    def missing(self) -> str:
        """What of it is not here."""
        if os.environ.get(VARIABLE, "") == KIND:
            return "A simulated FPGA needs Verilator, and there is no program verilator."
        return f"{VARIABLE} does not name the way to an FPGA."

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a network for an FPGA; see `Runtime.load`."""
        return FpgaSession(model, options)


class FpgaSession:
    """A network on an engine. One sample at a time; outputs are fresh arrays."""

    def __init__(self, model: Path, options: SessionOptions) -> None:
        artifact = Artifact.load(model)
        provider = options.provider or os.environ.get(VARIABLE, "") or KIND
        self._host, self._program = artifact.host, artifact.program
        transport = _transport(provider, artifact, options)
        try:
            self._driver = Driver(transport, artifact.program, build=artifact.build)
        except BaseException:
            transport.close()
            raise
        self._provider = provider
        host = artifact.host
        self.inputs: tuple[TensorSpec, ...] = (
            TensorSpec(name=host.input_name, shape=(1, *host.input_shape), dtype="float32"),
        )
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec(
                name=host.output_name, shape=(1, *host.output_shape), dtype=host.output_dtype
            ),
        )

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference.

        Raises:
            ModelError: the tensors do not fit the model's input.
            DeviceError: the FPGA does not answer, and did not after it was loaded again.
        """
        if not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        codes = self._host.encode(inputs[0], self._program.input.shape)
        return [self._host.decode(self._driver.run(codes))[None]]

    @property
    def cycles(self) -> int:
        """Clocks that the engine took for the last inference."""
        return self._driver.cycles

    def placement(self) -> dict[str, int]:
        """How many layers run on the engine: all."""
        return {self._provider: self._program.layers}

    def close(self) -> None:
        """Let go of the engine."""
        self._driver.close()


def _transport(provider: str, artifact: Artifact, options: SessionOptions) -> Transport:
    way, _, place = provider.partition(":")
    if provider == KIND:
        folder = Path(options.compiled) if options.compiled else None
        return SimulatedEngine(artifact.size, build=artifact.build, cache_folder=folder)
    if way == "serial" and place:
        return open_serial(place)
    if way == "uio" and place:
        return MappedTransport(place)
    if way == "mem" and place:
        try:
            return MappedTransport("/dev/mem", int(place, 0))
        except ValueError:
            pass
    raise DeviceError(
        f"{provider} is no way to an FPGA.",
        fix=f"Say `{KIND}`, `serial:/dev/ttyUSB0`, `uio:/dev/uio0` or `mem:0x43c00000`.",
    )
