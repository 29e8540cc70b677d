"""`edgeml fleet up`: the whole fleet in one process; `edgeml fleet serve`: one of several."""

import functools
import gc
import inspect
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.errors import UserError
from fleet.commands.connection import DATA, AsJson, Data, read_text, show

if TYPE_CHECKING:
    from fleet.external_registry import ExternalRegistry
    from fleet.listeners import Tls
    from fleet.options import ExternalBroker, Options
    from fleet.server import Running


class ProcessRole(StrEnum):
    """What a process does; `fleet.options.Part`, without what that imports."""

    API = "api"
    INGEST = "ingest"
    CONTROLLER = "controller"


@contextmanager
def _not_searched() -> Iterator[None]:
    """Search for no garbage until the server is up: what it imports stays, a fifth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_not_searched()
def serve(
    *,
    role: Annotated[
        list[ProcessRole] | None,
        typer.Option(
            help="What this process does; may be given again. api: the listeners of operators and "
            "devices. ingest: takes what devices send over MQTT. controller: stands for the lead; "
            "the one that has it does rollouts and upkeep. All three by default."
        ),
    ] = None,
    data: Data = DATA,
    host: Annotated[str, typer.Option(help="Where operators connect.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the console and the REST API.")] = 8080,
    public_url: Annotated[
        str, typer.Option(help="Where operators reach any of the API's processes, for links.")
    ] = "",
    device_host: Annotated[str, typer.Option(help="Where devices connect.")] = "127.0.0.1",
    device_port: Annotated[int, typer.Option(help="Port that devices talk to.")] = 8081,
    mqtt_port: Annotated[int, typer.Option(help="Port of the embedded MQTT broker.")] = 1883,
    broker: Annotated[
        str, typer.Option(help="Use this broker, mqtts://HOST, instead of the embedded one.")
    ] = "",
    device_broker: Annotated[
        str, typer.Option(help="Its address for devices, where that is another.")
    ] = "",
    broker_username: Annotated[str, typer.Option(help="The fleet's account there.")] = "",
    broker_password_file: Annotated[
        Path | None, typer.Option(help="File with the password of that account.")
    ] = None,
    broker_ca: Annotated[Path | None, typer.Option(help="CA of that broker, PEM.")] = None,
    broker_cert: Annotated[Path | None, typer.Option(help="The fleet's certificate.")] = None,
    broker_key: Annotated[Path | None, typer.Option(help="The fleet's key.")] = None,
    registry: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Push what is published to this OCI registry, too: "
            "https://registry.example/team-a.",
        ),
    ] = "",
    registry_username: Annotated[str, typer.Option(help="The fleet's account there.")] = "",
    registry_password_file: Annotated[
        Path | None, typer.Option(help="File with its password or token.")
    ] = None,
    database: Annotated[
        str, typer.Option(help="Database URL; SQLite in the data folder by default.")
    ] = "",
    database_file: Annotated[
        Path | None, typer.Option(help="File with that URL, where it holds a password.")
    ] = None,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Days that telemetry and other records are kept.")
    ] = 30.0,
    keep_mb: Annotated[
        int, typer.Option(min=1, help="Megabytes of records that are kept; the oldest go first.")
    ] = 4096,
    keep_proofs_days: Annotated[
        float, typer.Option(min=0, help="Days that evidence and security events are kept.")
    ] = 365.0,
    keep_minute_days: Annotated[
        float, typer.Option(min=0, help="Days that telemetry summed up by the minute is kept.")
    ] = 2.0,
    keep_hour_days: Annotated[float, typer.Option(min=0, help="The same, by the hour.")] = 90.0,
    keep_day_days: Annotated[float, typer.Option(min=0, help="The same, by the day.")] = 1830.0,
    keep_device_days: Annotated[
        float, typer.Option(min=0, help="Days that the hours of each device are kept.")
    ] = 14.0,
    keep_ledger_days: Annotated[
        float, typer.Option(min=0, help="Days that devices' network costs are kept.")
    ] = 400.0,
    keep_samples_days: Annotated[
        float, typer.Option(min=0, help="Days that captured frames are kept.")
    ] = 90.0,
    keep_samples_gb: Annotated[
        float, typer.Option(min=0, help="Gigabytes of them for each model; the oldest go first.")
    ] = 10.0,
    renewal_grace_days: Annotated[
        float, typer.Option(min=0, help="Days that an expired device is still renewed.")
    ] = 365.0,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    oidc: Annotated[
        Path | None, typer.Option(help="OpenID provider to log in with, TOML: docs/access.md.")
    ] = None,
    as_json: AsJson = False,
    shared: Annotated[bool, typer.Option(hidden=True)] = True,
) -> None:
    """Start one of several processes of a fleet, with the roles that are named.

    All of them use one PostgreSQL, one broker and one data folder (keys, releases): a volume or a
    network file system where they are on several machines. Any number of each role may run;
    of those with the role controller one leads, found by a lock of PostgreSQL, and another takes
    over when it dies. See docs/deploy.md for a compose file and systemd units.

    Example: edgeml fleet serve --role api --database postgresql+psycopg://db/edgeml
    --broker mqtts://broker.example:8884 --device-broker mqtts://broker.example
    """
    from fleet.listeners import Listener
    from fleet.options import EVERY_PART, Options, Part
    from fleet.server import serve as run
    from fleet.services.retention import Retention

    options = Options(
        data=data.expanduser().resolve(),
        operators=Listener("operators' listener", host, port, "--port"),
        devices=Listener("devices' listener", device_host, device_port, "--device-port"),
        mqtt=Listener("embedded broker", "127.0.0.1", mqtt_port, "--mqtt-port"),
        tls=_tls(tls_cert, tls_key),
        external=_external(
            broker,
            username=broker_username,
            password_file=broker_password_file,
            files=(broker_ca, broker_cert, broker_key),
            for_devices=device_broker,
        ),
        database_url=read_text(database_file).strip() if database_file else database,
        grace_s=renewal_grace_days * 86400.0,
        keep=Retention(
            records_days=keep_days,
            records_bytes=keep_mb << 20,
            proofs_days=keep_proofs_days,
            minute_days=keep_minute_days,
            hour_days=keep_hour_days,
            day_days=keep_day_days,
            device_days=keep_device_days,
            ledger_days=keep_ledger_days,
            samples_days=keep_samples_days,
            samples_bytes=round(keep_samples_gb * (1 << 30)),
        ),
        parts=frozenset(map(Part, role)) if role else EVERY_PART,
        shared=shared,
        public_url=public_url.rstrip("/"),
        oidc=oidc,
        registry=_registry(registry, registry_username, registry_password_file),
    )
    logging.basicConfig(
        level=os.environ.get("EDGEML_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("alembic", "uvicorn", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    run(options, functools.partial(_announce, options, as_json=as_json))


def _only_one(command: Any, **fixed: Any) -> Any:
    """The same command with some of its options set, and not offered."""

    @functools.wraps(command)
    def alone(**given: Any) -> None:
        command(**given, **fixed)

    signature = inspect.signature(command)
    offered = [p for name, p in signature.parameters.items() if name not in fixed]
    alone.__signature__ = signature.replace(parameters=offered)  # type: ignore[attr-defined]
    alone.__doc__ = "Start the fleet: registry, broker, REST API and console in one process."
    return alone


up = _only_one(serve, role=None, shared=False)


def _announce(options: "Options", fleet: "Running", *, as_json: bool) -> None:
    from fleet.services import users
    from fleet.trust import status

    trust = status.show(fleet.services.trust)["sentence"]
    link = fleet.access.make_link()["url"] if fleet.device_url else ""
    body: dict[str, Any] = {
        "roles": sorted(options.parts),
        "console": fleet.console_url,
        "login": link,
        "devices": fleet.device_url,
        "mqtt": fleet.mqtt_url,
        "trust": trust,
        "data": str(options.data),
    }
    if fleet.admin_password:
        body["first_admin"] = {"user": users.FIRST, "password": fleet.admin_password}
    listeners = [
        f"  console   {link} (logs in once)",
        f"  REST API  {fleet.console_url}/api/v1/openapi.json",
        f"  devices   {fleet.device_url}",
    ]
    text = [
        f"The fleet's {', '.join(body['roles'])} is up." if options.shared else "The fleet is up.",
        *(listeners if fleet.device_url else []),
        *(
            [f"  log in    {users.FIRST} {fleet.admin_password} (shown once; change it)"]
            if fleet.admin_password
            else []
        ),
        f"  MQTT      {fleet.mqtt_url}",
        f"  trust     {trust}",
        f"  data      {options.data}",
        "Ctrl-C ends it.",
    ]
    show(body, "\n".join(text), as_json=as_json)


def _external(
    url: str,
    *,
    username: str,
    password_file: Path | None,
    files: tuple[Path | None, Path | None, Path | None],
    for_devices: str,
) -> "ExternalBroker | None":
    from fleet.options import ExternalBroker

    if not url:
        return None
    ca, certificate, key = files
    return ExternalBroker(
        url=url,
        username=username,
        password=read_text(password_file).strip() if password_file else "",
        ca=ca,
        certificate=certificate,
        key=key,
        for_devices=for_devices,
    )


def _registry(url: str, username: str, password_file: Path | None) -> "ExternalRegistry | None":
    from fleet.external_registry import ExternalRegistry

    if not url:
        return None
    password = read_text(password_file).strip() if password_file else ""
    return ExternalRegistry(url.rstrip("/"), username, password)


def _tls(certificate: Path | None, key: Path | None) -> "Tls | None":
    from fleet.listeners import Tls

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UserError(
            "TLS needs a certificate and its key.", fix="Give --tls-cert and --tls-key."
        )
    for path in (certificate, key):
        read_text(path)
    return Tls(certificate, key)
