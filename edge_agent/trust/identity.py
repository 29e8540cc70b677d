"""Who this device is: `agent.toml`, its key and certificate, and whose word it takes."""

import contextlib
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.x509 import load_pem_x509_certificate

from cloud_sync.dating import wall_clock
from cloud_sync.messages import Enrolled, EnrollRequest, MqttAccess
from cloud_sync.release import write_atomically
from cloud_sync.release.blobs import sync_folder
from cloud_sync.trust import PrivateKey, PublicKey, key_id
from cloud_sync.trust.identity import certified_key, check_device_id, make_request, verify_issued
from cloud_sync.trust.keys import load_public, public_pem, split_pems
from cloud_sync.trust.tls import Now
from edge_agent.trust.key_store import KeyStore, key_store
from edgeml.errors import DeviceError, TrustError, UserError

_IDENTITY = "identity"
_DRAFT = ".enrolling"
BOOTSTRAP = "bootstrap.toml"  # of a first boot, where all that may be written is the data folder
_NOTHING = frozenset({_DRAFT, BOOTSTRAP, "lost+found"})


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[agent]` of `agent.toml`: identity, bootstrap, and what the machine may give.

    All but the first three may be left out. `nice` lowers the agent's priority (0 to 19), `cpus`
    are the cores that it may use (all by default), `memory_mb` is the resident memory above
    which it restarts its inference (0: no ceiling), `threads` fixes those of an inference (0: they
    are raced), and `spin` lets them spin while they wait: quicker, and a core held busy.
    `key_store` says where the device's key is (`edge_agent.trust.key_store`), `proxy` is the HTTP
    proxy through which everything but MQTT goes (`http://name:password@host:3128`), and `mirrors`
    are registries that are asked before the fleet's, after those of the configuration.
    """

    device: str
    data_dir: str
    fleet_url: str
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 0
    cpus: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    threads: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    spin: bool = False
    key_store: str = "file"
    proxy: str = ""
    mirrors: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What an enrolled device holds."""

    config: AgentConfig
    key: PrivateKey
    director_keys: dict[str, PublicKey]
    mqtt: MqttAccess
    enrolled_at: float  # by the fleet's clock: the first time that it has proven
    certificate: str = ""
    authorities: str = ""  # those that issue for the fleet's devices, PEM, the newest last
    root: bytes | None = None  # the TUF root it was enrolled with; None: releases are not signed

    @property
    def data(self) -> Path:
        """The device's data folder."""
        return Path(self.config.data_dir)

    @property
    def folder(self) -> Path:
        """Where the identity is, in the data folder."""
        return self.data / "identity"

    @property
    def store(self) -> KeyStore:
        """Where the key is kept."""
        return key_store(self.config.key_store, self.folder)

    @property
    def tls_files(self) -> tuple[Path, Path, Path]:
        """CA, certificate and key, for a broker that is reached over TLS."""
        folder = self.data / "identity"
        ca = folder / ("broker-ca.pem" if self.mqtt.ca else "ca.pem")
        return ca, folder / "device.pem", folder / "device.key"


