"""The embedded broker: iotcore (rumqttd) in a child process, behind our gate.

iotcore speaks MQTT 5 quickly but has static accounts and no topic rules; the gate has both.
See ADR 2 for why this pair.
"""

import asyncio
import secrets
import socket
import sys
import tempfile
from pathlib import Path

from cloud_sync.messages import MAX_MESSAGE_BYTES
from edgeml.errors import ToolchainError
from fleet.broker.credentials import Credentials
from fleet.broker.gate import MAX_CLIENTS, Gate

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
_LOOPBACK = "127.0.0.1"
_ACCOUNT = "gate"

_CONFIG = """\
id = 0
[router]
id = 0
max_connections = {connections}
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = {payload}
max_inflight_count = 100
dynamic_filters = true
[v5.1.connections.auth]
{account} = "{password}"
"""

# The child ends with its parent, however that ends, and reads nothing from the terminal.
_CHILD = """
import ctypes, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
signal.signal(signal.SIGINT, signal.SIG_IGN)
from iotcore.iotcore import IotCoreBroker
IotCoreBroker(config_path=sys.argv[1]).start()
signal.pause()
"""


class EmbeddedBroker:
    """A running broker; `url` is where clients reach its gate."""

    def __init__(self, url: str, gate: Gate, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self._gate = gate
        self._process = process

    async def stop(self) -> None:
        """Cut all clients off and end the child process."""
        await self._gate.stop()
        await _end(self._process)


async def start(host: str, port: int, credentials: Credentials) -> EmbeddedBroker:
    """Start the broker.

    Args:
        host: the address that the gate listens on.
        port: its port; 0 takes any free one.
        credentials: asked at every connect.

    Raises:
        ToolchainError: iotcore did not start.
        OSError: the port is taken.
    """
    inner = _free_port()
    password = secrets.token_urlsafe(32)
    config = _CONFIG.format(
        host=_LOOPBACK,
        port=inner,
        connections=MAX_CLIENTS + 10,
        payload=2 * MAX_MESSAGE_BYTES,
        account=_ACCOUNT,
        password=password,
    )
    with tempfile.TemporaryDirectory(prefix="edgeml-broker-") as folder:
        path = Path(folder) / "rumqttd.toml"
        path.touch(0o600)
        path.write_text(config)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _CHILD,
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await _wait_listening(process, inner)
        except BaseException:
            await _end(process)
            raise
    gate = Gate(credentials, (_LOOPBACK, inner), (_ACCOUNT, password))
    try:
        taken = await gate.start(host, port)
    except BaseException:
        await _end(process)
        raise
    return EmbeddedBroker(f"mqtt://{host}:{taken}", gate, process)


async def _wait_listening(process: asyncio.subprocess.Process, port: int) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT_S
    while loop.time() < deadline and process.returncode is None:
        try:
            _, writer = await asyncio.open_connection(_LOOPBACK, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise ToolchainError(
        "The embedded broker did not start.",
        why="iotcore ended or did not listen in time.",
        fix="Use an external broker: --broker mqtt://127.0.0.1:1883",
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
