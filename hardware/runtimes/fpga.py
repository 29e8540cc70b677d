"""FPGAs as a runtime: networks on gateware of ours, behind a cable, in a SoC, or simulated.

The provider is the way to it: `simulated FPGA` (the very gateware in Verilator), or one of
`hardware.fpga.way`. `EDGEML_FPGA` names it: nothing on a machine tells of itself that such
gateware is behind it, so without it there is none.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeml.errors import DeviceError
from hardware.capabilities import RuntimeInfo
from hardware.fpga.artifact import Artifact, DataflowArtifact
from hardware.fpga.artifact import load as load_artifact
from hardware.fpga.control import TIMEOUT_S
from hardware.fpga.dataflow import DataflowDriver
from hardware.fpga.driver import Driver
from hardware.fpga.far import FAR_BASE
from hardware.fpga.program import Codes
from hardware.fpga.programmer import load_by_cable, load_by_manager
from hardware.fpga.registers import VERSION_VALUE
from hardware.fpga.simulated import KIND, SimulatedDataflow, SimulatedEngine
from hardware.fpga.transport import Transport
from hardware.fpga.turns import turn
from hardware.fpga.way import IN_A_SOC, open_way
from hardware.runtimes.formats import FPGA
from hardware.runtimes.interface import Session, SessionOptions, TensorSpec
from hardware.runtimes.refusal import fits, refused

NAME = "fpga"
VARIABLE = "EDGEML_FPGA"
_SETTLES_S = 10.0  # after which a board that was loaded must have its port again
_POLL_S = 0.2
_LONGEST = 20  # times what an inference takes
_SHORTEST_S = 2.0


class FpgaRuntime:
    """The runtime `fpga`; its version is that of the gateware's protocol."""

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
    """A network on an FPGA. An inference has one sample; outputs are fresh arrays.

    An FPGA that has other gateware than the network's, or none, is loaded with its bitstream where
    the file has one. After an error the next inference begins with a new connection, so that a
    cable may be plugged in again. Sessions that share an FPGA take turns, and each loads its own
    network when another's is in it.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self._artifact = load_artifact(model)
        self._provider = options.provider or os.environ.get(VARIABLE, "") or KIND
        self._models = Path(options.compiled) if options.compiled else None
        self._driver: Driver | DataflowDriver | None
        with turn(self._provider):
            self._driver = self._reached()
        host = self._artifact.host
        self.inputs: tuple[TensorSpec, ...] = (
            TensorSpec(name=host.input_name, shape=(1, *host.input_shape), dtype="float32"),
        )
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec(
                name=host.output_name, shape=(1, *host.output_shape), dtype=host.output_dtype
            ),
        )
        self.cycles = 0  # clocks of the last inference

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference.

        Raises:
            ModelError: the tensors do not fit the model's input.
            DeviceError: the FPGA does not answer, and did not after it was loaded again.
        """
        [answer] = self.stream([inputs])
        return answer

    def stream(self, samples: Iterable[Sequence[NDArray[Any]]]) -> Iterator[list[NDArray[Any]]]:
        """Run inferences one after the other; see `StreamingSession.stream`.

        Raises:
            ModelError: the tensors do not fit the model's input.
            DeviceError: as `run`.
        """
        with turn(self._provider):
            driver = self._driver = self._driver or self._reached()
            try:
                for made in driver.stream(map(self._codes, samples)):
                    self.cycles = driver.cycles
                    yield [self._artifact.host.decode(made)[None]]
            except DeviceError:
                self.close()
                raise

    def _codes(self, inputs: Sequence[NDArray[Any]]) -> Codes:
        if not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        return self._artifact.host.encode(inputs[0], _input_shape(self._artifact))

    def placement(self) -> dict[str, int]:
        """How many layers run on the FPGA: all; logic has no layers, and counts as one."""
        given = self._artifact
        return {self._provider: given.program.layers if isinstance(given, Artifact) else 1}

    def close(self) -> None:
        """Let go of the FPGA."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    def _reached(self) -> Driver | DataflowDriver:
        """Gateware that is the network's, loaded if need be."""
        try:
            return self._connected()
        except DeviceError:
            if self._provider == KIND or not self._artifact.bitstream:
                raise
        self._program()
        until = time.monotonic() + _SETTLES_S
        while time.monotonic() < until:
            with suppress(DeviceError):
                return self._connected()
            time.sleep(_POLL_S)
        return self._connected()

    def _connected(self) -> Driver | DataflowDriver:
        transport = self._opened()
        try:
            return _driver(transport, self._artifact)
        except BaseException:
            transport.close()
            raise

    def _opened(self) -> Transport:
        if self._provider != KIND:
            return open_way(self._provider)
        if isinstance(self._artifact, DataflowArtifact):
            return SimulatedDataflow(self._artifact.dataflow, cache_folder=self._models)
        return SimulatedEngine(
            self._artifact.size,
            build=self._artifact.build,
            cache_folder=self._models,
            far=self._artifact.program.far,
        )

    def _program(self) -> None:
        given = self._artifact
        if self._provider.startswith(IN_A_SOC):
            load_by_manager(given.bitstream)
            return
        if isinstance(given, Artifact) and given.program.far:
            load_by_cable(given.program.far, given.programmer, flash_offset=FAR_BASE)
        load_by_cable(given.bitstream, given.programmer)


def _driver(transport: Transport, artifact: Artifact | DataflowArtifact) -> Driver | DataflowDriver:
    if isinstance(artifact, DataflowArtifact):
        return DataflowDriver(transport, artifact.dataflow)
    timeout_s = TIMEOUT_S
    if artifact.clock_mhz and transport.kind != KIND:  # a simulation is slower than its clock
        timeout_s = max(_SHORTEST_S, _LONGEST * artifact.program.cycles / artifact.clock_mhz / 1e6)
    return Driver(transport, artifact.program, build=artifact.build, timeout_s=timeout_s)


def _input_shape(artifact: Artifact | DataflowArtifact) -> tuple[int, int, int]:
    if isinstance(artifact, DataflowArtifact):
        return artifact.dataflow.input_shape
    return artifact.program.input.shape
