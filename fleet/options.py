"""How a fleet's process is to run, and whether that can be: checked before anything starts."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cloud_sync.address import is_loopback, require_private
from cloud_sync.mqtt_session import parse_url
from edgeml.errors import UserError
from fleet.db.database import sqlite_url
from fleet.external_registry import ExternalRegistry
from fleet.listeners import Listener, Tls, require_tls
from fleet.services.context import GRACE_S
from fleet.services.retention import Retention


class Part(StrEnum):
    """What a process of a fleet does; one process may do all of it."""

    API = "api"  # the listeners of operators and devices
    INGEST = "ingest"  # takes what devices send over MQTT
    CONTROLLER = "controller"  # stands for the lead: rollouts, and whatever one process does alone


EVERY_PART = frozenset(Part)


@dataclass(frozen=True)
class ExternalBroker:
    """A broker that somebody else runs; with mTLS the files speak instead of the password.

    `for_devices` is the address that devices are told, where they do not use the fleet's.
    """

    url: str
    username: str = ""
    password: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    for_devices: str = ""


@dataclass(frozen=True)
class Options:
    """How to run a fleet, or one process of it.

    `shared` says that there are other processes on the same folder and database; `public_url` is
    where operators reach any of them; `oidc` is the file of an OpenID provider to log in with;
    `registry` is where the one that leads pushes what is published.
    """

    data: Path
    operators: Listener
    devices: Listener
    mqtt: Listener
    tls: Tls | None = None
    external: ExternalBroker | None = None
    database_url: str = ""
    grace_s: float = GRACE_S
    keep: Retention = field(default_factory=Retention)
    parts: frozenset[Part] = EVERY_PART
    shared: bool = False
    public_url: str = ""
    oidc: Path | None = None
    registry: ExternalRegistry | None = None

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or sqlite_url(self.data / "fleet.db")


def check(options: Options) -> None:
    """Find out what cannot be.

    Raises:
        UserError: options do not go together.
    """
    if options.shared:
        _check_shared(options)
    if options.registry is not None:
        options.registry.check()
    if Part.API in options.parts:
        for listener in (options.operators, options.devices):
            require_tls(listener, options.tls)
    if options.external is None:
        if not is_loopback(options.mqtt.host):
            raise UserError(
                f"The embedded broker at {options.mqtt.address} was refused.",
                why="It speaks without TLS, and others could reach it.",
                fix="Run a broker with TLS, such as Mosquitto, and name it: --broker mqtts://HOST",
            )
        _check_reach(options, options.mqtt.host)
        return
    _check_broker(options, options.external)


def _check_shared(options: Options) -> None:
    if options.database.startswith("sqlite"):
        raise UserError(
            "One of several processes cannot use SQLite.",
            why="A SQLite file has one fleet, in one process: there is nothing to share the lead, "
            "and no way to tell other processes of a change.",
            fix="Name a PostgreSQL, --database postgresql+psycopg://HOST/NAME, "
            "or run all in one process: edgeml fleet up",
        )
    if options.external is None:
        raise UserError(
            "One of several processes needs a broker that all of them reach.",
            why="The embedded one is inside of `edgeml fleet up`.",
            fix="Name one: --broker mqtts://HOST. edgeml fleet broker-config writes its files.",
        )


def _check_broker(options: Options, external: ExternalBroker) -> None:
    host, _, secure = parse_url(external.url)
    require_private(external.url.partition(":")[0], host, of="broker")
    told = external.for_devices or external.url
    there, _, _ = parse_url(told)
    require_private(told.partition(":")[0], there, of="broker")
    if Part.API in options.parts:
        _check_reach(options, there)
    _check_broker_files(external, secure=secure)


def _check_reach(options: Options, broker_host: str) -> None:
    """Refuse to send devices elsewhere to a broker that only this machine reaches."""
    if is_loopback(broker_host) and not is_loopback(options.devices.host):
        raise UserError(
            f"The {options.devices.name} at {options.devices.address} was refused.",
            why=f"Devices on other machines would be told that MQTT is on {broker_host}, which is "
            "to each of them itself.",
            fix="Run a broker with TLS that they reach and name it, --broker mqtts://HOST, "
            "or listen on 127.0.0.1.",
        )


def _check_broker_files(external: ExternalBroker, *, secure: bool) -> None:
    files = [
        (option, path)
        for option, path in (
            ("--broker-ca", external.ca),
            ("--broker-cert", external.certificate),
            ("--broker-key", external.key),
        )
        if path is not None
    ]
    if files and not secure:
        raise UserError(
            f"{files[0][0]} and the broker {external.url} do not go together.",
            why=f"{external.url.partition(':')[0]}:// speaks without TLS.",
            fix="Use mqtts:// or wss://.",
        )
    if (external.certificate is None) != (external.key is None):
        raise UserError(
            "The fleet's certificate for the broker and its key belong together.",
            fix="Give --broker-cert and --broker-key.",
        )
    for option, path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read.",
                why=f"{error.strerror or error}.",
                fix=f"Name another file with {option}.",
            ) from None
