"""A device that has no network after its enrolment: everything comes on a stick."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.errors import ExitCode
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until

pytestmark = pytest.mark.e2e
DEVICE = "cam-1"


class Offline(Loop):
    """A loop whose fleet is down whenever the device acts."""

    @property
    def there(self) -> tuple[str, ...]:
        url = f"http://127.0.0.1:{self.ports[0]}"
        return ("--fleet", url, "--data", str(self.folder / "fleet"))

    @property
    def config(self) -> str:
        return str(self.folder / DEVICE / "agent.toml")

    def push(self, version: str) -> None:
        layout, _ = make_release(self.folder / version, version, seed=int(version[0]))
        self.client.push(layout.folder)

    def want(self, version: str) -> None:
        """Roll a release out, and wait until the fleet wants it of the device."""
        if version not in {r["version"] for r in self.client.releases("toy")}:
            self.push(version)
        self.roll_out(version)
        until(f"{version} to be wanted", lambda: self._wanted() == version)

    def export(self, name: str) -> Path:
        out = self.folder / name
        done = self.run("releases", "export", "--device", DEVICE, "--out", str(out), *self.there)
        assert done.returncode == 0, done.stderr
        return out

    def bring(self, bundle: Path) -> tuple[int, str, dict[str, object]]:
        """Import; returns the exit code, what was said, and what was printed."""
        done = self.run("agent", "import", str(bundle), "--config", self.config, "--json")
        found = json.loads(done.stdout) if done.stdout else {}
        return done.returncode, done.stderr + done.stdout, found

    def running(self) -> str:
        done = self.run("agent", "status", "--config", self.config, "--json")
        models = json.loads(done.stdout)["models"]
        return str(models["toy"]["running_version"]) if models else ""

    def _wanted(self) -> str:
        desired = self.client.device(DEVICE)["desired"]
        models = desired["models"] if desired else {}
        return str(models["toy"]["release_version"]) if models else ""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Offline]:
    loop = Offline(tmp_path)
    try:
        loop.start_fleet()
        loop.enroll(DEVICE)
        yield loop
    finally:
        loop.close()


def test_a_device_without_a_network_is_installed_from_a_stick(loop: Offline) -> None:
    loop.want("1.0.0")
    folder = loop.export("first")
    loop.client.abort(loop.client.rollouts()[0]["id"])
    loop.want("2.0.0")
    file = loop.export("second.tar")
    assert loop.stop("fleet") == 0

    # No agent runs: one does for as long as it takes.
    code, said, found = loop.bring(folder)
    assert code == 0, said
    assert found["models"]["toy"] == {"version": "1.0.0", "phase": "committed", "reason": ""}  # type: ignore[index]
    assert loop.running() == "1.0.0"

    # An agent runs, and takes it over.
    loop.start_agent(DEVICE)
    until("the agent", lambda: f"{DEVICE} is up" in loop.log(DEVICE))
    code, said, found = loop.bring(file)
    assert code == 0, said
    assert loop.running() == "2.0.0"

    # The stick of before is a replay now.
    code, said, _ = loop.bring(folder)
    assert code == ExitCode.TRUST
    assert "older than" in said
    assert loop.running() == "2.0.0"

    # The same one again changes nothing.
    code, said, _ = loop.bring(file)
    assert code == 0, said
    assert loop.running() == "2.0.0"


def test_a_bundle_for_another_device_is_refused(loop: Offline, tmp_path: Path) -> None:
    loop.want("1.0.0")
    bundle = loop.export("first")
    info = json.loads((bundle / "edgeml-bundle.json").read_text())
    (bundle / "edgeml-bundle.json").write_text(json.dumps(info | {"device": "cam-2"}))
    code, said, _ = loop.bring(bundle)
    assert code == ExitCode.USAGE
    assert "for 'cam-2'" in said
    assert not (tmp_path / DEVICE / "import" / "waiting").exists()


def test_a_device_that_nothing_is_wanted_of_gets_no_bundle(loop: Offline) -> None:
    out = str(loop.folder / "none")
    done = loop.run("releases", "export", "--device", DEVICE, "--out", out, *loop.there)
    assert done.returncode != 0
    assert "Nothing is wanted" in done.stderr


def test_a_decommissioned_device_deletes_what_it_has(loop: Offline) -> None:
    loop.want("1.0.0")
    loop.start_agent(DEVICE)
    until("results", lambda: loop.results(DEVICE))
    done = loop.run("devices", "decommission", DEVICE, "--wipe", "--json", *loop.there)
    assert done.returncode == 0, done.stderr
    until("the device's word", lambda: loop.client.decommissioned(DEVICE)["status"] == "done")
    data = loop.folder / DEVICE
    until("the wipe", lambda: [path.name for path in data.iterdir()] == ["wipe"])
    device = loop.client.device(DEVICE)
    assert device["revoked_at"] is not None
    assert device["labels"] == {}
    assert device["configuration"]["sources"] == []
    assert loop.client.verify_audit() > 0
    shutil.rmtree(data)