def enroll_device(
    fleet_url: str,
    device: str,
    token: str,
    data: Path,
    *,
    now: Now | None = None,
    keys: str = "file",
) -> Path:
    """Enrol this device and write its identity; returns the path of `agent.toml`.

    Everything happens inside the folder, which may be a mount or one whose parent is not this
    user's; `agent.toml` appears last, and with it the device is enrolled. What can fail on this
    side is done before the one-time token is spent. Where the fleet's answer is lost, or this
    process ends, another attempt goes on with the same key.

    Args:
        fleet_url: the fleet's listener for devices.
        device: the device's id.
        token: the one-time token.
        data: a new folder, or an empty one; it is its owner's alone afterwards.
        now: the time by which the fleet's certificate is judged; by default the wall clock, and
            where that was never set its dates are not judged.
        keys: where the key is kept (`edge_agent.trust.key_store`).

    Raises:
        UserError: the folder holds an identity already, or cannot be made.
        DeviceError: the disk failed after the token was spent.
        TrustError: the fleet refused the token, or what it answered does not fit.
        RemoteError: the fleet cannot be reached.
    """
    # Late: the daemon reads its identity before its first inference, and enrols once in its life.
    from cloud_sync.device_api import enroll

    check_device_id(device)
    if _is_finished(data, device):
        return data / "agent.toml"
    draft = data / _DRAFT
    with _used(data):
        try:
            draft.mkdir(mode=0o700, exist_ok=True)
            store = key_store(keys, draft)
            key = store.next()
        except OSError as error:
            raise _unwritable(data, error) from error
        request = EnrollRequest(token=token, csr=make_request(device, key))
        answer = enroll(fleet_url, request, now or wall_clock)
        if verify_issued(answer.certificate, answer.ca) != answer.device or answer.device != device:
            raise TrustError("The fleet's answer does not fit.", why="It names another device.")
        load_public(answer.director_key)
        try:
            store.promote()
            _write(draft, data, fleet_url, answer, keys)
            os.replace(draft, data / _IDENTITY)
            _finish(data)
        except OSError as error:
            raise DeviceError(
                f"The identity cannot be written to {data}, and the token is spent.",
                why=f"{error.strerror}.",
                fix="Check the disk and enrol again, with the same token while it is good.",
            ) from error
    return data / "agent.toml"


def _is_finished(data: Path, device: str) -> bool:
    """Whether an enrolment that a crash cut short at its last step could be finished.

    Raises:
        UserError: the folder is another device's, has something else in it, or cannot be used.
    """
    try:
        if (data / _IDENTITY / "agent.toml").exists():
            if load_config(data / _IDENTITY / "agent.toml").device == device:
                _finish(data)
                return True
        elif not (data / "agent.toml").exists():
            if data.exists() and {path.name for path in data.iterdir()} - _NOTHING:
                raise UserError(
                    f"{data} is not empty.", fix="Name another folder with --data, or remove it."
                )
            return False
    except OSError as error:
        raise _unwritable(data, error) from error
    raise UserError(
        f"{data} holds an enrolled device already.",
        fix="Name another folder with --data, or remove this one.",
    )


def _finish(data: Path) -> None:
    """The last step of an enrolment."""
    os.replace(data / _IDENTITY / "agent.toml", data / "agent.toml")
    sync_folder(data)


