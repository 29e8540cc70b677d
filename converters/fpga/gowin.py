"""The backend `fpga-gowin`: as `fpga`, with the tools that make bitstreams for Gowin's FPGAs."""

from converters.fpga.backend import Fpga
from converters.fpga.commands import toolchain_of
from converters.fpga.settings import UNROLLER


class Gowin(Fpga):
    """The backend `fpga-gowin`."""

    name = "fpga-gowin"
    optional_toolchains: tuple[str, ...] = (toolchain_of("gowin"), UNROLLER)
