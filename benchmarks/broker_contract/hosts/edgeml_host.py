"""The embedded broker as a process: `edgeml_host.py PORT ACCOUNTS.json`."""

# ruff: noqa: D101, D102, D103, INP001
import asyncio
import json
import signal
import sys
from pathlib import Path

from fleet.broker import start


class Accounts:
    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, username: str, password: str) -> bool:
        known: dict[str, str] = json.loads(self.path.read_text())
        return known.get(username) == password


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    broker = await start("127.0.0.1", int(sys.argv[1]), Accounts(Path(sys.argv[2])))
    await stop.wait()
    await broker.stop()


asyncio.run(main())
