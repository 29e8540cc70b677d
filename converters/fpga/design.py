"""Gateware as synthesis takes it: an engine, or a net that was unrolled, behind the same bus."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from hardware.fpga.dataflow import Dataflow, DataflowDriver
from hardware.fpga.driver import Driver
from hardware.fpga.far import FAR_BASE
from hardware.fpga.program import Codes, Program, Size
from hardware.fpga.sources import (
    ENGINE,
    SERIAL_DATAFLOW,
    SERIAL_ENGINE,
    SERIAL_FLASH_ENGINE,
    build_of,
    gateware,
)
from hardware.fpga.transport import Transport

_LARGE = ("weights", "activations")
_HUNG_S = 3600.0  # a simulated netlist is slow: what hangs is found by its clocks


class Runner(Protocol):
    """A driver with a network in it."""

    cycles: int

    def run(self, codes: Codes) -> Codes:
        """One inference, [height, width, channels] to the like."""
        ...

    def stream(self, samples: Iterable[Codes]) -> Iterator[Codes]:
        """Inferences one after the other."""
        ...

    def close(self) -> None:
        """Let go of the gateware."""
        ...


@dataclass(frozen=True, eq=False)
class Design:
    """Verilog, and what of it is what.

    Attributes:
        sources: by file name.
        with_pins: the module that has a UART or SPI.
        with_bus: the module in it that has the bus.
        parameters: of both, as Verilog's constants.
        build: the 32 digits that the gateware says of itself.
        driver: loads the network into the gateware behind a transport.
        far: what a serial flash outside of the FPGA holds, where there is one.
    """

    sources: Mapping[str, str]
    with_pins: str
    with_bus: str
    parameters: Mapping[str, int | str]
    build: str
    driver: Callable[[Transport], Runner]
    far: bytes = b""


def engine(program: Program, size: Size, large: Collection[str] = ()) -> Design:
    """An engine of a size, with a program; `large` memories go to iCE40's single-port RAM."""
    is_far = bool(program.far)
    build = build_of(size, is_far=is_far)
    pins = SERIAL_FLASH_ENGINE if is_far else SERIAL_ENGINE
    base: dict[str, int | str] = {"FAR_BASE": f"24'h{FAR_BASE:x}"} if is_far else {}
    places = {f"{name.upper()}_ARE_LARGE": int(name in large) for name in _LARGE}
    return Design(
        sources={name: gateware(name) for name in (*ENGINE, *pins)},
        with_pins="edgeml_serial_flash_engine" if is_far else "edgeml_serial_engine",
        with_bus="edgeml_flash_engine" if is_far else "edgeml_engine",
        parameters={**size.parameters_of_verilog, **places, **base, "BUILD": f"128'h{build}"},
        build=build,
        driver=lambda transport: Driver(transport, program, build=build, timeout_s=_HUNG_S),
        far=program.far,
    )


def unrolled(dataflow: Dataflow) -> Design:
    """A net's own logic."""
    return Design(
        sources={**dataflow.gateware(), **{name: gateware(name) for name in SERIAL_DATAFLOW}},
        with_pins="edgeml_serial_dataflow",
        with_bus="edgeml_dataflow",
        parameters=dataflow.parameters_of_verilog,
        build=dataflow.build,
        driver=lambda transport: DataflowDriver(transport, dataflow, timeout_s=_HUNG_S),
    )
