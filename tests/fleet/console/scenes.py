"""Fleets that one can think of, behind the console's `Reader`: nothing, a story, many devices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet.resources import (
    AuditInfo,
    DeviceInfo,
    Explanation,
    Health,
    ReleaseInfo,
    RolloutInfo,
    VariantInfo,
)

NOW = 1_790_000_000.0
CLASS = "x86_64-avx512_vnni-2c"
ARM = "aarch64-asimddp-4c"
HALTED = (
    "digits:1.1.0 was halted in wave 1 of 2 (1 device): 1 of 1 device failed, none may (cam-1 "
    "rolled back: 3% of 60 results were confident (95 % interval 1% to 11%), the release before "
    "had 96% of 412; at least 77% is wanted). "
    "Every device that it touched was told to go back to what it ran before."
)
SOAKING = "In wave 1 of 3 (1 device) all 7 gates hold on 1 device; it soaks for 41 of 60 s more."
DONE = "digits:1.0.0 is on 3 devices and held 9 gates for 6 s on 3 devices."
ATTACK = "<img src=x onerror=alert(1)><script>alert(2)</script>"


class SceneReader:
    """Shows the scene that a file names, so that a test can change it while pages are open."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def scene(self) -> str:
        return self._file.read_text().strip()

    def changes(self) -> int:
        return self._file.stat().st_mtime_ns

    def now(self) -> float:
        return NOW

    def health(self) -> Health:
        found = self.devices()
        return {
            "status": "ok",
            "version": "0.1.0",
            "started_at": NOW - 900,
            "broker": "mqtt://127.0.0.1:1883",
            "broker_connected": self.scene != "trouble",
            "frozen": "the database was restored" if self.scene == "trouble" else "",
            "epoch": 1,
            "devices": len(found),
            "online": sum(d["online"] for d in found),
            "counters": {"security.untrusted-release": 2} if self.scene == "trouble" else {},
        }

    def devices(self) -> Sequence[DeviceInfo]:
        match self.scene:
            case "empty":
                return []
            case "many":
                return [_device(f"cam-{n:05}", ARM, "1.0.0", n % 50 > 0) for n in range(1000)]
            case "refused":
                return [_refusing(_device("cam-1", CLASS, "1.0.0", True))]
            case "nothing":
                return [_device("cam-1", CLASS, "", True, "idle")]
            case _:
                return [
                    _device("cam-1", CLASS, "1.2.0", True, "trial", site="north"),
                    _device("cam-2", CLASS, "1.0.0", True, site="north"),
                    _device("cam-3", ARM, "1.0.0", False, site="south"),
                ]

    def rollouts(self) -> Sequence[RolloutInfo]:
        match self.scene:
            case "empty":
                return []
            case "many":
                outcomes = ["committed"] * 700 + ["updating"] * 30 + ["failed"] * 3
                outcomes += ["waiting"] * 267
                return [_rollout("1.2.0", "running", "", outcomes, wave=2)]
            case "hostile":
                return [_rollout("1.1.0", "halted", ATTACK, ["failed"], wave=1)]
            case "halted" | "paused" | "aborted":
                return [*self._story(self.scene)]
            case "nothing":
                taken_back = _rollout("1.0.0", "aborted", "", ["restored"])
                taken_back["devices"][0]["running_version"] = ""
                return [taken_back]
            case _:
                return [
                    _rollout("1.2.0", "running", SOAKING, ["committed", "waiting", "waiting"]),
                    *self._story("halted"),
                ]

    def _story(self, status: str) -> Sequence[RolloutInfo]:
        return [
            _rollout("1.1.0", status, HALTED, ["failed", "waiting", "waiting"], waves=2),
            _rollout("1.0.0", "completed", DONE, ["committed"] * 3, wave=2, waves=2),
        ]

    def explain(self, rollout: str) -> Explanation:
        info = next(r for r in self.rollouts() if r["id"] == rollout)
        return {
            "id": info["id"],
            "status": info["status"],
            "wave": info["wave"],
            "sentence": info["sentence"] or "In wave 2 of 3 (25 %), 700 of 733 have committed.",
            "gates": _bad_gates() if info["status"] == "halted" else _good_gates(),
            "actions": [],
            "devices": info["devices"],
        }

    def releases(self) -> Sequence[ReleaseInfo]:
        return [] if self.scene == "empty" else [_release(v) for v in ("1.2.0", "1.1.0", "1.0.0")]

    def events(self) -> Sequence[AuditInfo]:
        if self.scene == "empty":
            return []
        hostile = ATTACK if self.scene == "hostile" else ""
        return [
            _event(9, 19, "controller", "rollout.hold", "digits-1.2.0-ab12cd", hostile),
            _event(8, 80, "operator", "rollout.create", "digits-1.2.0-ab12cd", "retrained on blur"),
            _event(7, 400, "controller", "rollout.halt", "digits-1.1.0-ab12cd", HALTED),
            _event(6, 500, "operator", "rollout.create", "digits-1.1.0-ab12cd", ""),
            _event(5, 4000, "controller", "rollout.complete", "digits-1.0.0-ab12cd", DONE),
            _event(4, 90_000, "operator", "enrollment.create", "cam-3", ""),
        ]


def digest(version: str) -> str:
    return "sha256:" + version.replace(".", "") * 21 + "0"


