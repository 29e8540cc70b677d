"""The REST API `/api/v1`: thin routes over `fleet.services`; FastAPI documents them."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud_sync.messages import Configuration
from edgeml.errors import UserError
from fleet.access import Access
from fleet.identity_routes import identity_router
from fleet.resources import (
    AuditInfo,
    CommandInfo,
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
    RolloutCost,
    RolloutInfo,
    SecurityEventInfo,
    TelemetryWindow,
)
from fleet.rollouts import Policy, parse_policy
from fleet.rollouts.selector import parse_selector
from fleet.services import (
    audit,
    commands,
    devices,
    enrollment,
    health,
    ledger,
    records,
    recovery,
    releases,
    rollouts,
    security,
)
from fleet.services.columns import fit
from fleet.services.context import Caller, Services
from fleet.trust_routes import trust_router
from fleet.upkeep_routes import upkeep_router

_MAX_TEXT = 1 << 16
_MAX_REASON = 2000
_CURSOR = 2**62

Reason = Annotated[str, Query(max_length=_MAX_REASON, description="Why; kept in the audit log.")]
Cursor = Annotated[int, Query(ge=0, le=_CURSOR, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Text = Annotated[str, Query(max_length=4096)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field(
        default="", max_length=_MAX_REASON, description="Why; kept in the audit log."
    )


class ReleaseRequest(_Request):
    """Registers a release that was pushed to `/v2/{model}`."""

    model: str = Field(max_length=128)
    digest: str = Field(max_length=128)


class EnrollmentRequest(_Request):
    """Asks for a one-time token."""

    device: str = Field(max_length=64)
    labels: dict[str, str] = Field(default_factory=dict)
    ttl_s: float = Field(default=enrollment.DEFAULT_TTL_S, gt=0, le=enrollment.MAX_TTL_S)


class CommandRequest(_Request):
    """What a device shall do once: snapshot, log-tail, restart or diagnostics."""

    kind: Literal["snapshot", "log-tail", "restart", "diagnostics"]
    source: str = Field(default="", max_length=256, description="Of a snapshot; empty: the first.")
    lines: int = Field(default=200, ge=1, le=2000, description="Of a log-tail.")
    ttl_s: float = Field(default=commands.DEFAULT_TTL_S, gt=0, le=commands.MAX_TTL_S)


class RolloutRequest(_Request):
    """What to roll out; `policy` is the TOML file's text, `selector` replaces that in it."""

    model: str = Field(max_length=128)
    version: str = Field(max_length=128)
    policy: str = Field(default="", max_length=_MAX_TEXT)
    selector: str | None = Field(default=None, max_length=4096)


class ChangeRequest(_Request):
    """Says why."""


def router(services: Services, access: Access) -> APIRouter:
    """All routes of the API."""
    routes = APIRouter(prefix="/api/v1")
    for add in (_releases, _devices, _rollouts, _observed):
        add(routes, services)
    _system(routes, services, access)
    routes.include_router(trust_router(services, _caller))
    routes.include_router(identity_router(services, _caller))
    routes.include_router(upkeep_router(services, _caller))
    return routes


def _releases(routes: APIRouter, services: Services) -> None:
    @routes.get("/models", tags=["releases"])
    def list_models() -> list[ModelInfo]:
        """All models, with what runs where."""
        return releases.list_models(services)

    @routes.get("/releases", tags=["releases"])
    def list_releases(model: Text = "") -> list[ReleaseInfo]:
        """All releases, newest first."""
        return releases.list_releases(services, model)

    @routes.post("/releases", status_code=201, tags=["releases"])
    def register_release(request: Request, body: ReleaseRequest) -> ReleaseInfo:
        """Register a release that was pushed."""
        caller = _caller(request, body.reason)
        return releases.register(services, caller, body.model, body.digest)

    @routes.get("/releases/{model}/{version}", tags=["releases"])
    def show_release(model: str, version: str) -> ReleaseInfo:
        """One release."""
        return releases.show(services, model, version)


