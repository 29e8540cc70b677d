"""Debian's Mosquitto on a free port; `kill` takes all that it holds in memory along."""

import getpass
import signal
import subprocess
from pathlib import Path

from cloud_sync.mqtt_session import MqttSession
from tests.e2e.loop import _free_port, until
from tests.needs import program

_MORE = "allow_zero_length_clientid false\nmax_queued_messages 100000\nmax_inflight_messages 100\n"


class Mosquitto:
    """See the module.

    Args:
        folder: where its configuration, its log and, if it is to keep any, its state go.
        persistent: whether it keeps sessions and messages on the disk.
    """

    def __init__(self, folder: Path, *, persistent: bool = False) -> None:
        self.port = _free_port()
        self._program = program("mosquitto", "mosquitto")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "mosquitto.conf"
        keeps = f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
        self._config.write_text(
            f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1\nallow_anonymous true\n"
            + _MORE
            + (keeps if persistent else "persistence false\n")
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._config)], stdout=log, stderr=log
            )
        probe = MqttSession(
            f"mqtt://127.0.0.1:{self.port}", "probe", on_message=lambda _topic, _payload: None
        )
        probe.start()
        until("Mosquitto", lambda: probe.connected, 30)
        probe.close()

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """End it properly; what it keeps is on the disk then."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