def _device(
    name: str, hardware: str, version: str, online: bool, phase: str = "committed", **labels: str
) -> DeviceInfo:
    model = {
        "phase": phase,
        "running_version": version,
        "running_release": digest(version),
        "release_version": version,
        "reason": "",
    }
    return {
        "device": name,
        "labels": labels,
        "enrolled_at": NOW - 9000,
        "revoked_at": None,
        "online": online,
        "last_seen": NOW - (1 if online else 400),
        "hardware_class": hardware,
        "agent_version": "0.1.0",
        "boot_id": "b",
        "capabilities": None,
        "reported": {"models": {"digits": model}},
        "desired": None,
        "configuration": {},
        "key_id": "k",
    }


def _refusing(device: DeviceInfo) -> DeviceInfo:
    """A device that refused its fourth configuration."""
    said = {"config_version": 3, "config_error": "the source 'belt': it needs a name and a model"}
    return {
        **device,
        "reported": {**(device["reported"] or {}), **said},
        "configuration": {"config_version": 4},
    }


def _rollout(
    version: str, status: str, sentence: str, outcomes: list[str], wave: int = 1, waves: int = 3
) -> RolloutInfo:
    phases = {"committed": "committed", "failed": "rolled_back", "updating": "downloading"}
    reasons = {"failed": "3% of 60 results were confident, at least 77% is wanted"}
    all_waves: list[dict[str, Any]] = [
        {"count": 1, "percent": None},
        *({"count": None, "percent": p} for p in (25.0, 100.0)),
    ]
    return {
        "id": f"digits-{version}-ab12cd",
        "model": "digits",
        "version": version,
        "release": digest(version),
        "status": status,
        "wave": wave,
        "waves": waves,
        "sentence": sentence,
        "reason": "",
        "created_at": NOW - 90,
        "created_by": "operator",
        "finished_at": None,
        "policy": {"waves": all_waves if waves == 3 else [all_waves[0], all_waves[2]]},
        "devices": [
            {
                "device": f"cam-{n}",
                "hardware_class": CLASS,
                "wave": 1 if outcome != "waiting" else None,
                "phase": phases.get(outcome, ""),
                "outcome": outcome,
                "variant": "sha256:v",
                "running_version": "1.0.0",
                "assigned_at": NOW - 60,
                "reason": reasons.get(outcome, ""),
            }
            for n, outcome in enumerate(outcomes, 1)
        ],
        "counts": {},
    }


def _gate(name: str, result: str, reason: str, **numbers: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("value", "baseline", "bound", "low", "high", "n_needed"))
    return {
        "name": name,
        "result": result,
        "reason": reason,
        "n": 60,
        "unit": "",
        **empty,
        **numbers,
    }


def _good_gates() -> list[dict[str, Any]]:
    one = "cam-1"
    return [
        _gate("devices.failed", "pass", "0 of 1 device failed, none may",
              value=0.0, bound=0.0, unit="devices"),
        _gate(f"{CLASS}: committed", "pass", f"1 of 1 device of {CLASS} committed, 1 must",
              value=1.0, bound=1.0, unit="devices"),
        _gate(f"{CLASS}: golden.outputs", "pass", f"{one}: the largest difference is 0, 0 allowed",
              value=0.0, bound=0.0),
        _gate(f"{CLASS}: live.confident_share", "pass", f"{one}: 97% of 240 were confident",
              value=0.97, bound=0.77, low=0.94, high=0.985, baseline=0.96),
        _gate(f"{CLASS}: live.error_rate", "undecided", f"{one}: 0 of 40 inferences failed",
              value=0.0, bound=0.01, low=0.0, high=0.087),
        _gate(f"{CLASS}: live.latency_p95", "pass", f"{one}: p95 is 3.10 ms",
              value=3.1, bound=14.3, baseline=3.1, unit="ms"),
        _gate(f"{CLASS}: latency_p95_ratio", "pass", f"p95 on {one} is 3.10 ms, before 3.10 ms",
              value=3.1, bound=14.3, baseline=3.1, unit="ms"),
    ]  # fmt: skip


def _bad_gates() -> list[dict[str, Any]]:
    return [
        _gate("devices.failed", "fail", "1 of 1 device failed, none may",
              value=1.0, bound=0.0, unit="devices"),
        _gate(f"{CLASS}: golden.outputs", "pass", "cam-1: the largest difference is 0, 0 allowed",
              value=0.0, bound=0.0),
        _gate(f"{CLASS}: live.confident_share", "fail",
              "cam-1: 3% of 60 results were confident (95 % interval 1% to 11%), the release "
              "before had 96% of 412; at least 77% is wanted",
              value=0.03, bound=0.77, low=0.01, high=0.11, baseline=0.96),
        _gate(f"{CLASS}: live.latency_p95", "pass", "cam-1: p95 is 3.00 ms",
              value=3.0, bound=14.0, baseline=3.1, unit="ms"),
    ]  # fmt: skip


def _release(version: str) -> ReleaseInfo:
    return {
        "model": "digits",
        "version": version,
        "digest": digest(version),
        "bytes": 412_345,
        "created_at": NOW - 900,
        "created_by": "operator",
        "variants": [_variant()],
    }


def _variant() -> VariantInfo:
    return {
        "digest": "sha256:v",
        "target": "cpu-x86-64-vnni",
        "rank": 0,
        "precision": "int8",
        "quantization": "u8s8",
        "format": "onnx",
        "verification": "artifact-executed",
        "bytes": 412_345,
        "requires": {},
        "files": [],
    }


def _event(seq: int, ago: float, actor: str, action: str, subject: str, reason: str) -> AuditInfo:
    return {
        "seq": seq,
        "at": NOW - ago,
        "actor": actor,
        "action": action,
        "subject": subject,
        "reason": reason,
        "detail": {},
        "previous_hash": "",
        "hash": "",
    }
