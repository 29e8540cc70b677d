"""A fleet with its console as a process that obeys: real listeners, broker, database, access.

NiceGUI is one in a process, so every fleet of the tests is a process of its own. It prints its
address, then obeys lines and answers each with a line of JSON, `{"said": …}` or `{"failed": …}`
with the traceback: `link [ROLE [SCOPE]]` gives a link that logs in, `user NAME ROLE [SCOPE]` makes
a user and gives her password, `link-of NAME` a link that logs her in, `seed NAME …` fills the
database by a function of `tests.fleet.console.seeds`. It ends when its standard input does.

With `--history` it leads no rollouts and raises no alerts, as a process beside the one that does:
a seeded history stays as it was written.

    python -m tests.fleet.console.serve FOLDER [--port PORT] [--history]
"""

import argparse
import asyncio
import gc
import json
import sys
import threading
import traceback
from pathlib import Path

import uvloop

from fleet.listeners import Listener
from fleet.options import EVERY_PART, Options, Part
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.server import Running, running
from fleet.services import Caller, users
from fleet.services.credentials import Principal
from tests.fleet.console import seeds, seeds_devices, seeds_rollouts  # noqa: F401

PASSWORD = "a long enough one"


def say(answer: object) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


def obey(line: str, fleet: Running) -> str:
    services = fleet.services
    match line.split():
        case ["link", *who]:
            role = Role(who[0]) if who else Role.ADMIN
            scope = parse_selector(who[1] if len(who) > 1 else "")
            principal = Principal(who[0] if who else "operator", role, scope)
            return fleet.access.make_link(principal)["url"]
        case ["link-of", name]:
            known = users.show(services, name)
            scope = parse_selector(known["scope"])
            principal = Principal(name, Role(known["role"]), scope, user=name)
            return fleet.access.make_link(principal)["url"]
        case ["user", name, role, *scope_of]:
            owner, scope_text = Caller("operator", "a test"), "".join(scope_of)
            made = users.create(services, owner, name, Role(role), scope=scope_text)
            users.change_password(services, owner, name, made["password"], PASSWORD)
            return PASSWORD
        case ["seed", name, *rest]:
            seeds.SEEDS[name](services, *rest)
            services.changes.announce()
            return "done"
        case _:
            raise ValueError(line)


def answer(line: str, fleet: Running) -> dict[str, str]:
    try:
        return {"said": obey(line, fleet)}
    except Exception:  # noqa: BLE001 -- whoever asked is to see it
        return {"failed": traceback.format_exc()}


async def serve(options: Options) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    async with running(options, stop) as fleet:
        gc.freeze()  # as the server does

        def listen() -> None:
            for line in sys.stdin:
                say(answer(line, fleet))
            loop.call_soon_threadsafe(stop.set)

        say({"said": fleet.console_url})
        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--history", action="store_true")
    given = parser.parse_args()
    uvloop.run(
        serve(
            Options(
                data=given.folder,
                operators=Listener("operators' listener", "127.0.0.1", given.port, "--port"),
                devices=Listener("devices' listener", "127.0.0.1", 0, "--device-port"),
                mqtt=Listener("broker", "127.0.0.1", 0, "--mqtt-port"),
                parts=EVERY_PART - {Part.CONTROLLER} if given.history else EVERY_PART,
            )
        )
    )


if __name__ == "__main__":
    main()
