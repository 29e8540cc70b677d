"""The time that the fleet has proven: what raises it, what lowers it, and what waits for it."""

import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_sync.desired import StateError
from cloud_sync.messages import DesiredState, SecurityRecord, encode
from cloud_sync.trust import PayloadType, generate, sign
from cloud_sync.trust.identity import make_ca
from cloud_sync.trust.messages import SignedTime
from cloud_sync.trust.tls import check_dates
from edge_agent.trust.director import Director
from edge_agent.trust.identity import load_identity
from edge_agent.trust.trusted_clock import KEEP_EVERY_S, TrustedClock
from edge_agent.update.journal import DeviceState
from edgeml.errors import RemoteError, TrustError
from tests.edge_agent.scene import DEVICE, Scene

NOW = 1_800_000_000.0
YEAR_S = 365 * 86400.0


class Board:
    """A clock of ours, whose wall and boot clock a test moves."""

    def __init__(self, folder: Path, wall: float) -> None:
        self.wall, self.boot, self.folder = wall, 100.0, folder
        self.start()

    def start(self) -> None:
        self.clock = TrustedClock(
            self.folder / "time.json",
            NOW,
            wall=lambda: self.wall,
            boot_clock=lambda: self.boot,
        )

    def tell(self, at: float, reset: str = "") -> bool:
        return self.clock.tell(SignedTime(device="cam-1", nonce="n" * 20, at=at, reset=reset))


@pytest.mark.parametrize("wall", [NOW - 20 * YEAR_S, NOW - 1.0])
def test_a_wall_clock_behind_what_is_proven_is_no_time(tmp_path: Path, wall: float) -> None:
    board = Board(tmp_path, wall)
    assert board.clock.now() is None
    assert board.clock.of_tls() == NOW
    board.tell(NOW + 50.0)
    board.boot += 10.0
    assert board.clock.now() == board.clock.floor() == NOW + 60.0


def test_a_wall_clock_far_ahead_is_overruled_once_the_fleet_has_told(tmp_path: Path) -> None:
    board = Board(tmp_path, NOW + 20 * YEAR_S)
    assert board.clock.now() == board.wall
    board.tell(NOW + 5.0)
    assert board.clock.now() == NOW + 5.0


def test_proofs_only_raise_the_floor_and_it_lasts_over_a_restart(tmp_path: Path) -> None:
    board = Board(tmp_path, NOW)
    for at in (NOW + 2 * KEEP_EVERY_S, NOW - YEAR_S, NOW):
        board.clock.prove(at)
    assert board.clock.floor() == NOW + 2 * KEEP_EVERY_S
    board.start()
    assert board.clock.floor() == NOW + 2 * KEEP_EVERY_S
    board.tell(NOW)  # an answer without a reset lowers nothing
    assert board.clock.floor() >= NOW + 2 * KEEP_EVERY_S


def test_only_a_reset_lowers_the_floor_and_it_does_so_once(tmp_path: Path) -> None:
    board = Board(tmp_path, NOW)
    board.clock.prove(NOW + 10 * YEAR_S)
    assert board.tell(NOW + 60.0, "reset-1")
    assert board.clock.floor() == NOW + 60.0
    board.start()
    assert board.clock.floor() == NOW + 60.0
    board.clock.prove(NOW + YEAR_S)
    assert not board.tell(NOW + 120.0, "reset-1")
    assert board.clock.floor() >= NOW + YEAR_S


class Asked:
    """A fleet that answers the question for the time as a test likes."""

    def __init__(self, scene: Scene, **wrong: Any) -> None:
        self.scene, self.wrong = scene, wrong

    def time(self, nonce: str) -> bytes:
        fields = {"device": DEVICE, "nonce": nonce, "at": NOW} | self.wrong
        key = fields.pop("key", self.scene.fleet.director)
        return sign(encode(SignedTime(**fields)), PayloadType.TIME, key)


def director_of(scene: Scene, told: list[SecurityRecord]) -> Director:
    identity = load_identity(scene.config)
    return Director(identity, DeviceState, lambda _root: None, told.append)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("wrong", [{"nonce": "o" * 32}, {"device": "cam-2"}, {"key": generate()}])
def test_a_time_that_answers_another_question_is_refused(
    scene: Scene, wrong: dict[str, Any]
) -> None:
    director = director_of(scene, [])
    with pytest.raises((TrustError, RemoteError)):
        director.ask_time(Asked(scene, **wrong))  # type: ignore[arg-type]
    assert not director.clock.is_told


def state(scene: Scene, expires_at: float) -> bytes:
    wanted = DesiredState(device=DEVICE, epoch=1, counter=1, issued_at=NOW, expires_at=expires_at)
    return sign(encode(wanted), PayloadType.DESIRED, scene.fleet.director)


def test_an_expired_state_is_refused_by_the_told_time(scene: Scene) -> None:
    told: list[SecurityRecord] = []
    director = director_of(scene, told)
    director.ask_time(Asked(scene, at=director.clock.floor() + YEAR_S))  # type: ignore[arg-type]
    now = director.clock.floor()
    with pytest.raises(StateError, match="expired"):
        director.accept(state(scene, now - 60.0), asked=True)
    assert [record.detail.partition(":")[0] for record in told] == ["expired"]
    assert director.accept(state(scene, now + 60.0), asked=False).counter == 1


def test_without_a_time_nothing_new_is_taken(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    director = director_of(scene, [])
    identity = director.identity
    director.clock = TrustedClock(identity.data / "t.json", NOW, wall=lambda: NOW - 30 * YEAR_S)
    for asked in (True, False):
        with pytest.raises(RemoteError, match="has not told the time"):
            director.accept(state(scene, NOW + 60.0), asked=asked)
    director.ask_time(Asked(scene))  # type: ignore[arg-type]
    assert director.accept(state(scene, NOW + 60.0), asked=True).counter == 1


def test_dates_of_certificates_are_judged_by_the_given_time() -> None:
    made = dt.datetime.fromtimestamp(NOW, dt.UTC)
    pem = make_ca(generate(), made)
    chain = [x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)]
    check_dates(chain, NOW)
    check_dates(chain, None)
    for wrong in (NOW - YEAR_S, NOW + 11 * YEAR_S):
        with pytest.raises(ssl.SSLCertVerificationError):
            check_dates(chain, wrong)
