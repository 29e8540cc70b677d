"""Who this device is: `agent.toml`, its key and certificate, and whose word it takes."""

import contextlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.x509 import load_pem_x509_certificate

from cloud_sync.device_api import enroll
from cloud_sync.messages import Enrolled, EnrollRequest, MqttAccess
from cloud_sync.release import write_atomically
from cloud_sync.release.blobs import sync_folder
from cloud_sync.trust import PrivateKey, PublicKey, generate, key_id, load_key, save_key
from cloud_sync.trust.identity import check_device_id, make_request, verify_issued
from cloud_sync.trust.keys import load_public
from edgeml.errors import DeviceError, TrustError, UserError


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[agent]` of `agent.toml`: identity, bootstrap, and what the machine may give.

    All but the first three may be left out. `nice` lowers the agent's priority (0 to 19), `cpus`
    are the cores that it may use (all by default), `memory_mb` is the resident memory above
    which it restarts its inference (0: no ceiling), `threads` fixes those of an inference (0: they
    are raced), and `spin` lets them spin while they wait: quicker, and a core held busy.
    """

    device: str
    data_dir: str
    fleet_url: str
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 0
    cpus: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    spin: bool = False


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What an enrolled device holds."""

    config: AgentConfig
    key: PrivateKey
    director_keys: dict[str, PublicKey]
    mqtt: MqttAccess
    enrolled_at: float  # by the fleet's clock: the first time that it has proven
    root: bytes | None = None  # the TUF root it was enrolled with; None: releases are not signed

    @property
    def data(self) -> Path:
        """The device's data folder."""
        return Path(self.config.data_dir)

    @property
    def tls_files(self) -> tuple[Path, Path, Path]:
        """CA, certificate and key, for a broker that is reached over TLS."""
        folder = self.data / "identity"
        ca = folder / ("broker-ca.pem" if self.mqtt.ca else "ca.pem")
        return ca, folder / "device.pem", folder / "device.key"


def enroll_device(fleet_url: str, device: str, token: str, data: Path) -> Path:
    """Enrol this device and write its identity; returns the path of `agent.toml`.

    The folder appears whole or not at all. All that can fail on this side, the folder and the
    key in it, is done before the one-time token is spent.

    Raises:
        UserError: the folder holds an identity already, or cannot be made.
        DeviceError: the disk failed after the token was spent.
        TrustError: the fleet refused the token, or what it answered does not fit.
        RemoteError: the fleet cannot be reached.
    """
    check_device_id(device)
    _require_free(data)
    with _new_folder(data) as beside:
        key = generate()
        try:
            (beside / "identity").mkdir(mode=0o700)
            save_key(key, beside / "identity" / "device.key")
        except OSError as error:
            raise _unwritable(data, error) from error
        answer = enroll(fleet_url, EnrollRequest(token=token, csr=make_request(device, key)))
        if verify_issued(answer.certificate, answer.ca) != answer.device or answer.device != device:
            raise TrustError("The fleet's answer does not fit.", why="It names another device.")
        load_public(answer.director_key)
        try:
            _write(beside, data, fleet_url, answer)
            os.replace(beside, data)
            sync_folder(data.parent)
        except OSError as error:
            raise DeviceError(
                f"The identity cannot be written to {data}, and the token is spent.",
                why=f"{error.strerror}.",
                fix="Check the disk; make another token: edgeml fleet enroll --help",
            ) from error
    return data / "agent.toml"


def _require_free(data: Path) -> None:
    try:
        if (data / "agent.toml").exists():
            raise UserError(
                f"{data} holds an enrolled device already.",
                fix="Name another folder with --data, or remove this one.",
            )
        if data.exists() and any(data.iterdir()):
            raise UserError(f"{data} is not empty.", fix="Name another folder with --data.")
    except OSError as error:
        raise _unwritable(data, error) from error


@contextlib.contextmanager
def _new_folder(data: Path) -> Iterator[Path]:
    """A folder beside `data`, whose place is free; where the block fails all is as it was.

    Raises:
        UserError: it cannot be made.
    """
    parents = [path for path in data.parents if not path.exists()]
    empty = data.exists()
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=data.parent, prefix=f".{data.name}."))
        try:
            if empty:
                data.rmdir()  # one that is mounted cannot be replaced
        except OSError:
            beside.rmdir()
            raise
    except OSError as error:
        raise _unwritable(data, error) from error
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        with contextlib.suppress(OSError):
            if empty:
                data.mkdir()
            for path in parents:
                path.rmdir()
        raise


def _unwritable(data: Path, error: OSError) -> UserError:
    return UserError(
        f"The folder {data} cannot be made.",
        why=f"{error.strerror}.",
        fix="Name another folder with --data; the token is not spent.",
    )


def load_config(config: Path) -> AgentConfig:
    """Read `agent.toml`.

    Raises:
        UserError: it is missing or wrong.
    """
    try:
        tree = tomllib.loads(config.read_text())
        return msgspec.convert(tree["agent"], AgentConfig)
    except FileNotFoundError:
        raise UserError(
            f"There is no {config}.", fix="Enrol first: edgeml agent enroll --help"
        ) from None
    except KeyError:
        raise UserError(f"{config} cannot be used.", why="It has no table [agent].") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{config} cannot be used.", why=f"{error}.") from None


def load_identity(config: Path) -> Identity:
    """Read an enrolled device's identity.

    Raises:
        UserError: the configuration is missing or wrong.
        TrustError: a key is missing, damaged or open to others.
    """
    agent = load_config(config)
    data = Path(agent.data_dir)
    folder = data / "identity"
    root = folder / "root.json"
    try:
        director = load_public((folder / "director.pem").read_text())
        mqtt = msgspec.json.decode((folder / "mqtt.json").read_bytes(), type=MqttAccess)
        certificate = load_pem_x509_certificate((folder / "device.pem").read_bytes())
        signed_by = root.read_bytes() if root.exists() else None
    except (OSError, ValueError) as error:
        raise TrustError(
            f"The identity in {folder} cannot be read.", why=f"{error}.", fix="Enrol again."
        ) from None
    return Identity(
        config=agent,
        key=load_key(folder / "device.key"),
        director_keys={key_id(director): director},
        mqtt=mqtt,
        enrolled_at=certificate.not_valid_before_utc.timestamp(),
        root=signed_by,
    )


def _write(beside: Path, data: Path, fleet_url: str, answer: Enrolled) -> None:
    folder = beside / "identity"
    write_atomically(folder / "device.pem", answer.certificate.encode(), 0o600)
    write_atomically(folder / "ca.pem", answer.ca.encode(), 0o644)
    write_atomically(folder / "director.pem", answer.director_key.encode(), 0o644)
    if answer.mqtt.ca:
        write_atomically(folder / "broker-ca.pem", answer.mqtt.ca.encode(), 0o644)
    if answer.root:
        write_atomically(folder / "root.json", answer.root.encode(), 0o644)
    write_atomically(folder / "mqtt.json", msgspec.json.encode(answer.mqtt), 0o600)
    config = AgentConfig(device=answer.device, data_dir=str(data.resolve()), fleet_url=fleet_url)
    write_atomically(beside / "agent.toml", _toml(config).encode(), 0o644)


def _toml(config: AgentConfig) -> str:
    # A JSON string is a TOML basic string. What may be left out is.
    fields = [(name, getattr(config, name)) for name in ("device", "data_dir", "fleet_url")]
    rows = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in fields]
    head = ["# Identity and bootstrap; all else comes from the fleet.", "[agent]"]
    return "\n".join([*head, *rows, ""])