def _devices(routes: APIRouter, services: Services) -> None:
    @routes.get("/devices", tags=["devices"])
    def list_devices(selector: Text = "", after: Text = "", limit: Limit = 100) -> Page[DeviceInfo]:
        """The devices that a label selector chooses, by name."""
        return devices.list_devices(services, selector=selector, after=after, limit=limit)

    @routes.get("/devices/{device}", tags=["devices"])
    def show_device(device: str) -> DeviceInfo:
        """One device: desired beside reported."""
        return devices.show(services, device)

    @routes.get("/devices/{device}/ledger", tags=["devices"])
    def show_ledger(device: str, month: Text = "", rollout: Text = "") -> LedgerInfo:
        """What a device spent on the network, by month, rollout and cause."""
        return ledger.show(services, device, month=month, rollout=rollout)

    @routes.put("/devices/{device}/configuration", tags=["devices"])
    def configure_device(
        request: Request,
        device: str,
        settings: Annotated[dict[str, Any], Body(description=Configuration.__doc__)],
        reason: Reason = "",
    ) -> DeviceInfo:
        """Replace a device's configuration."""
        return devices.configure(services, _caller(request, reason), device, settings)

    @routes.put("/devices/{device}/labels", tags=["devices"])
    def label_device(
        request: Request, device: str, labels: dict[str, str], reason: Reason = ""
    ) -> DeviceInfo:
        """Replace a device's labels."""
        return devices.set_labels(services, _caller(request, reason), device, labels)

    @routes.post("/devices/{device}/commands", status_code=201, tags=["devices"])
    def command_device(request: Request, device: str, body: CommandRequest) -> CommandInfo:
        """Have a device do something once; it is signed and expires."""
        return commands.create(
            services,
            _caller(request, body.reason),
            device,
            body.kind,
            source=body.source,
            lines=body.lines,
            ttl_s=body.ttl_s,
        )

    @routes.get("/devices/{device}/commands", tags=["devices"])
    def list_device_commands(device: str) -> list[CommandInfo]:
        """The commands to a device, newest first, without what they brought."""
        return commands.list_commands(services, device)

    @routes.get("/devices/{device}/commands/{command}", tags=["devices"])
    def show_device_command(device: str, command: str) -> CommandInfo:
        """One command to a device, with what it brought."""
        return commands.show(services, device, command)

    @routes.post("/enrollments", status_code=201, tags=["devices"])
    def create_enrollment(request: Request, body: EnrollmentRequest) -> EnrollmentToken:
        """Make a one-time enrolment token."""
        caller = _caller(request, body.reason)
        return enrollment.create_token(services, caller, body.device, body.labels, body.ttl_s)


def _rollouts(routes: APIRouter, services: Services) -> None:
    @routes.get("/rollouts", tags=["rollouts"])
    def list_rollouts(model: Text = "", limit: Limit = 100) -> list[RolloutInfo]:
        """The rollouts, newest first."""
        return rollouts.list_rollouts(services, model=model, limit=limit)

    @routes.post("/rollouts", status_code=201, tags=["rollouts"])
    def create_rollout(request: Request, body: RolloutRequest) -> RolloutInfo:
        """Create a rollout; it begins at once."""
        caller = _caller(request, body.reason)
        return rollouts.create(services, caller, body.model, body.version, _policy(body))

    @routes.post("/rollouts/plan", tags=["rollouts"])
    def plan_rollout(body: RolloutRequest) -> Plan:
        """What a rollout would do, device by device."""
        return rollouts.plan(services, body.model, body.version, _policy(body))

    @routes.get("/rollouts/{rollout}", tags=["rollouts"])
    def show_rollout(rollout: str) -> RolloutInfo:
        """One rollout."""
        return rollouts.show(services, rollout)

    @routes.get("/rollouts/{rollout}/cost", tags=["rollouts"])
    def show_rollout_cost(rollout: str) -> list[RolloutCost]:
        """What it cost each device on the network, the most expensive first."""
        return ledger.of_rollout(services, rollout)

    @routes.get("/rollouts/{rollout}/explain", tags=["rollouts"])
    def explain_rollout(rollout: str) -> Explanation:
        """Why it stands where it stands."""
        return rollouts.explain(services, rollout)

    changes: dict[str, Callable[[Services, Caller, str], RolloutInfo]] = {
        "pause": rollouts.pause,
        "resume": rollouts.resume,
        "abort": rollouts.abort,
    }
    for verb, change in changes.items():
        routes.post(
            f"/rollouts/{{rollout}}/{verb}",
            tags=["rollouts"],
            name=f"{verb}_rollout",
            description=change.__doc__,
        )(_changing(services, change))


