"""Rollouts: planned, made, watched, changed."""

from collections.abc import Sequence
from typing import Any, cast

from fleet.client.connection import Connection, part
from fleet.cost_resources import CostInfo
from fleet.resources import BlockInfo, Explanation, Plan, RolloutInfo


class RolloutCalls(Connection):
    """Rollouts: planned, made, watched, changed."""

    def plan(self, model: str, version: str, policy: str = "", selector: str | None = None) -> Plan:
        """What a rollout would do, device by device."""
        body = {"model": model, "version": version, "policy": policy, "selector": selector}
        return cast("Plan", self._post("/rollouts/plan", body))

    def create_rollout(
        self,
        model: str,
        version: str,
        policy: str = "",
        selector: str | None = None,
        reason: str = "",
        *,
        draft: bool = False,
    ) -> RolloutInfo:
        """Create a rollout; `policy` is the TOML text. A draft waits for `start`."""
        body = {
            "model": model,
            "version": version,
            "policy": policy,
            "selector": selector,
            "reason": reason,
            "draft": draft,
        }
        return cast("RolloutInfo", self._post("/rollouts", body))

    def rollouts(self, model: str = "") -> list[RolloutInfo]:
        """The rollouts, newest first, without their devices."""
        return list(self._pages("/rollouts", model=model))

    def rollout(self, rollout: str) -> RolloutInfo:
        """One rollout."""
        return cast("RolloutInfo", self._get(f"/rollouts/{part(rollout)}"))

    def explain(self, rollout: str) -> Explanation:
        """Why a rollout stands where it stands."""
        return cast("Explanation", self._get(f"/rollouts/{part(rollout)}/explain"))

    def cost(self, rollout: str) -> CostInfo:
        """What a rollout cost so far, in all and each device."""
        return cast("CostInfo", self._get(f"/rollouts/{part(rollout)}/cost"))

    def start(self, rollout: str, reason: str = "") -> RolloutInfo:
        """Let a draft begin."""
        return self._change(rollout, "start", reason)

    def approve(self, rollout: str, reason: str = "") -> RolloutInfo:
        """Let a rollout begin, or its present wave, as its policy asks."""
        return self._change(rollout, "approve", reason)

    def pause(self, rollout: str, reason: str = "") -> RolloutInfo:
        """Pause a rollout."""
        return self._change(rollout, "pause", reason)

    def resume(self, rollout: str, reason: str = "") -> RolloutInfo:
        """Go on with a paused rollout."""
        return self._change(rollout, "resume", reason)

    def abort(self, rollout: str, reason: str = "") -> RolloutInfo:
        """End a rollout; its policy says whether devices get back what they ran before."""
        return self._change(rollout, "abort", reason)

    def retry(self, rollout: str, devices: Sequence[str] = (), reason: str = "") -> RolloutInfo:
        """Try again the devices that failed, or those of them that are named."""
        body = {"devices": list(devices), "reason": reason}
        path = f"/rollouts/{part(rollout)}/retry"
        return cast("RolloutInfo", self._post(path, body))

    def override(self, rollout: str, gate: str, reason: str) -> RolloutInfo:
        """Let a gate of the present wave pass, though it does not."""
        body = {"gate": gate, "reason": reason}
        path = f"/rollouts/{part(rollout)}/override"
        return cast("RolloutInfo", self._post(path, body))

    def rollback(self, rollout: str, to: str = "", reason: str = "") -> RolloutInfo:
        """Roll the devices that a rollout reached back to a version."""
        path = f"/rollouts/{part(rollout)}/rollback"
        return cast("RolloutInfo", self._post(path, {"to": to, "reason": reason}))

    def blocks(self) -> list[BlockInfo]:
        """The releases that no device of a hardware class is given any more."""
        return cast("list[BlockInfo]", self._get("/rollouts/blocks"))

    def block(self, model: str, version: str, hardware_class: str, reason: str) -> list[BlockInfo]:
        """Give a release to no device of a hardware class any more."""
        body = _blocked(model, version, hardware_class, reason)
        return cast("list[BlockInfo]", self._post("/rollouts/blocks", body))

    def unblock(
        self, model: str, version: str, hardware_class: str, reason: str
    ) -> list[BlockInfo]:
        """Let devices of a hardware class have a release again."""
        body = _blocked(model, version, hardware_class, reason)
        return cast("list[BlockInfo]", self._post("/rollouts/blocks/remove", body))

    def _change(self, rollout: str, verb: str, reason: str) -> RolloutInfo:
        path = f"/rollouts/{part(rollout)}/{verb}"
        return cast("RolloutInfo", self._post(path, {"reason": reason}))


def _blocked(model: str, version: str, hardware_class: str, reason: str) -> dict[str, Any]:
    return {
        "model": model,
        "version": version,
        "hardware_class": hardware_class,
        "reason": reason,
    }
