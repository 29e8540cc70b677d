"""Boards whose clocks are years wrong, a fleet behind TLS, and a first boot without hands."""

import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.client import FleetClient
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until
from tests.e2e.test_tls_broker import Authority
from tests.needs import library

pytestmark = pytest.mark.e2e
DEVICE = "cam-1"
OFF_S = 120.0


class TlsLoop(Loop):
    """The loop with TLS on both listeners; the agent enrols from a bootstrap file."""

    @property
    def client(self) -> FleetClient:
        if self._client is None:
            token = (self.folder / "fleet" / "operator.token").read_text().strip()
            self._client = FleetClient(f"https://localhost:{self.ports[0]}", token)
        return self._client

    def start_fleet(self) -> None:
        certificate = self.folder / "server.pem"
        port, device_port, mqtt_port = map(str, self.ports)
        self._start(
            "fleet",
            *("fleet", "up", "--data", str(self.folder / "fleet"), "--port", port),
            *("--device-port", device_port, "--mqtt-port", mqtt_port),
            *("--tls-cert", str(certificate), "--tls-key", str(certificate.with_suffix(".key"))),
        )
        until("the fleet", self._answers)

    def bootstrap(self, file: Path) -> None:
        done = self.run(
            *("devices", "bootstrap", str(file), "--device", DEVICE),
            *("--devices-url", f"https://localhost:{self.ports[1]}"),
            *("--fleet", f"https://localhost:{self.ports[0]}"),
            *("--data", str(self.folder / "fleet")),
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(params=["2000-01-01", "2040-01-01"])
def loop(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TlsLoop]:
    preload = library("faketime/libfaketime.so.1", "libfaketime")
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nexport LD_PRELOAD={preload} FAKETIME='@{request.param} 00:00:00'\n"
        f'export FAKETIME_DONT_FAKE_MONOTONIC=1\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    authority = Authority.make(tmp_path / "site" / "ca.pem")
    authority.server(tmp_path / "server.pem", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    monkeypatch.setenv("EDGEML_BOOTSTRAP", str(tmp_path / "bootstrap.toml"))
    made = TlsLoop(tmp_path, agent_python=str(python))
    try:
        made.start_fleet()
        yield made
    finally:
        made.close()


def test_it_enrols_by_itself_and_updates_with_the_time_that_the_director_signs(
    loop: TlsLoop,
) -> None:
    begun, file = time.time(), loop.folder / "bootstrap.toml"
    loop.bootstrap(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().partition('token = "')[2].partition('"')[0]
    assert token
    loop.start_agent(DEVICE)
    until("the device", lambda: DEVICE in {d["device"] for d in loop.client.devices()})
    until("the end of the token's file", lambda: not file.exists())
    uri = "images://" + str(loop.folder / "images")
    source = {"name": "pictures", "uri": uri, "model": "toy", "fps": 20.0, "loop": True}
    loop.client.configure(DEVICE, {"sources": [source], "telemetry_every_s": 1.0})
    layout, _ = make_release(loop.folder / "1.0.0", "1.0.0")
    loop.client.push(layout.folder)
    ended = loop.finished(loop.roll_out("1.0.0"))
    assert ended["status"] == "completed", (ended["sentence"], loop.log(DEVICE))
    windows = until("telemetry", lambda: loop.client.telemetry(device=DEVICE))
    assert all(begun - OFF_S < (w["at"] or 0.0) < time.time() + OFF_S for w in windows)
    secrets = (token, *private_halves(loop.folder))
    for log in loop.folder.glob("*.log"):
        found = log.read_text()
        assert not [secret[:12] for secret in secrets if secret in found], log


def private_halves(folder: Path) -> list[str]:
    """What no log may hold: private keys, secrets, tokens and passwords of all parts."""
    found = [folder / "fleet" / "operator.token"]
    found += [path for path in folder.rglob("*.key") if path.is_file()]
    found += list(folder.rglob("*.secret"))
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    texts = [path.read_text().strip() for path in found]
    bodies = ["".join(t.splitlines()[1:-1]) if "PRIVATE" in t else t for t in texts]
    assert len(bodies) >= len(("operator", "director", "ca", "device", "challenge", "session"))
    return bodies