@contextlib.contextmanager
def _used(data: Path) -> Iterator[None]:
    """Make the folder; where the block is refused all is as it was.

    Where it fails otherwise, the key is kept: the fleet may have issued for it.

    Raises:
        UserError: it cannot be made.
    """
    made = [path for path in (data, *data.parents) if not path.exists()]
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
    except OSError as error:
        raise _unwritable(data, error) from error
    try:
        yield
    except (UserError, TrustError):
        shutil.rmtree(data / _DRAFT, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        raise


def _unwritable(data: Path, error: OSError) -> UserError:
    return UserError(
        f"The folder {data} cannot be used.",
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
            f"There is no {config}.",
            why="This device is not enrolled, and there was no bootstrap file for a first boot.",
            fix="Enrol it: edgeml agent enroll --help",
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
    return read_identity(load_config(config))


def read_identity(agent: AgentConfig) -> Identity:
    """Read the identity of a configuration that is loaded.

    Raises:
        UserError: its key store cannot be used.
        TrustError: a key is missing, damaged or open to others.
    """
    folder = Path(agent.data_dir) / "identity"
    root = folder / "root.json"
    try:
        directors = _director_keys((folder / "director.pem").read_text())
        mqtt = msgspec.json.decode((folder / "mqtt.json").read_bytes(), type=MqttAccess)
        certificate = (folder / "device.pem").read_text()
        issued_at = load_pem_x509_certificate(certificate.encode()).not_valid_before_utc
        authorities = (folder / "ca.pem").read_text()
        signed_by = root.read_bytes() if root.exists() else None
    except (OSError, ValueError) as error:
        raise TrustError(
            f"The identity in {folder} cannot be read.", why=f"{error}.", fix="Enrol again."
        ) from None
    return Identity(
        config=agent,
        key=_key(key_store(agent.key_store, folder), certificate),
        director_keys=directors,
        mqtt=mqtt,
        enrolled_at=issued_at.timestamp(),
        certificate=certificate,
        authorities=authorities,
        root=signed_by,
    )


def save_authority(
    identity: Identity,
    keys: Mapping[str, PublicKey] | None = None,
    authorities: str = "",
    root: bytes | None = None,
) -> Identity:
    """Keep whose word this device takes from now on; what is not given stays.

    Args:
        identity: the one before.
        keys: the director's keys, by key id.
        authorities: the certificates of those that issue for the fleet's devices, PEM.
        root: the TUF root, JSON.

    Raises:
        OSError: the disk cannot be used.
    """
    folder = identity.folder
    if keys and set(keys) != set(identity.director_keys):
        pems = "".join(public_pem(key) for key in keys.values())
        write_atomically(folder / "director.pem", pems.encode(), 0o644)
        identity = msgspec.structs.replace(identity, director_keys=dict(keys))
    if authorities and authorities != identity.authorities:
        write_atomically(folder / "ca.pem", authorities.encode(), 0o644)
        identity = msgspec.structs.replace(identity, authorities=authorities)
    if root and identity.root is None:
        write_atomically(folder / "root.json", root, 0o644)
        identity = msgspec.structs.replace(identity, root=root)
    return identity


def save_broker(identity: Identity, told: MqttAccess) -> None:
    """Keep where the broker is, as a renewal tells it; the password, which that leaves out, stays.

    Raises:
        OSError: the disk cannot be used.
    """
    access = msgspec.structs.replace(told, password=told.password or identity.mqtt.password)
    if access != identity.mqtt:
        _write_broker(identity.folder, access)


def _write_broker(folder: Path, access: MqttAccess) -> None:
    if access.ca:
        write_atomically(folder / "broker-ca.pem", access.ca.encode(), 0o644)
    write_atomically(folder / "mqtt.json", msgspec.json.encode(access), 0o600)


def _director_keys(pems: str) -> dict[str, PublicKey]:
    keys = [load_public(pem) for pem in split_pems(pems) or [pems]]
    return {key_id(key): key for key in keys}


def _key(store: KeyStore, certificate: str) -> PrivateKey:
    """The key of the certificate: the next one, where a crash came between the two."""
    wanted = key_id(certified_key(certificate))
    key = store.load()
    if key_id(key.public_key()) == wanted:
        return key
    if key_id(store.next().public_key()) != wanted:
        raise TrustError(
            "The device's key is not that of its certificate.", fix="Enrol the device again."
        )
    store.promote()
    return store.load()


def _write(folder: Path, data: Path, fleet_url: str, answer: Enrolled, keys: str) -> None:
    write_atomically(folder / "device.pem", answer.certificate.encode(), 0o600)
    write_atomically(folder / "ca.pem", answer.ca.encode(), 0o644)
    write_atomically(folder / "director.pem", answer.director_key.encode(), 0o644)
    if answer.root:
        write_atomically(folder / "root.json", answer.root.encode(), 0o644)
    _write_broker(folder, answer.mqtt)
    config = AgentConfig(
        device=answer.device, data_dir=str(data.resolve()), fleet_url=fleet_url, key_store=keys
    )
    write_atomically(folder / "agent.toml", _toml(config).encode(), 0o644)


def _toml(config: AgentConfig) -> str:
    # A JSON string is a TOML basic string. What may be left out is.
    names = ["device", "data_dir", "fleet_url"]
    names += ["key_store"] if config.key_store != "file" else []
    fields = [(name, getattr(config, name)) for name in names]
    rows = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in fields]
    head = ["# Identity and bootstrap; all else comes from the fleet.", "[agent]"]
    return "\n".join([*head, *rows, ""])
