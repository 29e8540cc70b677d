"""`edgeml fleet up`: the whole fleet in one process.

Listeners for operators and devices, the embedded broker, ingest and the rollout controller.
Everything that can be wrong is found out before anything starts; what is started is stopped in
the reverse order. All state is in the data folder, so a restart, or `kill -9` and a restart,
goes on where it was.
"""

import asyncio
import contextlib
import datetime as dt
import fcntl
import hmac
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

from sqlalchemy.exc import SQLAlchemyError

from cloud_sync.address import is_loopback, require_private
from cloud_sync.mqtt_session import MqttSession, parse_url
from cloud_sync.trust.keys import split_pems
from edgeml.errors import EdgemlError, TrustError, UserError
from fleet import broker, console
from fleet.access import Access
from fleet.controller import Controller
from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.device_app import device_app
from fleet.incarnation import HeadFile
from fleet.ingest import Ingest, subscriptions
from fleet.keys import load_or_create
from fleet.listeners import Listener, Tls, check_free, require_tls, take
from fleet.operator_app import operator_app
from fleet.registry import Registry
from fleet.services import (
    decommission,
    enrollment,
    identity,
    recovery,
    reported,
    retention,
    revoked,
    trust,
)
from fleet.services.context import GRACE_S, Services
from fleet.services.deltas import DeltaMaker
from fleet.services.retention import Retention
from fleet.serving import Limits, served
from fleet.trust import Repository

_LOG = logging.getLogger(__name__)
_BUS_PATIENCE_S = 10.0
_FORGET_EVERY_S = 600.0
_END_EVERY_S = 2.0
_RENEW_EVERY_S = 600.0
OPERATORS = Limits(bodies=False)
DEVICES = Limits(bodies=True)


@dataclass(frozen=True)
class ExternalBroker:
    """A broker that somebody else runs; with mTLS the files speak instead of the password."""

    url: str
    username: str = ""
    password: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Options:
    """How to run a fleet."""

    data: Path
    operators: Listener
    devices: Listener
    mqtt: Listener
    tls: Tls | None = None
    external: ExternalBroker | None = None
    database_url: str = ""
    grace_s: float = GRACE_S
    keep: Retention = field(default_factory=Retention)


@dataclass(frozen=True)
class Running:
    """A fleet that is up: where it is, and what it works on."""

    services: Services
    access: Access
    controller: Controller
    console_url: str
    device_url: str
    mqtt_url: str


class BrokerAccounts:
    """Who may connect to the embedded broker: enrolled devices, and the fleet itself."""

    def __init__(self, database: Callable[[str, str], bool]) -> None:
        self._is_device = database
        self.password = secrets.token_urlsafe(32)

    def check(self, username: str, password: str) -> bool:
        """Whether a name and a password belong together."""
        if username == broker.SUPERUSER:
            return hmac.compare_digest(password.encode(), self.password.encode())
        return self._is_device(username, password)


def serve(options: Options, on_up: Callable[[Running], None]) -> None:
    """Run the fleet until SIGINT or SIGTERM.

    Args:
        options: how.
        on_up: called once, when everything answers.

    Raises:
        UserError: an option is wrong, or a port or the folder is in use.
        TrustError: a key can be read by others or is damaged, or the broker's certificate is
            not one of the named CA for the named host.
    """
    asyncio.run(_until_signal(options, on_up))


