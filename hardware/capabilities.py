"""What a device says it is: plain data, made by `hardware.probes`, read by everyone.

A device sends its capabilities in `hello`; the fleet plans with them and the agent resolves
with them. They hold facts that were probed, never opinions of what would fit.
"""

import msgspec

CAPABILITIES_VERSION = 1
SIMULATED_FPGA = "simulated FPGA"  # the way to an FPGA that is gateware in Verilator


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor. `features` are kernel flag names, lower case, sorted (`avx512_vnni`).

    `kinds` names the cores where they are Arm's (`4 x Cortex-A76`), `max_mhz` is the highest
    clock, 0 where unknown.
    """

    model: str = ""
    cores: int = 1
    features: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    max_mhz: int = 0


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An installed runtime: its name (`onnxruntime`), exact version and providers."""

    name: str
    version: str
    providers: tuple[str, ...] = ()


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """An NPU, GPU or FPGA that the probe saw, or a cable that programs FPGAs.

    `kind` is `npu`, `gpu`, `fpga` or `fpga-programmer`; `driver` has its version where the kernel
    tells it, `path` is the device node (`/dev/ethosu0`), empty where there is none. Parts that run
    the same compiled files share an `architecture` (`hexagon-v73`), empty where it is not known.
    """

    kind: str
    part: str
    architecture: str = ""
    driver: str = ""
    firmware: str = ""
    path: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """All that a device can do; `memory_bytes` is physical memory, 0 where unknown.

    `hardware_class` groups devices that should behave alike (`x86_64-avx512_vnni-2c`; with
    an FPGA `x86_64-avx2-4c-LFE5U-25F`, with a simulated one `-LFE5U-25F-simulated`); gates are
    decided per class.
    """

    version: int = CAPABILITIES_VERSION
    os: str = "linux"
    architecture: str = "amd64"  # as in OCI: amd64, arm64
    hardware_class: str = "unknown"
    cpu: Cpu = Cpu()
    memory_bytes: int = 0
    runtimes: tuple[RuntimeInfo, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    board: str = ""
    kernel: str = ""
    thermal_zones: tuple[str, ...] = ()
