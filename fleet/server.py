"""`edgeml fleet up` and `edgeml fleet serve`: the whole fleet in one process, or a part of it.

Listeners for operators and devices, the embedded broker, ingest and the rollout controller.
Everything that can be wrong is found out before anything starts; what is started is stopped in
the reverse order. All state is in the data folder and the database, so a restart, or `kill -9`
and a restart, goes on where it was, and other processes may share it (docs/deploy.md).
"""

import asyncio
import contextlib
import datetime as dt
import faulthandler
import fcntl
import gc
import hmac
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import uvloop
from starlette.applications import Starlette

from cloud_sync.mqtt_session import MqttSession, OnDelivery, parse_url
from cloud_sync.trust.keys import split_pems
from edgeml.errors import TrustError, UserError
from fleet import broker
from fleet.access import Access
from fleet.access.oidc import open_provider
from fleet.broker.cutting import Cutting
from fleet.db import Database, upgrade
from fleet.duties import duties
from fleet.incarnation import HeadFile
from fleet.ingest import RECEIVE_MAXIMUM, Ingest, subscriptions
from fleet.keys import load_or_create
from fleet.leader import Duty, Leader
from fleet.listeners import Listener, check_free, take
from fleet.notices import Notices
from fleet.options import ExternalBroker, Options, Part, check
from fleet.presence import Presence
from fleet.registry import Registry
from fleet.services import enrollment, facts, recovery, reported, revoked, trust, users
from fleet.services.context import Services
from fleet.serving import Limits, lifespan, served
from fleet.shared_lock import SharedLock
from fleet.trust import Repository

_LOG = logging.getLogger(__name__)
_BUS_PATIENCE_S = 10.0
_PUBLISH_PATIENCE_S = 10.0  # a wave publishes a state for each of its devices at once
OPERATORS = Limits(bodies=False)
DEVICES = Limits(bodies=True)


@dataclass(frozen=True)
class Running:
    """A fleet that is up: where it is, and what it works on.

    Without the part `api` there are no listeners, and their addresses are empty. At the first
    start there is the first admin's password, to be shown once.
    """

    services: Services
    access: Access
    console_url: str
    device_url: str
    mqtt_url: str
    admin_password: str = ""


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
    """Run the fleet, or its parts that the options name, until SIGINT or SIGTERM.

    Args:
        options: how.
        on_up: called once, when everything answers.

    Raises:
        UserError: an option is wrong, or a port or the folder is in use.
        TrustError: a key can be read by others or is damaged, or the broker's certificate is
            not one of the named CA for the named host.
    """
    with contextlib.suppress(OSError, ValueError):  # a log that is no file
        faulthandler.enable()  # what ends a process without a word leaves its stack in the log
    uvloop.run(_until_signal(options, on_up))