async def _until_signal(options: Options, on_up: Callable[[Running], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(options, stop) as fleet:
        on_up(fleet)
        await stop.wait()
        _LOG.info("stopping")


@asynccontextmanager
async def running(options: Options, stop: asyncio.Event) -> AsyncIterator[Running]:
    """A fleet that is up within the block; `stop` is set when a part of it has failed."""
    _check_options(options)
    async with AsyncExitStack() as stack:
        stack.enter_context(_locked(options.data))
        sockets = stack.enter_context(_listening(options))
        services = stack.enter_context(_services(options, sockets))
        accounts = BrokerAccounts(lambda name, word: _is_device(services, name, word))
        if options.external is None:
            host, port, _ = parse_url(services.mqtt_url)
            embedded = await broker.start(host, port, accounts)
            stack.push_async_callback(embedded.stop)
            services.replaced.tell(embedded.disconnect)
            reported.all_offline(services)
        ingest = Ingest(services)
        ingest.start()
        stack.push_async_callback(asyncio.to_thread, ingest.stop)
        bus = _bus(options, services, accounts, ingest)
        bus.start()
        services.publisher.attach(bus)
        stack.push_async_callback(asyncio.to_thread, bus.close)
        controller = Controller(services)
        controller.start()
        stack.push_async_callback(asyncio.to_thread, controller.stop)
        deltas = DeltaMaker(services)
        deltas.start()
        stack.push_async_callback(asyncio.to_thread, deltas.stop)
        forgetting = asyncio.create_task(_forget(services, options.keep))
        stack.callback(forgetting.cancel)
        ending = asyncio.create_task(_end_service(services))
        stack.callback(ending.cancel)
        signing = asyncio.create_task(_keep_signed(services))
        stack.callback(signing.cancel)
        access = Access(services)
        apps = (operator_app(services, access, console.mount), device_app(services, ingest))
        for app, taken, limits in zip(apps, sockets, (OPERATORS, DEVICES), strict=True):
            await stack.enter_async_context(served(app, taken, options.tls, stop, limits))
        await _bus_ready(bus, stop)
        scheme = "https" if options.tls else "http"
        yield Running(
            services=services,
            access=access,
            controller=controller,
            console_url=services.console_url,
            device_url=f"{scheme}://{_address(options.devices, sockets[1])}",
            mqtt_url=services.mqtt_url,
        )


def _check_options(options: Options) -> None:
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
    host, _, secure = parse_url(options.external.url)
    require_private(options.external.url.partition(":")[0], host, of="broker")
    _check_reach(options, host)
    _check_broker_files(options.external, secure=secure)


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


def broker_ca(external: ExternalBroker | None, own: str) -> str:
    """The authority that vouches for the broker, for devices to trust it, too.

    Empty where it is the fleet's own: devices follow that by TUF when it rotates.
    """
    named = external.ca.read_text() if external and external.ca else ""
    return "" if set(split_pems(named)) <= set(split_pems(own)) else named


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Keep a second fleet off the same folder; the lock goes with the process."""
    try:
        data.mkdir(parents=True, mode=0o700, exist_ok=True)
        lock = (data / "fleet.lock").open("w")
    except OSError as error:
        raise UserError(
            f"The fleet's data folder {data} cannot be used.",
            why=f"{error.strerror}: {error.filename}.",
            fix="Name another folder with --data, or mend its rights.",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"A fleet is already up on {data}.",
                fix="Stop it, or name another folder with --data.",
            ) from None
        yield


@contextmanager
def _listening(options: Options) -> Iterator[tuple[socket, socket]]:
    with ExitStack() as stack:
        operators = stack.enter_context(contextlib.closing(take(options.operators)))
        devices = stack.enter_context(contextlib.closing(take(options.devices)))
        yield operators, devices


@contextmanager
def _services(options: Options, sockets: tuple[socket, socket]) -> Iterator[Services]:
    data = options.data
    if options.external is None:
        port = check_free(options.mqtt)
        mqtt_url = f"mqtt://{options.mqtt.host}:{port}"
    else:
        mqtt_url = options.external.url
    fresh = not (data / "keys").exists()
    keys = load_or_create(data, dt.datetime.now(dt.UTC))
    database = Database(options.database_url or sqlite_url(data / "fleet.db"))
    try:
        upgrade(database)
        scheme = "https" if options.tls else "http"
        services = Services(
            database=database,
            keys=keys,
            registry=Registry(data / "registry"),
            head=HeadFile(data / "keys" / "head.json"),
            trust=Repository(data / "trust", time.time),
            mqtt_url=mqtt_url,
            mqtt_ca=broker_ca(options.external, keys.authorities),
            console_url=f"{scheme}://{_address(options.operators, sockets[0])}",
            grace_s=options.grace_s,
            now=time.time,
        )
        services.registry.prepare()
        reason = recovery.check(services)
        if reason:
            _LOG.warning("rollouts are frozen: %s", reason)
        try:
            trust.begin(services, fresh=fresh)
        except TrustError as error:
            # Up without it, so that an operator can give the fleet new keys.
            _LOG.error("what is signed cannot be renewed: %s", error)
        revoked.write(services)
        yield services
    finally:
        database.close()


def _bus(
    options: Options, services: Services, accounts: BrokerAccounts, ingest: Ingest
) -> MqttSession:
    outside = options.external
    return MqttSession(
        services.mqtt_url,
        broker.SUPERUSER,
        username=outside.username if outside else broker.SUPERUSER,
        password=outside.password if outside else accounts.password,
        on_message=ingest.on_message,
        subscriptions=subscriptions(),
        tls=(outside.ca, outside.certificate, outside.key) if outside else None,
    )


async def _bus_ready(bus: MqttSession, stop: asyncio.Event) -> None:
    """Wait for the broker; an external one may come later, HTTPS is enough until then.

    Raises:
        TrustError: it is there, and is not the one that the options name.
    """
    end = time.monotonic() + _BUS_PATIENCE_S
    # A thread of the client's own connects; it has no event to await.
    while not bus.connected and not stop.is_set() and time.monotonic() < end:
        if bus.refusal:
            raise TrustError(
                bus.refusal.what,
                why=bus.refusal.why,
                fix=f"{bus.refusal.fix} See --broker and --broker-ca.",
            )
        await asyncio.sleep(0.02)
    if not bus.connected:
        _LOG.warning("the broker does not answer yet: %s", bus.last_error or "no connection")


async def _end_service(services: Services) -> None:
    """Finish the decommissioning of devices that have said that they wipe themselves."""
    while True:
        await asyncio.sleep(_END_EVERY_S)
        try:
            await asyncio.to_thread(decommission.go_on, services)
        except (EdgemlError, SQLAlchemyError):
            _LOG.exception("a device could not be decommissioned")


async def _forget(services: Services, keep: Retention) -> None:
    """Delete now and then what is not kept any more."""
    while True:
        try:
            number = await asyncio.to_thread(retention.forget, services, keep)
        except SQLAlchemyError:
            _LOG.exception("what is old could not be deleted")
        else:
            if number:
                _LOG.info("deleted %d rows that are not kept any more", number)
        await asyncio.sleep(_FORGET_EVERY_S)


async def _keep_signed(services: Services) -> None:
    """Renew what is signed long before it expires, for as long as the fleet is up."""
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        try:
            await asyncio.to_thread(trust.keep_fresh, services)
            await asyncio.to_thread(identity.keep_revoked_fresh, services)
        except (EdgemlError, OSError, SQLAlchemyError):
            _LOG.exception("what is signed could not be renewed")


def _is_device(services: Services, name: str, password: str) -> bool:
    return enrollment.check_mqtt_password(services, name, password)


def _address(listener: Listener, taken: socket) -> str:
    port = taken.getsockname()[1]
    return Listener(listener.name, listener.host, port, listener.option).address
