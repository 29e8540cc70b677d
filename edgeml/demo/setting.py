"""Where the demo plays: its ports, its cameras and its folder, checked before anything starts."""

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from edgeml.errors import UserError


@dataclass(frozen=True)
class Ports:
    """Where the demo listens, on loopback."""

    console: int
    devices: int
    mqtt: int


@dataclass(frozen=True)
class Camera:
    """One device of the demo and the light in which its belt runs.

    `fps` is how many frames a second it sees, 0 for all; `environment` is set for its agent.
    """

    device: str
    site: str
    light: float
    noise: float
    seed: int
    fps: float = 0.0
    environment: tuple[tuple[str, str], ...] = ()


CAMERAS = (
    Camera("cam-1", "north", light=1.0, noise=4.0, seed=1),
    Camera("cam-2", "north", light=0.8, noise=6.0, seed=2),
    Camera("cam-3", "south", light=0.9, noise=8.0, seed=3),
)


def find_examples() -> Path:
    """The folder `examples/digits` of the clone that edgeml is installed from.

    Raises:
        UserError: edgeml was installed without its repository.
    """
    folder = Path(__file__).resolve().parents[2] / "examples" / "digits"
    if not (folder / "digits.onnx").is_file():
        raise UserError(
            "The demo's example model was not found.",
            why=f"There is no {folder / 'digits.onnx'}.",
            fix="Run the demo from a clone of the repository: make demo",
        )
    return folder


def check_ports(ports: Ports) -> None:
    """Find out before anything starts whether a port is taken.

    Raises:
        UserError: names the port and the option that changes it.
    """
    options = (
        ("--port", ports.console),
        ("--device-port", ports.devices),
        ("--mqtt-port", ports.mqtt),
    )
    for option, port in options:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise UserError(
                    f"The demo cannot listen on port {port}.",
                    why=f"{error.strerror}.",
                    fix=f"End what uses it, or choose another one: {option} {port + 1000}",
                ) from None


def prepare_folder(folder: Path) -> None:
    """Empty the demo's own folder, and only that.

    Raises:
        UserError: the folder holds something that no demo wrote.
    """
    marker = folder / ".edgeml-demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise UserError(
            f"{folder} is not empty and was not made by the demo.",
            fix="Name another folder with --dir.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()
