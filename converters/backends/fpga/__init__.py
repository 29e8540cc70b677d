"""Targets and toolchains of FPGAs; what makes files for them is `converters.fpga`."""
