"""The engine in a LiteX SoC: one call adds it to the bus.

LiteX and migen are the SoC's, and are imported from there; edgeml does not install them:

    from hardware.fpga.litex import add_engine

    soc = BaseSoC(...)                      # of litex-boards, or your own
    add_engine(soc, artifact.size, origin=0x30000000)
    soc.add_etherbone(phy=soc.ethphy, ip_address="192.168.1.50")

A host then reaches it as `etherbone:192.168.1.50@0x30000000`, Linux on the SoC as
`mem:0x30000000`. The size is the one of the network's `.fpga` file, `Artifact.load(path).size`.
"""

import importlib
from importlib.resources import as_file, files
from typing import Any

from edgeml.errors import DeviceError
from hardware.fpga.program import Size
from hardware.fpga.registers import ADDRESS_BITS
from hardware.fpga.sources import ENGINE, build_of

WINDOW_BYTES = 4 << ADDRESS_BITS


def add_engine(soc: Any, size: Size, *, origin: int, name: str = "edgeml") -> None:
    """Add an engine of that size to a SoC as a subordinate of its bus.

    Args:
        soc: a LiteX `SoCCore` that is not finalized.
        size: of the engine.
        origin: its address on the bus, a multiple of 4 MB outside of the processor's cache.
        name: of the region in the SoC's maps.

    Raises:
        DeviceError: LiteX or migen is not installed here.
    """
    migen, wishbone, integration = _imported()
    bus = wishbone.Interface(data_width=32, adr_width=30, addressing="word")
    done, busy = migen.Signal(), migen.Signal()
    parameters = {f"p_{key}": value for key, value in size.parameters_of_verilog.items()}
    soc.specials += migen.Instance(
        "edgeml_engine",
        **parameters,
        p_BUILD=migen.Constant(int(build_of(size), 16), 128),
        i_clock=migen.ClockSignal("sys"),
        i_reset=migen.ResetSignal("sys"),
        i_cyc=bus.cyc,
        i_stb=bus.stb,
        i_we=bus.we,
        i_adr=bus.adr[:ADDRESS_BITS],
        i_dat_w=bus.dat_w,
        o_dat_r=bus.dat_r,
        o_ack=bus.ack,
        i_far_valid=0,
        i_far_data=0,
        o_busy=busy,
        o_done=done,
    )
    for source in ENGINE:
        with as_file(files("hardware.fpga") / "gateware" / source) as path:
            soc.platform.add_source(str(path))
    region = integration.SoCRegion(origin=origin, size=WINDOW_BYTES, cached=False)
    soc.bus.add_slave(name=name, slave=bus, region=region)
    soc.add_constant(f"{name.upper()}_BUILD", build_of(size))


def _imported() -> tuple[Any, Any, Any]:
    try:
        return (
            importlib.import_module("migen"),
            importlib.import_module("litex.soc.interconnect.wishbone"),
            importlib.import_module("litex.soc.integration.soc"),
        )
    except ImportError as error:
        raise DeviceError(
            "An engine cannot be added to a LiteX SoC here.",
            why=f"{error}.",
            fix="Run it where the SoC is built, with LiteX and edgeml: pip install litex edgeml",
        ) from error
