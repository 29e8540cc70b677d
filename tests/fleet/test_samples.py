"""Captured frames on their whole way: off a device's disk, through the fleet, into a folder.

The device's own uploader speaks to real listeners; tests/faults/test_samples.py harms both.
"""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from cloud_sync.device_api import DeviceClient
from cloud_sync.messages import CapturePolicy, Cause, DataBudget
from cloud_sync.metering import Meter
from converters.dataset import open_dataset
from edge_agent import sample_upload
from edge_agent.ledger import Ledger
from edge_agent.sample_upload import Days, SampleUpload
from edgeml.cli import app
from edgeml.errors import EdgemlError, TrustError, UserError
from fleet.client import FleetClient
from fleet.db import tables
from fleet.roles import Role
from fleet.services import Caller, credentials, users
from fleet.services.credentials import Kind
from tests.fleet.conftest import Device, Listening

MODEL = "digits"
ASKED = {"capture": {MODEL: {"upload": True}}}
NOVEMBER_15 = 1_794_700_800.0  # half of the month has passed
RNG = np.random.default_rng(7)


@dataclass
class Bench:
    """A device's uploader, whose turns a test takes, and what it works on."""

    folder: Path
    device: Device
    policies: dict[str, CapturePolicy] = field(
        default_factory=lambda: {MODEL: CapturePolicy(upload=True)}
    )
    budget: DataBudget = field(default_factory=DataBudget)
    now: float = NOVEMBER_15
    busy_after: float = float("inf")
    asked: int = 0
    connections: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder / "ledger.db", lambda: self.budget, lambda: self.now)
        self.upload = SampleUpload(
            self.folder / "captured",
            Days(self.folder / "samples.json", lambda: self.now),
            policies=lambda: self.policies,
            is_busy=self._is_busy,
            connect=self._connect,
            ledger=self.ledger,
            now=lambda: self.now,
            stop=self.stop,
        )

    def _is_busy(self) -> bool:
        self.asked += 1
        return self.asked > self.busy_after

    def _connect(self, meter: Meter) -> DeviceClient:
        self.connections += 1
        return DeviceClient(self.device.base_url, self.device.device, self.device.key, None, meter)

    def keep(self, second: int, picture: np.ndarray[Any, Any], **said: Any) -> Path:
        """A frame as `edge_agent.captured` keeps it; returns its picture."""
        at = 1_794_700_000.0 + second
        line = {"t": at, "source": "belt", "model": MODEL}
        line |= {"release_version": "1.0.0", "label": "7", "confidence": 0.4, "confident": False}
        home = self.folder / "captured" / MODEL
        home.mkdir(parents=True, exist_ok=True)
        frame = home / f"{round(at * 1000):013}-belt-{second}.png"
        cv2.imwrite(str(frame), picture, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        frame.with_suffix(".json").write_text(json.dumps(line | said))
        return frame

    def left(self) -> list[str]:
        """What still lies on the device."""
        return sorted(p.name for p in (self.folder / "captured").rglob("*") if p.is_file())

    def turns(self, number: int) -> None:
        for _ in range(number):
            self.upload.turn()

    def close(self) -> None:
        self.upload.close()
        self.ledger.close()


def noise(size: int = 24) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture
def bench(
    tmp_path: Path,
    fleet: Listening,
    make_device: Callable[..., Device],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    monkeypatch.setattr(sample_upload, "PAUSE_S", (0.01, 0.02))
    monkeypatch.setattr(sample_upload, "LOOK_S", 0.01)
    device = make_device("cam-1", site="north")
    fleet.client.configure("cam-1", ASKED)
    (tmp_path / "device").mkdir()
    made = Bench(tmp_path / "device", device)
    yield made
    made.close()


@pytest.fixture
def run(fleet: Listening, tmp_path: Path) -> Callable[..., str]:
    def make(*arguments: str) -> str:
        environment = {"EDGEML_FLEET": fleet.operators, "EDGEML_FLEET_DATA": f"{tmp_path}/fleet"}
        done = CliRunner().invoke(app, ["samples", *arguments], env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return make


def test_frames_go_up_oldest_first_are_deleted_pulled_and_read_by_convert(
    bench: Bench, fleet: Listening, run: Callable[..., str], tmp_path: Path
) -> None:
    pictures = [noise() for _ in range(3)]
    for second in (2, 0, 1):
        bench.keep(second, pictures[second])
    bench.turns(1)
    [first] = fleet.client.samples()
    assert first["captured_at"] == 1_794_700_000.0
    bench.turns(2)
    assert bench.left() == []
    assert bench.ledger.spent(cause=Cause.SAMPLES) > 3 * 24 * 24 * 3

    assert "unsure" in run("list", "--model", MODEL, "--reason", "unsure")
    assert json.loads(run("list", "--reason", "failed", "--json")) == []
    hard = tmp_path / "hard"
    said = json.loads(
        run("pull", "--model", MODEL, "--out", str(hard), "--why", "retrain", "--json")
    )
    assert (said["frames"], said["gone"]) == (3, 0)
    table = [json.loads(line) for line in (hard / "samples.jsonl").read_text().splitlines()]
    assert [line["result"]["label"] for line in table] == ["7", "7", "7"]
    for line, picture in zip(table, pictures, strict=True):
        found = cv2.imread(str(hard / line["file"]))
        assert found is not None
        assert np.array_equal(found, picture)

    calibration = open_dataset(hard)
    assert (len(calibration), calibration.labels) == (3, None)
    rows = [f"{line['file']},{number}" for number, line in enumerate(table)]
    (hard / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    labels = open_dataset(hard).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2]

    [entry] = [e for e in fleet.client.audit() if e["action"] == "samples.pull"]
    assert (entry["subject"], entry["reason"], entry["detail"]["number"]) == (MODEL, "retrain", 3)
    bench.keep(9, noise())
    bench.turns(1)
    # What was pulled before is not fetched again, nor does a line that was cut short matter.
    (hard / "samples.jsonl").write_bytes((hard / "samples.jsonl").read_bytes() + b'{"torn')
    assert json.loads(run("pull", "--model", MODEL, "--out", str(hard), "--json"))["frames"] == 1
    assert len((hard / "samples.jsonl").read_text().splitlines()) == 4
    assert f"0 frames, 0.0 MB, came into {hard}, which has 4." in run(
        "pull", "--model", MODEL, "--out", str(hard)
    )
    with pytest.raises(UserError, match="chosen otherwise") as refused:
        run("pull", "--model", MODEL, "--out", str(hard), "--reason", "failed")
    assert f"with --model {MODEL}, and not with --model {MODEL} --reason failed" in str(
        refused.value
    )
    assert "of this choice" in run("list", "--reason", "failed")


def test_a_device_that_is_not_told_to_sends_nothing(bench: Bench) -> None:
    bench.policies = {MODEL: CapturePolicy()}
    bench.keep(0, noise())
    bench.turns(3)
    assert bench.connections == 0
    assert len(bench.left()) == 2


def test_a_frame_that_the_fleet_does_not_ask_for_stays_and_is_warned_of_once(
    bench: Bench, fleet: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.client.configure("cam-1", {})
    bench.keep(0, noise())
    bench.turns(3)
    assert len(bench.left()) == 2
    assert len([m for m in caplog.messages if "not asked for" in m]) == 1
    fleet.client.configure("cam-1", ASKED)
    bench.turns(1)
    assert bench.left() == []


def test_a_days_bytes_are_not_exceeded_and_a_frame_goes_on_the_next_day(
    bench: Bench, fleet: Listening
) -> None:
    bench.policies = {MODEL: CapturePolicy(upload=True, upload_mb_a_day=1)}
    for second in range(2):
        bench.keep(second, noise(450))  # 0.6 MB each
    bench.turns(4)
    assert len(fleet.client.samples()) == 1
    [part] = (fleet.services.samples.folder / MODEL / "cam-1").glob("coming/*.part")
    [whole] = (fleet.services.samples.folder / MODEL / "cam-1").glob("*.png")
    assert part.stat().st_size + whole.stat().st_size == 1 << 20
    bench.turns(2)
    assert part.stat().st_size + whole.stat().st_size == 1 << 20
    bench.now += 86400.0
    bench.turns(1)
    assert bench.left() == []
    assert len(fleet.client.samples()) == 2


def test_of_the_months_budget_only_the_part_that_has_passed_is_taken(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.keep(0, noise(200))  # 120 KB, which cost about 146 KB
    bench.budget = DataBudget(month_bytes=250_000)
    bench.turns(2)
    assert bench.connections == 1
    assert bench.ledger.spent() == 0
    assert "for the days until now" in caplog.text
    bench.now += 10 * 86400.0
    bench.turns(1)
    assert bench.left() == []


def test_nothing_goes_beside_an_update_and_what_was_sent_stays_sent(
    bench: Bench, fleet: Listening
) -> None:
    bench.keep(0, noise(300))  # 270 KB, five pieces
    bench.busy_after = 0
    bench.turns(2)
    assert bench.connections == 0
    bench.asked, bench.busy_after = 0, 3  # an update begins after two pieces
    bench.turns(1)
    [part] = (fleet.services.samples.folder / MODEL / "cam-1").glob("coming/*.part")
    assert part.stat().st_size == 2 * sample_upload.PIECE_BYTES
    bench.busy_after = float("inf")
    bench.turns(1)
    assert bench.left() == []
    assert bench.ledger.spent(cause=Cause.SAMPLES) < 1.2 * 270_000


def test_a_frame_that_is_never_taken_is_put_aside_and_the_next_goes_up(
    bench: Bench, fleet: Listening
) -> None:
    bench.keep(0, noise(), text="x" * (1 << 19))
    bench.keep(1, noise())
    bench.keep(2, noise()).unlink()  # it had to make room
    bench.keep(3, noise()).with_suffix(".json").write_text("{damaged")
    bench.keep(4, noise()).with_suffix(".json").write_text("[]")
    bench.keep(5, noise(), t=10**30)
    bench.turns(6)
    assert len(fleet.client.samples()) == 1
    assert [name.partition(".")[2] for name in bench.left()] == ["png", "refused"] * 4


def token(fleet: Listening, name: str, role: Role, scope: str = "") -> str:
    users.create(fleet.services, Caller("a test"), name, role, scope=scope)
    with fleet.services.database.write() as session:
        owner = users.principal_of(session.get_one(tables.User, name))
        secret, _ = credentials.issue(fleet.services, session, Kind.TOKEN, owner, 3600.0, name="t")
    return secret


def test_frames_are_for_operators_of_the_scope(bench: Bench, fleet: Listening) -> None:
    bench.keep(0, noise())
    bench.turns(1)

    def client(name: str, role: Role, scope: str = "") -> FleetClient:
        return FleetClient(fleet.operators, token(fleet, name, role, scope))

    with client("vera", Role.VIEWER) as viewer, pytest.raises(TrustError, match="may not"):
        viewer.samples()
    with client("sue", Role.OPERATOR, "site=south") as south:
        assert south.samples() == []
        with south.pull_samples(MODEL) as stream:
            assert b".png" not in stream.read()
    with client("nora", Role.OPERATOR, "site=north") as north:
        assert len(north.samples()) == 1


def test_frames_that_are_pulled_are_kept_nowhere_else(bench: Bench, fleet: Listening) -> None:
    bench.keep(0, noise())
    bench.turns(1)
    pull = f"{fleet.operators}/api/v1/samples/pull"
    secret = token(fleet, "nora", Role.OPERATOR)
    headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "twice"}
    for _ in range(2):
        answer = httpx.post(pull, json={"model": MODEL}, headers=headers, timeout=60)
        assert (answer.status_code, b".png" in answer.content) == (200, True)
        assert "Idempotent-Replayed" not in answer.headers


def test_a_folder_that_is_something_else_is_not_pulled_into(
    run: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "samples.jsonl").write_text("no table\n")
    with pytest.raises(UserError, match="is no table"):
        run("pull", "--model", MODEL, "--out", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        run("pull", "--model", MODEL, "--out", str(tmp_path / "file"))
    assert "There are no frames" in run("list")


def test_a_piece_without_an_offset_or_too_long_is_refused(bench: Bench) -> None:
    client = bench.device.client()
    for query, piece in (("", b"x"), ("?offset=-1", b"x"), ("?offset=0", bytes((1 << 20) + 1))):
        path = f"/device/v1/samples/{MODEL}/sha256:{'a' * 64}{query}"
        answer = client._client.put(path, content=piece)
        assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
