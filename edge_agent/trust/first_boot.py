"""A first boot without hands: the agent finds a bootstrap file, enrols with it, and removes it.

The file is on the disk image, in the data folder, or on the boot partition: `/boot/edgeml.toml`.
One image may serve many boards: a device named `cam-*` there gets its board's serial number for the
`*`. Without a network the agent waits; a clock that was never set, or that contradicts the file,
does not keep it out (docs/enrolment.md).
"""

import logging
import os
import random
import re
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.trust.identity import BOOTSTRAP, enroll_device
from edgeml.errors import DeviceError, RemoteError, UserError

log = logging.getLogger(__name__)

VARIABLE = "EDGEML_BOOTSTRAP"
PLACES = ("/boot/edgeml.toml", "/boot/firmware/edgeml.toml", "/etc/edgeml/bootstrap.toml")
PAUSE_S = (2.0, 60.0)
_SERIALS = (
    "/sys/firmware/devicetree/base/serial-number",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
)
_NETWORKS = Path("/sys/class/net")
_NO_SERIALS = frozenset(
    {"", "0", "none", "default-string", "to-be-filled-by-o.e.m", "system-serial-number"}
)


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[bootstrap]`; times are the fleet's, in Unix seconds."""

    fleet: str
    device: str
    token: str
    made_at: float
    expires_at: float
    key_store: str = "file"

    def clock(self) -> float | None:
        """The wall clock, where it can be right: between the file's making and its end."""
        now = time.time()
        return now if self.made_at <= now <= self.expires_at else None


def find(data: Path) -> Path | None:
    """The bootstrap file of this machine, if there is one; in its data folder first."""
    named = os.environ.get(VARIABLE)
    places = [Path(named)] if named else [data / BOOTSTRAP, *map(Path, PLACES)]
    return next((path for path in places if path.is_file()), None)


def enroll_from_file(
    config: Path, file: Path, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Enrol with a bootstrap file, for as long as it takes to reach the fleet, and remove it.

    Args:
        config: where `agent.toml` shall be; its folder is the data folder.
        file: the bootstrap file.
        sleep: waits between attempts; may raise to stop.

    Raises:
        UserError: the file cannot be used, or the folder is taken.
        TrustError: the fleet refused the token.
        DeviceError: this machine has no serial number to be named by.
    """
    wanted = read(file)
    device = name_of(wanted.device)
    pause = PAUSE_S[0]
    while True:
        try:
            enroll_device(
                wanted.fleet,
                device,
                wanted.token,
                config.resolve().parent,
                now=wanted.clock,
                keys=wanted.key_store,
            )
            break
        except RemoteError as error:
            log.warning("not enrolled yet: %s", error)
            sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads load, guards nothing
            pause = min(pause * 2, PAUSE_S[1])
    log.info("%s is enrolled", device)
    forget(file)


def forget(file: Path) -> None:
    """Remove a bootstrap file, its token overwritten first; a read-only one is left, and said."""
    try:
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.write(b"#" * size)
            stream.flush()
            os.fsync(stream.fileno())
        file.unlink()
    except OSError as error:
        log.warning("the bootstrap file %s cannot be removed: %s", file, error.strerror)


def read(file: Path) -> Bootstrap:
    """Read a bootstrap file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        return msgspec.convert(tomllib.loads(file.read_text())["bootstrap"], Bootstrap)
    except KeyError:
        raise UserError(f"{file} cannot be used.", why="It has no table [bootstrap].") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be used.",
            why=f"{error}.",
            fix="Make it with: edgeml devices bootstrap --help",
        ) from None


def name_of(device: str, root: Path = Path("/")) -> str:
    """A device's id: as it stands, or with this machine's serial number for a `*` at its end.

    Raises:
        DeviceError: this machine has none.
    """
    if not device.endswith("*"):
        return device
    candidates = (_text(root / place.lstrip("/")) for place in _SERIALS)
    addresses = (_text(path / "address") for path in _interfaces(root))
    for found in (*candidates, *addresses):
        serial = re.sub(r"[^a-z0-9.]+", "-", found.lower()).strip("-.")
        if serial not in _NO_SERIALS and serial.strip("0-:"):
            return f"{device[:-1]}{serial}"[:64]
    raise DeviceError(
        "This machine was not enrolled.",
        why="It has neither a serial number nor a network card to be named by.",
        fix="Write its own id into the bootstrap file.",
    )


def _interfaces(root: Path) -> list[Path]:
    """The machine's own network cards: what is made by software has no device behind it."""
    folder = root / _NETWORKS.relative_to("/")
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if (path / "device").exists()]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""
