"""The fleet's REST API as typed Python calls; the command line is written over it.

    with FleetClient("http://127.0.0.1:8080", token) as fleet:
        fleet.push(Path("release"))
        fleet.create_rollout("digits", "1.2.0", policy=Path("policy.toml").read_text())

Errors of the fleet come back as the same `EdgemlError` classes, with what, why and fix.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from cloud_sync.address import http_client
from cloud_sync.release import Blobs, Layout
from cloud_sync.transfer import OciClient
from edgeml import errors
from edgeml.errors import EdgemlError, RemoteError
from fleet.resources import (
    AuditInfo,
    BundleContents,
    CollectInfo,
    CommandInfo,
    DecommissionInfo,
    DeviceInfo,
    EnrollmentToken,
    EvidenceInfo,
    Explanation,
    Health,
    LedgerInfo,
    LoginLink,
    ModelInfo,
    Page,
    Plan,
    ReleaseInfo,
    RolloutInfo,
    SecurityEventInfo,
    TelemetryWindow,
)
from fleet.trust.changes import RoleKeys
from fleet.trust.status import TrustInfo

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
OnBlob = Callable[[str, int], None]


class BearerAuth(httpx.Auth):
    """Sends the operator's token, to the fleet's own host only."""

    def __init__(self, base_url: str, token: str) -> None:
        self._host = httpx.URL(base_url).netloc
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        if request.url.netloc == self._host:
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class FleetClient:
    """See the module; safe to use from several threads.

    Args:
        base_url: the operators' listener, `http://127.0.0.1:8080`.
        token: the operator's token.

    Raises:
        UserError: the address is none, or would be spoken to without TLS over a network.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._client = http_client(self._base_url, None, _TIMEOUT, of="fleet")
        self._auth = self._client.auth = BearerAuth(self._base_url, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def health(self) -> Health:
        """Whether the parts of the fleet work."""
        return cast("Health", self._get("/health"))

    def login_link(self) -> LoginLink:
        """A link to the console that logs in once."""
        return cast("LoginLink", self._post("/login-links", {}))

    def thaw(self, reason: str) -> Health:
        """Let rollouts move again after a restore."""
        return cast("Health", self._post("/thaw", {"reason": reason}))

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
        path = f"/devices/{_part(device)}/revoke"
        return cast("DeviceInfo", self._post(path, {"reason": reason}))

    def reset_time(self, reason: str = "") -> dict[str, str]:
        """Have devices take the fleet's time also where they held a later one for proven."""
        return cast("dict[str, str]", self._post("/time/reset", {"reason": reason}))

    def devices(self, selector: str = "") -> list[DeviceInfo]:
        """All devices that a label selector chooses."""
        return list(self._pages("/devices", selector=selector))

    def device(self, device: str) -> DeviceInfo:
        """One device."""
        return cast("DeviceInfo", self._get(f"/devices/{_part(device)}"))

    def ledger(self, device: str, *, month: str = "", rollout: str = "") -> LedgerInfo:
        """What a device spent on the network."""
        path = f"/devices/{_part(device)}/ledger"
        return cast("LedgerInfo", self._get(path, month=month, rollout=rollout))

    def configure(self, device: str, settings: Mapping[str, Any], reason: str = "") -> DeviceInfo:
        """Replace a device's configuration."""
        path = f"/devices/{_part(device)}/configuration"
        return cast("DeviceInfo", self._put(path, dict(settings), reason))

    def label(self, device: str, labels: Mapping[str, str], reason: str = "") -> DeviceInfo:
        """Replace a device's labels."""
        return cast(
            "DeviceInfo", self._put(f"/devices/{_part(device)}/labels", dict(labels), reason)
        )

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
        return cast("CommandInfo", self._post(f"/devices/{_part(device)}/commands", body))

    def commands(self, device: str) -> list[CommandInfo]:
        """The commands to a device, newest first, without what they brought."""
        return cast("list[CommandInfo]", self._get(f"/devices/{_part(device)}/commands"))

    def command_of(self, device: str, command: str) -> CommandInfo:
        """One command, with what it brought."""
        path = f"/devices/{_part(device)}/commands/{_part(command)}"
        return cast("CommandInfo", self._get(path))

    def push(
        self,
        folder: Path,
        version: str | None = None,
        *,
        on_blob: OnBlob | None = None,
        reason: str = "",
    ) -> ReleaseInfo:
        """Push a release from a folder that `edgeml convert` wrote, and register it.

        Raises:
            ReleaseError: the folder holds no such release, or it is damaged.
        """
        layout = Layout.open(folder)
        release = layout.release(version)
        registry = OciClient(self._base_url, self._auth)
        try:
            registry.push(layout, release, on_blob)
        finally:
            registry.close()
        body = {"model": release.model, "digest": release.digest, "reason": reason}
        return cast("ReleaseInfo", self._post("/releases", body))

    def trust(self) -> TrustInfo:
        """Who signs releases, until when, and what waits for whom."""
        return cast("TrustInfo", self._get("/trust"))

    def trust_init(self, root: RoleKeys, targets: RoleKeys, reason: str = "") -> TrustInfo:
        """Make the first root."""
        body = {"root": _keys(root), "targets": _keys(targets), "reason": reason}
        return cast("TrustInfo", self._post("/trust/init", body))

    def trust_add_key(self, role: str, given: RoleKeys, reason: str = "") -> TrustInfo:
        """Let one more key sign for a role."""
        path = f"/trust/roles/{_part(role)}/keys"
        return cast("TrustInfo", self._post(path, {**_keys(given), "reason": reason}))

    def trust_rotate(self, role: str, given: RoleKeys, reason: str = "") -> TrustInfo:
        """Put new keys in place of a role's keys."""
        path = f"/trust/roles/{_part(role)}/keys"
        body = {**_keys(given), "reason": reason}
        return cast("TrustInfo", self._call("PUT", path, json=body))

    def trust_rotate_key(self, which: str, reason: str = "") -> TrustInfo:
        """Put a new key in place of the director's or the CA's."""
        path = f"/trust/keys/{_part(which)}/rotate"
        return cast("TrustInfo", self._post(path, {"reason": reason}))

    def trust_withdraw_key(self, which: str, reason: str = "", *, force: bool = False) -> TrustInfo:
        """Have the keys before the present one be good no more."""
        path = f"/trust/keys/{_part(which)}/withdraw"
        return cast("TrustInfo", self._post(path, {"reason": reason, "force": force}))

    def trust_delegate(
        self, team: str, models: Sequence[str], given: RoleKeys, reason: str = ""
    ) -> TrustInfo:
        """Let a team sign the releases of some models."""
        body = {"team": team, "models": list(models), **_keys(given), "reason": reason}
        return cast("TrustInfo", self._post("/trust/delegations", body))

    def trust_refresh(self, role: str = "", reason: str = "") -> TrustInfo:
        """Renew what will expire."""
        body = {"role": role, "reason": reason}
        return cast("TrustInfo", self._post("/trust/refresh", body))

    def trust_waiting(self) -> dict[str, str]:
        """The files that travel to whoever signs."""
        return cast("dict[str, str]", self._get("/trust/waiting"))

    def trust_discard(self, reason: str = "") -> TrustInfo:
        """Give up all that waits for signatures."""
        return cast("TrustInfo", self._post("/trust/discard", {"reason": reason}))

    def trust_signatures(
        self, role: str, signatures: Mapping[str, str], reason: str = ""
    ) -> TrustInfo:
        """Hand in signatures of what waits."""
        body = {"role": role, "signatures": dict(signatures), "reason": reason}
        return cast("TrustInfo", self._post("/trust/signatures", body))

    def bundle(self, device: str, reason: str = "") -> BundleContents:
        """What a device without a network needs, but for the blobs."""
        path = f"/devices/{_part(device)}/bundle"
        return cast("BundleContents", self._post(path, {"reason": reason}))

    def collect(self, *, dry_run: bool, keep: int, grace_s: float, reason: str = "") -> CollectInfo:
        """Remove what no release that is kept refers to."""
        body = {"dry_run": dry_run, "keep": keep, "grace_s": grace_s, "reason": reason}
        return cast("CollectInfo", self._post("/releases/collect", body))

    def decommission(self, device: str, *, wipe: bool, reason: str = "") -> DecommissionInfo:
        """End a device's service for good."""
        path = f"/devices/{_part(device)}/decommission"
        return cast("DecommissionInfo", self._post(path, {"wipe": wipe, "reason": reason}))

    def decommissioned(self, device: str) -> DecommissionInfo:
        """Where the end of a device's service stands."""
        path = f"/devices/{_part(device)}/decommission"
        return cast("DecommissionInfo", self._get(path))

    def fetch_blob(self, model: str, digest: str, size: int, blobs: Blobs) -> None:
        """Fetch a blob of a release from the fleet's registry into a store."""
        registry = OciClient(self._base_url, self._auth)
        try:
            registry.fetch_blob(model, digest, size, blobs)
        finally:
            registry.close()

    def models(self) -> list[ModelInfo]:
        """All models."""
        return cast("list[ModelInfo]", self._get("/models"))

    def releases(self, model: str = "") -> list[ReleaseInfo]:
        """All releases, newest first."""
        return cast("list[ReleaseInfo]", self._get("/releases", model=model))

    def release(self, model: str, version: str) -> ReleaseInfo:
        """One release."""
        return cast("ReleaseInfo", self._get(f"/releases/{_part(model)}/{_part(version)}"))

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
    ) -> RolloutInfo:
        """Create a rollout; `policy` is the TOML text."""
        body = {
            "model": model,
            "version": version,
            "policy": policy,
            "selector": selector,
            "reason": reason,
        }
        return cast("RolloutInfo", self._post("/rollouts", body))

    def rollouts(self, model: str = "") -> list[RolloutInfo]:
        """The rollouts, newest first."""
        return cast("list[RolloutInfo]", self._get("/rollouts", model=model))

    def rollout(self, rollout: str) -> RolloutInfo:
        """One rollout."""
        return cast("RolloutInfo", self._get(f"/rollouts/{_part(rollout)}"))

    def explain(self, rollout: str) -> Explanation:
        """Why a rollout stands where it stands."""
        return cast("Explanation", self._get(f"/rollouts/{_part(rollout)}/explain"))

    def pause(self, rollout: str, reason: str = "") -> RolloutInfo:
        """Pause a rollout."""
        return self._change(rollout, "pause", reason)

    def resume(self, rollout: str, reason: str = "") -> RolloutInfo:
        """Go on with a paused rollout."""
        return self._change(rollout, "resume", reason)

    def abort(self, rollout: str, reason: str = "") -> RolloutInfo:
        """End a rollout; its policy says whether devices get back what they ran before."""
        return self._change(rollout, "abort", reason)

    def evidence(
        self, *, rollout: str = "", release: str = "", device: str = ""
    ) -> list[EvidenceInfo]:
        """Evidence, newest first."""
        return list(self._pages("/evidence", rollout=rollout, release=release, device=device))

    def telemetry(
        self, *, device: str = "", model: str = "", limit: int = 100
    ) -> list[TelemetryWindow]:
        """The newest windows of telemetry."""
        page = self._get("/telemetry", device=device, model=model, limit=str(limit))
        return cast("list[TelemetryWindow]", page["items"])

    def audit(self) -> list[AuditInfo]:
        """The audit log, newest first."""
        return list(self._pages("/audit"))

    def verify_audit(self) -> int:
        """Check the audit log's chain; returns its length."""
        return int(self._get("/audit/verify")["entries"])

    def security_events(self) -> list[SecurityEventInfo]:
        """What was refused, newest first."""
        return list(self._pages("/security-events"))

    def _change(self, rollout: str, verb: str, reason: str) -> RolloutInfo:
        path = f"/rollouts/{_part(rollout)}/{verb}"
        return cast("RolloutInfo", self._post(path, {"reason": reason}))

    def _pages(self, path: str, **query: str) -> Iterator[Any]:
        after: str | None = None
        while True:
            extra = {"after": after} if after is not None else {}
            page: Page[Any] = self._get(path, limit="1000", **extra, **query)
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def _get(self, path: str, **query: str) -> Any:
        return self._call("GET", path, params={k: v for k, v in query.items() if v})

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("POST", path, json=body)

    def _put(self, path: str, body: Mapping[str, Any], reason: str) -> Any:
        return self._call("PUT", path, json=body, params={"reason": reason} if reason else {})

    def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = self._client.request(method, f"/api/v1{path}", **request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteError(
                f"The fleet at {self._base_url} cannot be reached.",
                why=f"{type(error).__name__}: {error}.",
                fix="Start it with `edgeml fleet up`, or name it with --fleet.",
            ) from error
        if not response.is_success:
            raise error_of(response)
        try:
            return response.json()
        except ValueError:
            raise RemoteError(
                f"The fleet at {self._base_url} answered something that is not JSON.",
                fix="Check that --fleet names the operators' listener.",
            ) from None


def error_of(response: httpx.Response) -> EdgemlError:
    """The error that a problem document tells of."""
    try:
        body = response.json()
        what, why = str(body.get("what") or body["title"]), str(body.get("why", ""))
        detail, fix, kind = str(body["detail"]), str(body.get("fix", "")), str(body.get("kind", ""))
    except (ValueError, KeyError, AttributeError, TypeError):
        return RemoteError(f"The fleet answered {response.status_code}.", why=response.text[:200])
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return errors.TrustError(
            "The fleet refused the operator's token.",
            fix="Give the token of this fleet with --token, or its folder with --data.",
        )
    found = getattr(errors, kind, None)
    raised: type[EdgemlError] = RemoteError
    if isinstance(found, type) and issubclass(found, EdgemlError):
        raised = found
    if "what" not in body and detail != what:
        why = why or detail
    return raised(what, why=why, fix=fix)


def _keys(given: RoleKeys) -> dict[str, Any]:
    return {"keys": given.keys, "threshold": given.threshold}


def _part(name: str) -> str:
    return quote(name, safe="")
