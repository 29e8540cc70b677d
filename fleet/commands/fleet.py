"""The commands `edgeml fleet ...`: run the server, let devices in, look after it."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.errors import UserError
from fleet.commands.broker import broker_config
from fleet.commands.connection import (
    DATA,
    FLEET,
    AsJson,
    Data,
    FleetUrl,
    Token,
    Why,
    connect,
    parse_labels,
    read_text,
    show,
)

if TYPE_CHECKING:
    from fleet.listeners import Tls

fleet_app = typer.Typer(help="Run the fleet's server, and let devices in.", no_args_is_help=True)


@fleet_app.command("up")
def up(
    *,
    data: Data = DATA,
    host: Annotated[str, typer.Option(help="Where operators connect.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the console and the REST API.")] = 8080,
    device_host: Annotated[str, typer.Option(help="Where devices connect.")] = "127.0.0.1",
    device_port: Annotated[int, typer.Option(help="Port that devices talk to.")] = 8081,
    mqtt_port: Annotated[int, typer.Option(help="Port of the embedded MQTT broker.")] = 1883,
    broker: Annotated[
        str, typer.Option(help="Use this broker, mqtts://HOST, instead of the embedded one.")
    ] = "",
    broker_username: Annotated[str, typer.Option(help="The fleet's account there.")] = "",
    broker_password_file: Annotated[
        Path | None, typer.Option(help="File with the password of that account.")
    ] = None,
    broker_ca: Annotated[Path | None, typer.Option(help="CA of that broker, PEM.")] = None,
    broker_cert: Annotated[Path | None, typer.Option(help="The fleet's certificate.")] = None,
    broker_key: Annotated[Path | None, typer.Option(help="The fleet's key.")] = None,
    database: Annotated[
        str, typer.Option(help="Database URL; SQLite in the data folder by default.")
    ] = "",
    keep_days: Annotated[
        float, typer.Option(min=0, help="Days that telemetry and other records are kept.")
    ] = 30.0,
    keep_mb: Annotated[
        int, typer.Option(min=1, help="Megabytes of records that are kept; the oldest go first.")
    ] = 4096,
    keep_proofs_days: Annotated[
        float, typer.Option(min=0, help="Days that evidence and security events are kept.")
    ] = 365.0,
    renewal_grace_days: Annotated[
        float, typer.Option(min=0, help="Days that an expired device is still renewed.")
    ] = 365.0,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start the fleet: registry, broker, REST API and console in one process."""
    from fleet.listeners import Listener
    from fleet.server import ExternalBroker, Options, Running, serve
    from fleet.services.retention import Retention
    from fleet.trust import status

    external = None
    if broker:
        external = ExternalBroker(
            url=broker,
            username=broker_username,
            password=read_text(broker_password_file).strip() if broker_password_file else "",
            ca=broker_ca,
            certificate=broker_cert,
            key=broker_key,
        )
    options = Options(
        data=data.expanduser().resolve(),
        operators=Listener("operators' listener", host, port, "--port"),
        devices=Listener("devices' listener", device_host, device_port, "--device-port"),
        mqtt=Listener("embedded broker", "127.0.0.1", mqtt_port, "--mqtt-port"),
        tls=_tls(tls_cert, tls_key),
        external=external,
        database_url=database,
        grace_s=renewal_grace_days * 86400.0,
        keep=Retention(
            records_days=keep_days, records_bytes=keep_mb << 20, proofs_days=keep_proofs_days
        ),
    )
    logging.basicConfig(
        level=os.environ.get("EDGEML_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("alembic", "uvicorn", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    def announce(fleet: Running) -> None:
        link = fleet.access.make_link()["url"]
        trust = status.show(fleet.services.trust)["sentence"]
        body = {
            "console": fleet.console_url,
            "login": link,
            "devices": fleet.device_url,
            "mqtt": fleet.mqtt_url,
            "trust": trust,
            "data": str(options.data),
        }
        text = [
            "The fleet is up.",
            f"  console   {link} (logs in once)",
            f"  REST API  {fleet.console_url}/api/v1/openapi.json",
            f"  devices   {fleet.device_url}",
            f"  MQTT      {fleet.mqtt_url}",
            f"  trust     {trust}",
            f"  data      {options.data}",
            "Ctrl-C ends it.",
        ]
        show(body, "\n".join(text), as_json=as_json)

    serve(options, announce)


@fleet_app.command("enroll")
def enroll(
    device: Annotated[str, typer.Argument(help="The new device's id.")],
    *,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="KEY=VALUE; may be given again.")
    ] = None,
    ttl: Annotated[float, typer.Option(help="Seconds that the token is good for.")] = 3600.0,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Make a one-time token with which a device enrols itself."""
    with connect(fleet, token, data) as client:
        made = client.enroll(device, parse_labels(label or []), ttl, why)
    text = f"{made['token']}\n"
    typer.echo(
        f"{device} enrols with it once, within {ttl:.0f} s:\n"
        f"  edgeml agent enroll --device {device} --fleet DEVICES_URL --token TOKEN --data FOLDER",
        err=True,
    )
    show(made, text.rstrip(), as_json=as_json)


@fleet_app.command("console")
def console(
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Print a link to the console that logs in once."""
    with connect(fleet, token, data) as client:
        link = client.login_link()
    show(link, link["url"], as_json=as_json)


@fleet_app.command("health")
def health(
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Show whether the parts of the fleet work, and what they counted."""
    from fleet.show import health_text

    with connect(fleet, token, data) as client:
        found = client.health()
    show(found, health_text(found), as_json=as_json)


@fleet_app.command("security")
def security(
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Show what the fleet or a device refused as forged or not signed, newest first."""
    from fleet.show import security_text

    with connect(fleet, token, data) as client:
        found = client.security_events()
    show(found, security_text(found), as_json=as_json)


@fleet_app.command("reset-time")
def reset_time(
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the audit log.")],
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Have devices go back to the fleet's time, after its own clock was ahead of the truth.

    What a device holds for proven only rises. Where the fleet has once told a time in the future,
    each device takes the present one when it next asks, in an answer that the director signs.
    """
    with connect(fleet, token, data) as client:
        found = client.reset_time(why)
    show(found, "Devices take the fleet's time as it is when they next ask.", as_json=as_json)


@fleet_app.command("thaw")
def thaw(
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the audit log.")],
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Let rollouts move again after the database was restored from a backup."""
    with connect(fleet, token, data) as client:
        found = client.thaw(why)
    show(found, "Rollouts move again.", as_json=as_json)


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


fleet_app.command("broker-config")(broker_config)