def _changing(
    services: Services, change: Callable[[Services, Caller, str], RolloutInfo]
) -> Callable[..., RolloutInfo]:
    def endpoint(request: Request, rollout: str, body: ChangeRequest | None = None) -> RolloutInfo:
        return change(services, _caller(request, body.reason if body else ""), rollout)

    return endpoint


def _observed(routes: APIRouter, services: Services) -> None:
    @routes.get("/evidence", tags=["observed"])
    def list_evidence(
        release: Text = "",
        rollout: Text = "",
        device: Text = "",
        after: Cursor = 0,
        limit: Limit = 100,
    ) -> Page[EvidenceInfo]:
        """Evidence of converters and devices, newest first."""
        return releases.list_evidence(
            services, release=release, rollout=rollout, device=device, after=after, limit=limit
        )

    @routes.get("/telemetry", tags=["observed"])
    def list_telemetry(
        device: Text = "", model: Text = "", after: Cursor = 0, limit: Limit = 100
    ) -> Page[TelemetryWindow]:
        """Windows of telemetry, newest first."""
        return records.telemetry(services, device=device, model=model, after=after, limit=limit)

    @routes.get("/audit", tags=["observed"])
    def list_audit(after: Cursor = 0, limit: Limit = 100) -> Page[AuditInfo]:
        """Who did what and why, newest first."""
        return audit.entries(services, after=after, limit=limit)

    @routes.get("/audit/verify", tags=["observed"])
    def verify_audit() -> dict[str, int]:
        """Check the audit log's chain."""
        return {"entries": audit.verify(services)}

    @routes.get("/security-events", tags=["observed"])
    def list_security_events(after: Cursor = 0, limit: Limit = 100) -> Page[SecurityEventInfo]:
        """What was refused, newest first."""
        return security.events(services, after=after, limit=limit)


def _system(routes: APIRouter, services: Services, access: Access) -> None:
    @routes.get("/health", tags=["system"])
    def show_health() -> Health:
        """Whether the parts of the fleet work."""
        return health.show(services)

    @routes.post("/login-links", status_code=201, tags=["system"])
    def create_login_link(request: Request, body: ChangeRequest | None = None) -> LoginLink:
        """Make a link that logs in to the console once."""
        caller = _caller(request, body.reason if body else "")
        with audit.audited(services, caller, "login-link.create", "console"):
            return access.make_link()

    @routes.post("/thaw", tags=["system"])
    def thaw_rollouts(request: Request, body: ChangeRequest) -> Health:
        """Let rollouts move again after the database was restored; wants a reason."""
        if not body.reason.strip():
            raise UserError("A reason is needed.", why="It is kept in the audit log.")
        recovery.thaw(services, _caller(request, body.reason))
        return health.show(services)


def _policy(body: RolloutRequest) -> Policy:
    policy = parse_policy(body.policy)
    if body.selector is None:
        return policy
    parse_selector(body.selector)
    return msgspec.structs.replace(policy, selector=body.selector)


def _caller(request: Request, reason: str) -> Caller:
    return Caller(request.state.actor, fit(reason.strip(), _MAX_REASON))
