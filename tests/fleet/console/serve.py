"""Serves the console over a scene, behind the fleet's real access control, as a process.

NiceGUI is one in a process, so every server of the tests is a process of its own. It prints the
link that logs in, and ends when its standard input does.

    python -m tests.fleet.console.serve FOLDER SCENE
"""

import asyncio
import datetime as dt
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from fleet.access import Access, AccessMiddleware
from fleet.console.page import mount_reader
from fleet.db import Database
from fleet.db.database import sqlite_url
from fleet.incarnation import HeadFile
from fleet.keys import load_or_create
from fleet.registry import Registry
from fleet.services import Services
from fleet.trust import Repository
from tests.fleet.console.scenes import SceneReader


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: Path, scene: str) -> None:
    file = folder / "scene"
    file.write_text(scene)
    listening = socket.create_server(("127.0.0.1", 0))
    services = Services(
        database=Database(sqlite_url(folder / "fleet.db")),
        keys=load_or_create(folder, dt.datetime.now(dt.UTC)),
        registry=Registry(folder / "registry"),
        head=HeadFile(folder / "keys" / "head.json"),
        trust=Repository(folder / "trust", time.time),
        console_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
    )
    access = Access(services)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    mount_reader(app, SceneReader(file))
    app.add_middleware(AccessMiddleware, access=access)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))

    def obey() -> None:
        for line in sys.stdin:
            if line.strip() == "link":
                say(access.make_link()["url"])
        server.should_exit = True

    threading.Thread(target=obey, daemon=True).start()
    say(services.console_url)
    asyncio.run(server.serve(sockets=[listening]))
    services.database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
