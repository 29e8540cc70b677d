"""The brokers that are put to the contract, each started as a process with a list of accounts.

A candidate reads the accounts from a JSON file {username: password} that the contract changes
while it runs; one that cannot do so without a restart fails that line.
"""

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.broker_contract.client import MQTT_3, MQTT_5, until

FLEET = "edgeml-fleet"
ACCOUNTS = {FLEET: "fleet-secret", "dev-a": "secret-a", "dev-b": "secret-b"}
HOSTS = Path(__file__).parent / "hosts"


class NotStartedError(RuntimeError):
    """A candidate's process ended before it accepted a connection: nothing was measured."""


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether something accepts connections on this port."""
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Candidate(ABC):
    """One broker process on a port of its own; `accounts` may change while it runs."""

    protocol = MQTT_5

    def __init__(self, folder: Path, accounts: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.accounts = dict(accounts or ACCOUNTS)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "broker.log"

    @abstractmethod
    def command(self) -> list[str]:
        """Write what the broker reads and return its command line."""

    def changed(self) -> None:
        """Bring changed accounts to the running broker."""
        self.write_accounts()

    def write_accounts(self) -> None:
        """Write the accounts for a hosted broker, at once."""
        beside = self.folder / "accounts.new"
        beside.write_text(json.dumps(self.accounts))
        os.replace(beside, self.folder / "accounts.json")

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        self.write_accounts()
        try:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        except OSError as error:
            raise NotStartedError(str(error)) from error
        process = self.process
        until(lambda: answers(self.port) or process.poll() is not None, 15)
        if process.poll() is not None or not answers(self.port):
            raise NotStartedError(self.log.read_text()[-1000:])

    def stop(self) -> float:
        """Ask it to end; returns the exit status, -9 when it had to be killed."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -9

    def processes(self) -> list[psutil.Process]:
        """Return the process and its children."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def rss_mb(self) -> float:
        """Return the resident memory of all its processes, in MB."""
        return float(sum(p.memory_info().rss for p in self.processes()) / 1e6)

    def listens(self) -> set[str]:
        """Return the addresses that its processes listen on."""
        return {
            connection.laddr.ip
            for process in self.processes()
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }


class Mosquitto(Candidate):
    """Debian's Mosquitto: password file and pattern ACL, read again on SIGHUP."""

    def command(self) -> list[str]:
        """Write its configuration and return its command line."""
        self._passwords()
        (self.folder / "acl").write_text(
            f"user {FLEET}\ntopic readwrite #\n\npattern readwrite edgeml/v1/%u/#\n"
        )
        config = self.folder / "mosquitto.conf"
        config.write_text(
            # Started by root, Mosquitto would become its own user, who may not read these files.
            f"user {getpass.getuser()}\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\n"
            f"password_file {self.folder}/passwords\nacl_file {self.folder}/acl\n"
            "use_username_as_clientid true\nset_tcp_nodelay true\nmax_packet_size 1048576\n"
        )
        return ["/usr/sbin/mosquitto", "-c", str(config)]

    def changed(self) -> None:
        """Write the password file again and have it read."""
        self._passwords()
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        # Mosquitto says nothing when it has read the file; a second is what its loop may take.
        until(lambda: False, 1.0)

    def _passwords(self) -> None:
        path = self.folder / "passwords"
        path.write_text("".join(f"{user}:{word}\n" for user, word in self.accounts.items()))
        path.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)


class Hosted(Candidate):
    """A Python broker in a child process, by one of the small programs in `hosts/`."""

    host = ""
    python = sys.executable

    def command(self) -> list[str]:
        """Write its configuration and return its command line."""
        return [
            self.python,
            str(HOSTS / self.host),
            str(self.port),
            str(self.folder / "accounts.json"),
        ]


class Iotcore(Candidate):
    """iotcore (rumqttd): static accounts in its TOML; it has no rules for topics."""

    def command(self) -> list[str]:
        """Write its configuration and return its command line."""
        words = "\n".join(f'{user} = "{word}"' for user, word in self.accounts.items())
        config = self.folder / "rumqttd.toml"
        config.write_text(
            "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n"
            "max_segment_size = 104857600\nmax_segment_count = 10\n"
            f'[v5.1]\nname = "v5"\nlisten = "127.0.0.1:{self.port}"\n'
            "next_connection_delay_ms = 1\n[v5.1.connections]\nconnection_timeout_ms = 5000\n"
            "max_payload_size = 1048576\nmax_inflight_count = 100\ndynamic_filters = true\n"
            f"[v5.1.connections.auth]\n{words}\n"
        )
        return [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "ERROR"]

    def changed(self) -> None:
        """Nothing to tell it: accounts are read at the start only."""


class Amqtt(Hosted):
    """amqtt with an authentication and a topic plugin; it knows 3.1.1 only."""

    host = "amqtt_host.py"
    protocol = MQTT_3


class Moat(Hosted):
    """moat-lib-mqtt with an authenticator and an authorizer, by an interpreter that has it."""

    host = "moat_host.py"
    python = os.environ.get("EDGEML_MOAT_PYTHON", sys.executable)


class Ours(Hosted):
    """The product's embedded broker (`fleet.broker`)."""

    host = "edgeml_host.py"


CANDIDATES: dict[str, Callable[[Path], Candidate]] = {
    "mosquitto": Mosquitto,
    "edgeml": Ours,
    "iotcore": Iotcore,
    "moat": Moat,
    "amqtt": Amqtt,
}
