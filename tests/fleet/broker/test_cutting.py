"""A revoked device's open connection at Debian's Mosquitto, on the files that we write."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cloud_sync.device_api import enroll as enroll_over_http
from cloud_sync.messages import EnrollRequest, Up, topic
from cloud_sync.trust import generate, save_key
from cloud_sync.trust.identity import make_request
from fleet.broker import SUPERUSER
from fleet.broker import cutting as cutting_module
from fleet.broker.cutting import Cutting
from fleet.options import ExternalBroker
from fleet.services import Services, identity
from fleet.services.context import Caller
from tests.e2e.loop import Loop, until
from tests.fleet.broker.test_configuration import Written, connected
from tests.fleet.conftest import Device


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.stop()


def test_the_open_connection_of_a_revoked_device_is_cut_and_does_not_come_back(
    written: Written,
    make: Callable[..., Services],
    enroll: Callable[..., Device],
    operator: Caller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = make(written.data)
    for name in ("cam-1", "cam-2"):
        device = enroll(services, tmp_path, name)
        (written.folder / f"{name}.pem").write_text(device.enrolled.certificate)
        save_key(device.key, written.folder / f"{name}.key")
    broker = ExternalBroker(url=written.url, ca=written.folder / "authorities.pem")
    monkeypatch.setattr(cutting_module, "SOON_S", (0.5,))
    cutting = Cutting(services, broker, again_s=0.5)
    cutting.start()
    thief = connected(written.client("cam-1"))
    other = connected(written.client("cam-2"))
    fleet = connected(written.client(SUPERUSER, "edgeml/v1/+/up/#"))
    try:
        assert identity.revoke(services, operator, "cam-1")
        until("the connection is cut", lambda: "Client cam-1 already connected" in written.log, 30)
        listed = services.keys.folder / "crl.pem"
        (written.folder / "crl.pem").write_text(listed.read_text())
        written.process.send_signal(signal.SIGHUP)
        until("it is kept out", lambda: "certificate" in thief.session.last_error, 30)
    finally:
        cutting.stop()
        services.database.close()
    assert not thief.session.connected
    assert not thief.session.publish(topic("cam-1", Up.STATE), b"still here")
    other.session.publish(topic("cam-2", Up.STATE), b"own")
    until("the other's", lambda: fleet.heard, 30)
    assert fleet.heard == [(topic("cam-2", Up.STATE), b"own")]
    assert other.session.connected


class Behind(Loop):
    """A fleet in a process of its own, whose broker is Mosquitto."""

    def __init__(self, folder: Path, written: Written) -> None:
        super().__init__(folder)
        self._written = written

    def start_fleet(self) -> None:
        port, device_port, _ = map(str, self.ports)
        files = self._written.folder
        self._start(
            "fleet",
            *("fleet", "up", "--data", str(self._written.data), "--port", port),
            *("--device-port", device_port, "--broker", self._written.url),
            *("--broker-ca", str(files / "authorities.pem")),
            *("--broker-cert", str(files / "fleet.pem"), "--broker-key", str(files / "fleet.key")),
        )
        until("the fleet", self._answers)


def test_a_fleet_that_is_up_cuts_whom_an_operator_revokes(written: Written, tmp_path: Path) -> None:
    with closing(Behind(tmp_path, written)) as loop:
        loop.start_fleet()
        connected(written.client("cam-1"))
        token = loop.client.enroll("cam-1", {}, 600)["token"]
        key = generate()
        url = f"http://127.0.0.1:{loop.ports[1]}"
        enroll_over_http(url, EnrollRequest(token=token, csr=make_request("cam-1", key)))
        until("the one before is cut", lambda: cuts(written) == 1, 60)
        loop.client.revoke("cam-1", "stolen")
        until("and again", lambda: cuts(written) > 1, 60)


def cuts(written: Written) -> int:
    return written.log.count("Client cam-1 already connected, closing old connection")
