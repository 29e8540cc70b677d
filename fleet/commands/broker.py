"""`edgeml fleet broker-config`: all that a broker needs to serve the fleet's devices."""

import datetime as dt
import os
import pwd
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgeml.errors import UserError
from fleet.commands.connection import DATA, AsJson, Data, show


class Kind(StrEnum):
    """The brokers that a configuration can be written for."""

    MOSQUITTO = "mosquitto"
    EMQX = "emqx"


def broker_config(
    kind: Annotated[Kind, typer.Argument(help="Which broker: mosquitto (2) or emqx (5).")],
    *,
    host: Annotated[
        list[str],
        typer.Option(help="A name or address by which devices reach it; may be given again."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files; made if need be.")] = Path(
        "broker"
    ),
    at: Annotated[
        str, typer.Option(help="Where that folder will be on the broker's machine, if elsewhere.")
    ] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MQTT over TLS.")] = 8883,
    websockets: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of MQTT over wss://; 0: none.")
    ] = 0,
    members: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="Port for the fleet's own processes, where there are several "
            "(edgeml fleet serve; mosquitto only); 0: none.",
        ),
    ] = 0,
    user: Annotated[
        str, typer.Option(help="Who Mosquitto runs as; the files are given to it, by root.")
    ] = "mosquitto",
    state: Annotated[
        str, typer.Option(help="Where Mosquitto keeps sessions.")
    ] = "/var/lib/mosquitto",
    listen: Annotated[str, typer.Option(help="The address it listens on.")] = "0.0.0.0",  # noqa: S104
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Write a broker's configuration, its access rules and its certificate.

    Devices and fleet prove who they are with certificates of the fleet's own authority (mutual
    TLS 1.2 or newer); the broker takes their name from the certificate alone, and lets a device
    use the topics below its own name only. The folder also gets the fleet's own certificate for
    this broker. Run it again after the authority was rotated.

    Example: edgeml fleet broker-config mosquitto --host broker.example --out /etc/edgeml-broker
    """
    from cloud_sync.release import write_atomically
    from cloud_sync.trust import generate, save_key
    from cloud_sync.trust.identity import issue, make_crl
    from fleet.broker import SUPERUSER, certificates
    from fleet.broker.configuration import Place, emqx, mosquitto
    from fleet.keys import AUTHORITIES, REVOKED, load_or_create

    if members and kind is not Kind.MOSQUITTO:
        raise UserError(
            f"--members and {kind} do not go together.",
            why="Its rules give every client the name of its certificate: all processes of the "
            "fleet would have one session.",
            fix="Use mosquitto, or one process: edgeml fleet up",
        )
    now = dt.datetime.now(dt.UTC)
    keys = load_or_create(data.expanduser(), now)
    folder = out.expanduser().resolve()
    there = at or str(folder)
    listed = data.expanduser() / "keys" / REVOKED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not listed.exists():
            empty = make_crl(keys.ca, keys.ca_key, [], now)
            write_atomically(listed, empty.encode(), 0o644)
        own, fleets = generate(), generate()
        save_key(own, folder / "broker.key")
        save_key(fleets, folder / "fleet.key")
        server = certificates.issue_server(host, own.public_key(), keys.ca, keys.ca_key, now)
        client = issue(SUPERUSER, fleets.public_key(), keys.ca, keys.ca_key, now)
        write_atomically(folder / "broker.pem", server.encode(), 0o644)
        write_atomically(folder / "fleet.pem", client.encode(), 0o644)
        write_atomically(folder / AUTHORITIES, keys.authorities.encode(), 0o644)
        write_atomically(folder / REVOKED, listed.read_bytes(), 0o644)
        if members:
            _write_members(folder, now)
        place = Place(
            folder=there,
            authorities=f"{there}/{AUTHORITIES}",
            revoked=f"{there}/{REVOKED}",
            address=listen,
            port=port,
            websockets=websockets,
            user=user,
            state=state,
            members=members,
        )
        files = mosquitto(place) if kind is Kind.MOSQUITTO else emqx(place)
        for name, text in files.items():
            write_atomically(folder / name, text.encode(), 0o600 if name == "acl" else 0o644)
        _give(user, [folder / "broker.key", folder / "acl"])
    except OSError as error:
        raise UserError(
            f"The broker's files cannot be written to {folder}.",
            why=f"{error.strerror}: {error.filename}.",
            fix="Name another folder with --out.",
        ) from error
    url = f"mqtts://{host[0]}:{port}"
    at_members = f"mqtts://{host[0]}:{members} --device-broker {url}"
    mine = folder / ("member" if members else "fleet")
    up = (
        f"edgeml fleet {'serve' if members else 'up'} --broker {at_members if members else url} "
        f"--broker-ca {folder / AUTHORITIES} "
        f"--broker-cert {mine.with_suffix('.pem')} --broker-key {mine.with_suffix('.key')}"
    )
    body = {
        "folder": str(folder),
        "files": sorted(path.name for path in folder.iterdir()),
        "url": url,
        "fleet_up": up,
    }
    started = "mosquitto -c" if kind is Kind.MOSQUITTO else "add to emqx.conf:"
    conf = f"{there}/{next(iter(files))}"
    show(
        body,
        f"Written to {folder}. On the broker's machine: {started} {conf}\nThen:\n  {up}",
        as_json=as_json,
    )


def _write_members(folder: Path, now: dt.datetime) -> None:
    """Write the certificate of the fleet's processes, of an authority whose key is not kept."""
    from cloud_sync.release import write_atomically
    from cloud_sync.trust import generate, save_key
    from cloud_sync.trust.identity import issue, make_ca
    from fleet.broker import SUPERUSER

    authority, key = generate(), generate()
    ca = make_ca(authority, now)
    save_key(key, folder / "member.key")
    client = issue(SUPERUSER, key.public_key(), ca, authority, now)
    write_atomically(folder / "member.pem", client.encode(), 0o644)
    write_atomically(folder / "members.pem", ca.encode(), 0o644)


def _give(user: str, files: list[Path]) -> None:
    """Let the broker's user read what nobody else may, where it is here and this is root."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return
    if os.geteuid() == 0:
        for path in files:
            if path.exists():
                os.chown(path, account.pw_uid, account.pw_gid)
