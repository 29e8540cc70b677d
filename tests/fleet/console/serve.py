"""Serves the console over a seeded fleet, behind the real access control, as a process.

NiceGUI is one in a process, so every server of the tests is a process of its own. It prints its
address, then obeys lines: `link [ROLE [SCOPE]]` prints a link that logs in, `user NAME ROLE` makes
a user and prints her password, `seed NAME` fills the database by a function of
`tests.fleet.console.seeds`; it ends when its standard input does.

    python -m tests.fleet.console.serve FOLDER
"""

import asyncio
import datetime as dt
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from fleet.access import Access
from fleet.access.rate import Rate, Rates
from fleet.console import mount
from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.incarnation import HeadFile
from fleet.keys import load_or_create
from fleet.operator_app import operator_app
from fleet.registry import Registry
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import Caller, Services, recovery, users
from fleet.services.credentials import Principal
from fleet.trust import Repository
from tests.fleet.console import seeds, seeds_devices, seeds_rollouts  # noqa: F401


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Bus:
    """A broker that is there and has nobody to give anything to."""

    connected = True

    def publish(self, _topic: str, _payload: bytes, *, expires_s: float | None = None) -> bool:
        return expires_s is None


def make(folder: Path, port: int) -> Services:
    database = Database(sqlite_url(folder / "fleet.db"))
    upgrade(database)
    services = Services(
        database=database,
        keys=load_or_create(folder, dt.datetime.now(dt.UTC)),
        registry=Registry(folder / "registry"),
        head=HeadFile(folder / "keys" / "head.json"),
        trust=Repository(folder / "trust", time.time),
        console_url=f"http://127.0.0.1:{port}",
    )
    services.publisher.attach(Bus())
    services.registry.prepare()
    recovery.check(services)
    return services


def obey(line: str, services: Services, access: Access) -> str:
    match line.split():
        case ["link", *who]:
            role = Role(who[0]) if who else Role.ADMIN
            scope = parse_selector(who[1] if len(who) > 1 else "")
            return access.make_link(Principal(who[0] if who else "operator", role, scope))["url"]
        case ["user", name, role]:
            owner = Caller("operator", "a test")
            first = users.create(services, owner, name, Role(role))["password"]
            users.change_password(services, owner, name, first, "a long enough one")
            return "a long enough one"
        case ["seed", name, *rest]:
            seeds.SEEDS[name](services, *rest)
            services.changes.announce()
            return "done"
        case _:
            return f"not understood: {line}"


def main(folder: Path) -> None:
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    listening = socket.create_server(("127.0.0.1", port))
    services = make(folder, listening.getsockname()[1])
    often = Rate(10**6, 1e5)
    access = Access(services, Rates(login=often, request=often, stranger=often))
    app = operator_app(services, access, mount)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))

    def serve_lines() -> None:
        for line in sys.stdin:
            if line.strip():
                say(obey(line.strip(), services, access))
        server.should_exit = True

    threading.Thread(target=serve_lines, daemon=True).start()
    say(services.console_url)
    asyncio.run(server.serve(sockets=[listening]))
    services.database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
