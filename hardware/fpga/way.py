"""The ways to an FPGA, by the name that a device's owner gives: `serial:/dev/ttyUSB0` and such."""

from collections.abc import Callable

from edgeml.errors import DeviceError
from hardware.fpga.etherbone import PORT, EtherboneTransport
from hardware.fpga.mapped import MappedTransport
from hardware.fpga.serial import open_serial
from hardware.fpga.simulated import KIND
from hardware.fpga.spidev import SPEED_HZ, open_spi
from hardware.fpga.transport import Transport


def _serial(place: str, more: str) -> Transport:
    return open_serial(place, int(more)) if more else open_serial(place)


def _spi(place: str, more: str) -> Transport:
    return open_spi(place, int(more or SPEED_HZ))


def _uio(place: str, more: str) -> Transport:
    return MappedTransport(place, int(more or "0", 0))


def _mem(place: str, _: str) -> Transport:
    return MappedTransport("/dev/mem", int(place, 0))


def _etherbone(place: str, more: str) -> Transport:
    host, _, port = place.partition(":")
    return EtherboneTransport(host, int(more or "0", 0), port=int(port or PORT))


_WAYS: dict[str, Callable[[str, str], Transport]] = {
    "serial": _serial,
    "spi": _spi,
    "uio": _uio,
    "mem": _mem,
    "etherbone": _etherbone,
}
IN_A_SOC = ("uio:", "mem:")  # whose bitstream the kernel loads


def open_way(provider: str) -> Transport:
    """Open the way that a provider names: `kind:place`, or `kind:place@more`.

    What is more is the baud rate, the clock of SPI in Hz, or the engine's address on the bus.

    Raises:
        DeviceError: it is none, or cannot be opened.
    """
    kind, _, rest = provider.partition(":")
    place, _, more = rest.partition("@")
    if kind in _WAYS and place:
        try:
            return _WAYS[kind](place, more)
        except ValueError:  # a number that is none
            pass
    raise DeviceError(
        f"{provider} is no way to an FPGA.",
        fix=f"Say `{KIND}`, `serial:/dev/ttyUSB0`, `spi:/dev/spidev0.0`, `uio:/dev/uio0`, "
        "`mem:0x43c00000` or `etherbone:192.168.1.50@0x30000000`.",
    )
