"""What a device says it is: plain data, made by `hardware.probes`, read by everyone.

A device sends its capabilities in `hello`; the fleet plans with them and the agent resolves
with them. They hold facts that were probed, never opinions of what would fit.
"""

import msgspec

CAPABILITIES_VERSION = 1


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor. `features` are kernel flag names, lower case, sorted (`avx512_vnni`)."""

    model: str = ""
    cores: int = 1
    features: tuple[str, ...] = ()


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An installed runtime: its name (`onnxruntime`), exact version and providers."""

    name: str
    version: str
    providers: tuple[str, ...] = ()


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """An NPU or FPGA that the probe saw; `part` as the vendor writes it."""

    kind: str
    part: str
    driver: str = ""
    firmware: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """All that a device can do; `memory_bytes` is physical memory, 0 where unknown.

    `hardware_class` groups devices that should behave alike (`x86_64-avx512_vnni-2c`);
    gates are decided per class.
    """

    version: int = CAPABILITIES_VERSION
    os: str = "linux"
    architecture: str = "amd64"  # as in OCI: amd64, arm64
    hardware_class: str = "unknown"
    cpu: Cpu = Cpu()
    memory_bytes: int = 0
    runtimes: tuple[RuntimeInfo, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
