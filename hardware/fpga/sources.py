"""The gateware's files, and the digits that tell one gateware from all others."""

import hashlib
from functools import cache
from importlib.resources import files

from hardware.fpga.program import Size

ENGINE = (
    "edgeml_engine.v",
    "edgeml_lanes.v",
    "edgeml_memory.v",
    "edgeml_requantize.v",
    "edgeml_sequencer.v",
)
DATAFLOW = ("edgeml_dataflow.v",)
LINK = ("edgeml_bridge.v", "edgeml_link.v", "edgeml_spi.v", "edgeml_uart.v")
SERIAL_ENGINE = (*LINK, "edgeml_serial_engine.v")
SERIAL_DATAFLOW = (*LINK, "edgeml_serial_dataflow.v")
FLASH_ENGINE = ("edgeml_flash.v", "edgeml_flash_engine.v")
SERIAL_FLASH_ENGINE = (*LINK, *FLASH_ENGINE, "edgeml_serial_flash_engine.v")
AXI_ENGINE = ("edgeml_axi_engine.v", "edgeml_axi_lite.v")


@cache
def gateware(name: str) -> str:
    """The text of one of the gateware's files."""
    return (files("hardware.fpga") / "gateware" / name).read_text("utf-8")


def digits(*parts: str) -> str:
    """The 32 hexadecimal digits that gateware made of these texts says of itself."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def build_of(size: Size, *, is_far: bool = False) -> str:
    """The digits of an engine of that size; `is_far` where its weights are in a flash."""
    names = ENGINE + FLASH_ENGINE * is_far
    sources = hashlib.sha256("".join(gateware(name) for name in names).encode()).hexdigest()
    return digits(f"{sources} {size}")
