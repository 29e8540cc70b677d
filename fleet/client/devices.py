"""Devices: enrolment, labels, configuration, commands, and what they cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from fleet.client.connection import Connection, part
from fleet.resources import (
    BundleContents,
    CommandInfo,
    DecommissionInfo,
    DeviceInfo,
    EnrollmentToken,
    LedgerInfo,
)

if TYPE_CHECKING:
    from fleet.services.census import Census


class DeviceCalls(Connection):
    """Devices: enrolment, labels, configuration, commands, and what they cost."""

    def enroll(
        self, device: str, labels: Mapping[str, str], ttl_s: float, reason: str = ""
    ) -> EnrollmentToken:
        """Make a one-time enrolment token."""
        body = {"device": device, "labels": dict(labels), "ttl_s": ttl_s, "reason": reason}
        return cast("EnrollmentToken", self._post("/enrollments", body))

    def enroll_many(
        self,
        devices: Mapping[str, Mapping[str, str]],
        ttl_s: float,
        reason: str = "",
        *,
        uses: int = 1,
    ) -> list[EnrollmentToken]:
        """Make a token for each of several devices, with their labels."""
        labels = {device: dict(given) for device, given in devices.items()}
        body = {"devices": labels, "ttl_s": ttl_s, "uses": uses, "reason": reason}
        return cast("list[EnrollmentToken]", self._post("/enrollments/batch", body))

    def revoke(self, device: str, reason: str = "") -> DeviceInfo:
        """Let a device in no more."""
        path = f"/devices/{part(device)}/revoke"
        return cast("DeviceInfo", self._post(path, {"reason": reason}))

    def devices(self, selector: str = "") -> list[DeviceInfo]:
        """All devices that a label selector chooses."""
        return list(self._pages("/devices", selector=selector))

    def device(self, device: str) -> DeviceInfo:
        """One device."""
        return cast("DeviceInfo", self._get(f"/devices/{part(device)}"))

    def ledger(self, device: str, *, month: str = "", rollout: str = "") -> LedgerInfo:
        """What a device spent on the network."""
        path = f"/devices/{part(device)}/ledger"
        return cast("LedgerInfo", self._get(path, month=month, rollout=rollout))

    def configure(self, device: str, settings: Mapping[str, Any], reason: str = "") -> DeviceInfo:
        """Replace a device's configuration."""
        path = f"/devices/{part(device)}/configuration"
        return cast("DeviceInfo", self._put(path, dict(settings), reason))

    def labels(self, device: str) -> tuple[dict[str, str], str]:
        """A device's labels, and the ETag with which a change of them is lost by nobody."""
        response = self._answer("GET", f"/devices/{part(device)}/labels")
        return response.json(), response.headers["etag"]

    def label(
        self, device: str, labels: Mapping[str, str], reason: str = "", *, etag: str = ""
    ) -> DeviceInfo:
        """Replace a device's labels; with `etag` only if they are still those that were read."""
        path = f"/devices/{part(device)}/labels"
        return cast("DeviceInfo", self._put(path, dict(labels), reason, etag))

    def label_devices(
        self,
        devices: Sequence[str],
        put: Mapping[str, str],
        drop: Sequence[str] = (),
        reason: str = "",
    ) -> int:
        """Set some labels of up to 500 devices and take others away; returns how many changed."""
        body = {"devices": list(devices), "put": dict(put), "drop": list(drop), "reason": reason}
        return int(self._post("/device-labels", body)["changed"])

    def count_devices(self, selector: str = "", **like: str) -> int:
        """How many devices are like that: `name`, `state`, `hardware_class`, `model`, `version`."""
        return int(self._get("/device-count", selector=selector, **like)["count"])

    def census(self, selector: str = "", label: str = "") -> "Census":
        """The devices counted by class and by what they run, and by the values of a label."""
        return cast("Census", self._get("/census", selector=selector, label=label))

    def command(
        self,
        device: str,
        kind: str,
        *,
        source: str = "",
        lines: int = 200,
        ttl_s: float = 3600.0,
        reason: str = "",
    ) -> CommandInfo:
        """Have a device do something once; `kind` is a `CommandKind`."""
        body = {"kind": kind, "source": source, "lines": lines, "ttl_s": ttl_s, "reason": reason}
        return cast("CommandInfo", self._post(f"/devices/{part(device)}/commands", body))

    def commands(self, device: str) -> list[CommandInfo]:
        """The commands to a device, newest first, without what they brought."""
        return list(self._pages(f"/devices/{part(device)}/commands"))

    def command_of(self, device: str, command: str) -> CommandInfo:
        """One command, with what it brought."""
        path = f"/devices/{part(device)}/commands/{part(command)}"
        return cast("CommandInfo", self._get(path))

    def bundle(self, device: str, reason: str = "") -> BundleContents:
        """What a device without a network needs, but for the blobs."""
        path = f"/devices/{part(device)}/bundle"
        return cast("BundleContents", self._post(path, {"reason": reason}))

    def decommission(self, device: str, *, wipe: bool, reason: str = "") -> DecommissionInfo:
        """End a device's service for good."""
        path = f"/devices/{part(device)}/decommission"
        return cast("DecommissionInfo", self._post(path, {"wipe": wipe, "reason": reason}))

    def decommissioned(self, device: str) -> DecommissionInfo:
        """Where the end of a device's service stands."""
        path = f"/devices/{part(device)}/decommission"
        return cast("DecommissionInfo", self._get(path))
