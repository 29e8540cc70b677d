"""The REST API `/api/v1/trust`: thin routes over `fleet.services.trust`."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.access.needs import needs
from fleet.rest.requests import WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import trust
from fleet.services.context import Caller, Services
from fleet.services.own_keys import OwnKey
from fleet.trust.changes import RoleKeys
from fleet.trust.status import TrustInfo

Pem = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(max_length=64)]
Signature = Annotated[str, Field(max_length=256, pattern="^[0-9a-f]*$")]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: dict[Name, Pem] = Field(
        default_factory=dict, max_length=32, description="Public keys (PEM) by their owners."
    )
    threshold: int = Field(default=1, ge=1, le=32, description="How many of them must sign.")

    def given(self) -> RoleKeys:
        return RoleKeys(keys=dict(self.keys), threshold=self.threshold)


class TrustInitRequest(WithReason):
    """Who signs for the keys of all roles, and who for releases; nobody: a key of the fleet."""

    root: _Keys = Field(default_factory=_Keys)
    targets: _Keys = Field(default_factory=_Keys)


class MoreKeysRequest(WithReason):
    """One more key for a role, or several; without a threshold, that of the role stays."""

    keys: dict[Name, Pem] = Field(min_length=1, max_length=32)
    threshold: int = Field(default=0, ge=0, le=32)


class RoleKeysRequest(_Keys, WithReason):
    """Keys for a role. To rotate without any means: the fleet makes one and holds it."""


class DelegationRequest(_Keys, WithReason):
    """A team, the models whose releases it signs, and its keys."""

    team: Name
    models: list[Name] = Field(min_length=1, max_length=64)


class RefreshRequest(WithReason):
    """Renews what the fleet may sign; `role` is given its next version, for whoever signs it."""

    role: Name = ""


class DiscardRequest(WithReason):
    """Says why."""


class WithdrawRequest(WithReason):
    """`force` withdraws a CA also while devices have certificates of it."""

    force: bool = False


class SignaturesRequest(WithReason):
    """Signatures of what waits, hexadecimal, by key id."""

    role: Name
    signatures: dict[Name, Signature] = Field(max_length=32)


def trust_router(services: Services, caller: Callable[[Request, str], Caller]) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "trust", prefix="/trust")

    @routes.get("")
    @needs(Role.VIEWER)
    def show_trust() -> TrustInfo:
        """Who signs releases, until when, and what waits for whom."""
        return trust.show(services)

    @routes.post("/init", status_code=201)
    @needs(Role.ADMIN, whole_fleet=True)
    def init_trust(request: Request, body: TrustInitRequest) -> TrustInfo:
        """Make the first root: from then on releases must be signed."""
        who = caller(request, body.reason)
        return trust.init(services, who, body.root.given(), body.targets.given())

    @routes.post("/roles/{role}/keys")
    @needs(Role.ADMIN, whole_fleet=True)
    def add_trusted_key(request: Request, role: str, body: MoreKeysRequest) -> TrustInfo:
        """Let more keys sign for a role."""
        given = RoleKeys(keys=dict(body.keys), threshold=body.threshold)
        return trust.add_key(services, caller(request, body.reason), role, given)

    @routes.put("/roles/{role}/keys")
    @needs(Role.ADMIN, whole_fleet=True)
    def rotate_trusted_keys(request: Request, role: str, body: RoleKeysRequest) -> TrustInfo:
        """Put new keys in place of a role's keys."""
        return trust.rotate(services, caller(request, body.reason), role, body.given())

    @routes.post("/delegations", status_code=201)
    @needs(Role.ADMIN, whole_fleet=True)
    def delegate_models(request: Request, body: DelegationRequest) -> TrustInfo:
        """Let a team sign the releases of some models."""
        who = caller(request, body.reason)
        return trust.delegate(services, who, body.team, body.models, body.given())

    @routes.post("/refresh")
    @needs(Role.ADMIN, whole_fleet=True)
    def refresh_trust(request: Request, body: RefreshRequest | None = None) -> TrustInfo:
        """Renew what will expire."""
        asked = body or RefreshRequest()
        return trust.refresh(services, caller(request, asked.reason), asked.role)

    @routes.get("/waiting")
    @needs(Role.OPERATOR, whole_fleet=True)
    def export_trust() -> dict[str, str]:
        """The files that travel to whoever signs, by path."""
        return trust.bundle(services)

    @routes.post("/discard")
    @needs(Role.ADMIN, whole_fleet=True)
    def discard_waiting(request: Request, body: DiscardRequest | None = None) -> TrustInfo:
        """Give up all that waits for signatures."""
        return trust.discard(services, caller(request, body.reason if body else ""))

    @routes.post("/signatures")
    @needs(Role.OPERATOR, whole_fleet=True)
    def add_trust_signatures(request: Request, body: SignaturesRequest) -> TrustInfo:
        """Take signatures; what has enough of them is published."""
        who = caller(request, body.reason)
        return trust.add_signatures(services, who, body.role, body.signatures)

    _own_keys(routes, services, caller)
    return routes


def _own_keys(
    routes: APIRouter, services: Services, caller: Callable[[Request, str], Caller]
) -> None:
    @routes.post("/keys/{which}/rotate")
    @needs(Role.ADMIN, whole_fleet=True)
    def rotate_own_key(
        request: Request, which: OwnKey, body: DiscardRequest | None = None
    ) -> TrustInfo:
        """Put a new key in place of the director's or the CA's; the old one stays good."""
        return trust.rotate_key(services, caller(request, body.reason if body else ""), which)

    @routes.post("/keys/{which}/withdraw")
    @needs(Role.ADMIN, whole_fleet=True)
    def withdraw_own_key(
        request: Request, which: OwnKey, body: WithdrawRequest | None = None
    ) -> TrustInfo:
        """Have the keys before the present one be good no more."""
        asked = body or WithdrawRequest()
        who = caller(request, asked.reason)
        return trust.withdraw_key(services, who, which, force=asked.force)