async def _until_signal(options: Options, on_up: Callable[[Running], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(options, stop) as fleet:
        # What was imported stays: it need not be looked through for garbage again and again.
        gc.collect()
        gc.freeze()
        gc.enable()
        on_up(fleet)
        await stop.wait()
        _LOG.info("stopping")


@asynccontextmanager
async def running(options: Options, stop: asyncio.Event) -> AsyncIterator[Running]:
    """A fleet that is up within the block; `stop` is set when a part of it has failed."""
    check(options)
    async with AsyncExitStack() as stack:
        stack.enter_context(_locked(options))
        sockets = stack.enter_context(_listening(options))
        services = stack.enter_context(_services(options, sockets))
        ingest = Ingest(services)
        access = _access(options, services)
        apps = _apps(services, access, ingest) if Part.API in options.parts else ()
        for app in apps:
            # Before there is any thread: NiceGUI's start looks at every object there is, tuples
            # that another is just making among them, which CPython does not forgive that thread.
            await stack.enter_async_context(lifespan(app))
        accounts = BrokerAccounts(lambda name, word: _is_device(services, name, word))
        if options.external is None:
            host, port, _ = parse_url(services.mqtt_url)
            embedded = await broker.start(host, port, accounts)
            stack.push_async_callback(embedded.stop)
            services.replaced.tell(embedded.disconnect)
            reported.all_offline(services)
        if options.external and options.external.certificate and Part.CONTROLLER in options.parts:
            await _begun(stack, Cutting(services, options.external))
        if not services.database.is_sqlite:
            await _begun(stack, Notices(services))
        services.gauges["ingest.waiting"] = lambda: ingest.waiting
        await _begun(stack, ingest)
        bus = _bus(options, services, accounts, ingest)
        bus.start()
        services.publisher.attach(bus)
        stack.push_async_callback(asyncio.to_thread, bus.close)
        if Part.CONTROLLER in options.parts:
            await _begun(stack, _leader(options, services))
        for app, taken, limits in zip(apps, sockets, (OPERATORS, DEVICES), strict=False):
            await stack.enter_async_context(served(app, taken, options.tls, stop, limits))
        await _bus_ready(bus, stop)
        yield Running(
            services=services,
            access=access,
            console_url=services.console_url,
            device_url=_url(options, options.devices, sockets[1:]),
            mqtt_url=services.mqtt_url,
            admin_password=users.begin(services) if Part.API in options.parts else "",
        )


async def _begun(stack: AsyncExitStack, duty: Duty) -> None:
    """Start something that is stopped, on another thread, when the stack ends."""
    duty.start()
    stack.push_async_callback(asyncio.to_thread, duty.stop)


def _apps(services: Services, access: Access, ingest: Ingest) -> tuple[Starlette, Starlette]:
    """What the two listeners serve; imported here, for other processes do without."""
    from fleet import console
    from fleet.device_app import device_app
    from fleet.operator_app import operator_app

    return operator_app(services, access, console.mount), device_app(services, ingest)


def _access(options: Options, services: Services) -> Access:
    if options.oidc is None:
        return Access(services)
    secret = services.keys.session_secret
    return Access(services, oidc=open_provider(options.oidc, secret, services.now))


def _leader(options: Options, services: Services) -> Leader:
    def all_duties(guarded: Services) -> list[Duty]:
        found = list(duties(guarded, options.keep, options.registry))
        if options.shared:
            found.append(Presence(guarded, partial(_member, options)))
        return found

    return Leader(services, all_duties, f"{socket.gethostname()}:{os.getpid()}")


def broker_ca(external: ExternalBroker | None, own: str) -> str:
    """The authority that vouches for the broker, for devices to trust it, too.

    Empty where it is the fleet's own: devices follow that by TUF when it rotates.
    """
    named = external.ca.read_text() if external and external.ca else ""
    return "" if set(split_pems(named)) <= set(split_pems(own)) else named


@contextmanager
def _locked(options: Options) -> Iterator[None]:
    """Keep a second fleet off the same folder; the lock goes with the process.

    Processes that share a fleet share the lock, too.
    """
    data = options.data
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
            fcntl.flock(lock, (fcntl.LOCK_SH if options.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"A fleet is already up on {data}.",
                why="`edgeml fleet up` has its folder for itself.",
                fix="Stop it, or name another folder with --data.",
            ) from None
        yield


@contextmanager
def _listening(options: Options) -> Iterator[tuple[socket.socket, ...]]:
    with ExitStack() as stack:
        wanted = (options.operators, options.devices) if Part.API in options.parts else ()
        yield tuple(stack.enter_context(contextlib.closing(take(one))) for one in wanted)


@contextmanager
def _services(options: Options, sockets: tuple[socket.socket, ...]) -> Iterator[Services]:
    database = Database(options.database)
    try:
        # Of processes that come up together, one makes keys and tables, and the others find them.
        with SharedLock(options.data / "start.lock"):
            services = _prepared(options, database, sockets)
        yield services
    finally:
        database.close()


def _prepared(options: Options, database: Database, sockets: tuple[socket.socket, ...]) -> Services:
    data = options.data
    mqtt_url = _mqtt_url(options)  # a port that is taken is found out before anything is made
    keys = load_or_create(data, dt.datetime.now(dt.UTC))
    upgrade(database)
    services = Services(
        database=database,
        keys=keys,
        registry=Registry(data / "registry"),
        head=HeadFile(data / "keys" / "head.json"),
        trust=Repository(data / "trust", time.time),
        mqtt_url=mqtt_url,
        mqtt_ca=broker_ca(options.external, keys.authorities),
        console_url=options.public_url or _url(options, options.operators, sockets[:1]),
        grace_s=options.grace_s,
        now=time.time,
    )
    services.registry.prepare()
    with database.read() as session:
        fresh = not facts.get(session, facts.INCARNATION) and services.head.read() is None
    reason = recovery.check(services)
    if reason:
        _LOG.warning("rollouts are frozen: %s", reason)
    try:
        trust.begin(services, fresh=fresh)
    except TrustError as error:
        # Up without it, so that an operator can give the fleet new keys.
        _LOG.error("what is signed cannot be renewed: %s", error)
    revoked.write(services)
    return services


def _mqtt_url(options: Options) -> str:
    """Where devices find the broker."""
    if options.external is None:
        return f"mqtt://{options.mqtt.host}:{check_free(options.mqtt)}"
    return options.external.for_devices or options.external.url


def _bus(
    options: Options, services: Services, accounts: BrokerAccounts, ingest: Ingest
) -> MqttSession:
    topics = subscriptions(shared=options.shared) if Part.INGEST in options.parts else []
    if options.shared:
        return _member(options, ingest.on_delivery, topics)
    outside = options.external
    return MqttSession(
        outside.url if outside else services.mqtt_url,
        broker.SUPERUSER,
        username=outside.username if outside else broker.SUPERUSER,
        password=outside.password if outside else accounts.password,
        on_delivery=ingest.on_delivery,
        receive_maximum=RECEIVE_MAXIMUM,
        subscriptions=topics,
        tls=(outside.ca, outside.certificate, outside.key) if outside else None,
        patience_s=_PUBLISH_PATIENCE_S,
    )


def _member(options: Options, on_delivery: OnDelivery, topics: Sequence[str]) -> MqttSession:
    """A session of one of several processes: its name is its own, and ends with it.

    What a broker would keep for a process that is gone, none of the others would get.
    """
    outside = options.external
    assert outside is not None
    return MqttSession(
        outside.url,
        f"{broker.SUPERUSER}-{secrets.token_hex(8)}",
        username=outside.username,
        password=outside.password,
        on_delivery=on_delivery,
        receive_maximum=RECEIVE_MAXIMUM,
        subscriptions=topics,
        tls=(outside.ca, outside.certificate, outside.key),
        expires_s=0,
        patience_s=_PUBLISH_PATIENCE_S,
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


def _is_device(services: Services, name: str, password: str) -> bool:
    return enrollment.check_mqtt_password(services, name, password)


def _url(options: Options, listener: Listener, taken: tuple[socket.socket, ...]) -> str:
    """Where a listener is; empty where it is none of this process."""
    if not taken:
        return ""
    port = taken[0].getsockname()[1]
    address = Listener(listener.name, listener.host, port, listener.option).address
    return f"{'https' if options.tls else 'http'}://{address}"
