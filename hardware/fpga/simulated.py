"""The very gateware in Verilator as a transport: a simulated FPGA, and named so."""

from pathlib import Path

from hardware.capabilities import SIMULATED_FPGA
from hardware.fpga.dataflow import Dataflow
from hardware.fpga.far import FAR_BASE
from hardware.fpga.program import Size
from hardware.fpga.sources import AXI_ENGINE, ENGINE, FLASH_ENGINE, build_of, gateware
from hardware.fpga.verilated import VerilatedBus, compiled, default_folder

KIND = SIMULATED_FPGA
_TOPS: dict[str, tuple[tuple[str, ...], str]] = {
    "bus": ((), "edgeml_engine"),
    "axi": (AXI_ENGINE, "edgeml_axi_engine"),
    "flash": (FLASH_ENGINE, "edgeml_flash_engine"),
}


class SimulatedEngine(VerilatedBus):
    """An engine of that size.

    Args:
        size: of the engine.
        build: the 32 digits that it says of itself; those of its sources by default.
        folder: where the compiled model is kept; the user's cache by default.
        is_axi: it is reached over AXI4-Lite and not over Wishbone.
        far: what the flash holds, of an engine whose weights are there.
        is_quick: it runs for a moment, so that the compiler need not do its best.
    """

    def __init__(
        self,
        size: Size,
        *,
        build: str = "",
        cache_folder: Path | None = None,
        is_axi: bool = False,
        far: bytes = b"",
        is_quick: bool = False,
    ) -> None:
        kind = "axi" if is_axi else "flash" if far else "bus"
        names, top = _TOPS[kind]
        said = build or build_of(size, is_far=bool(far))
        parameters: dict[str, int | str] = {
            **size.parameters_of_verilog,
            **({"FAR_BASE": f"24'h{FAR_BASE:x}"} if far else {}),
            "BUILD": f"128'h{said}",
        }
        library = compiled(
            {name: gateware(name) for name in ENGINE + names},
            top,
            parameters,
            cache_folder or default_folder(),
            harness=kind,
            is_quick=is_quick,
        )
        super().__init__(library, KIND)
        if far:
            self.write_flash(FAR_BASE, far)


class SimulatedDataflow(VerilatedBus):
    """A net that was unrolled into logic, behind its registers."""

    def __init__(self, dataflow: Dataflow, *, cache_folder: Path | None = None) -> None:
        library = compiled(
            dataflow.gateware(),
            "edgeml_dataflow",
            dataflow.parameters_of_verilog,
            cache_folder or default_folder(),
            is_foreign=True,
            is_quick=True,  # logic of a net compiles for minutes otherwise, and runs for a moment
        )
        super().__init__(library, KIND)
