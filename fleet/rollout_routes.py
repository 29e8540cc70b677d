"""The REST API of rollouts: plan, create, start, approve, watch, explain, change, block."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import Field

from fleet.access.needs import needs
from fleet.cost_resources import CostInfo
from fleet.resources import BlockInfo, Explanation, Page, Plan, RolloutInfo
from fleet.rest.cursors import After, Limit, paged
from fleet.rest.requests import CallerOf, ChangeRequest, Text, WithReason, why
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.rollouts import Policy, parse_policy
from fleet.rollouts.policy import schema
from fleet.rollouts.selector import parse_selector
from fleet.services import blocks, cost, rollouts
from fleet.services.context import Caller, Services

_MAX_TEXT = 1 << 16
Change = Callable[[Services, Caller, str], RolloutInfo]


class RolloutRequest(WithReason):
    """What to roll out; `policy` is the TOML file's text, `selector` replaces that in it."""

    model: str = Field(max_length=128)
    version: str = Field(max_length=128)
    policy: str = Field(default="", max_length=_MAX_TEXT)
    selector: str | None = Field(default=None, max_length=4096)


class CreateRequest(RolloutRequest):
    """What to roll out, and whether it waits for `start`."""

    draft: bool = False


class RetryRequest(WithReason):
    """Which devices to try again; all that failed where none is named."""

    devices: list[str] = Field(default_factory=list, max_length=10_000)


class OverrideRequest(WithReason):
    """Which gate of the present wave to let pass; the reason is needed."""

    gate: str = Field(max_length=300)


class RollbackRequest(WithReason):
    """To which version; by default the one that the devices ran before."""

    to: str = Field(default="", max_length=128)


class BlockRequest(WithReason):
    """A release, and the hardware class that is not to have it; the reason is needed."""

    model: str = Field(max_length=128)
    version: str = Field(max_length=128)
    hardware_class: str = Field(max_length=128)


def rollout_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "rollouts")
    for add in (_made, _blocked, _seen, _changed):
        add(routes, services, caller)
    return routes


def _made(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.post("/rollouts", status_code=201)
    @needs(Role.OPERATOR)
    def create_rollout(request: Request, body: CreateRequest) -> RolloutInfo:
        """Create a rollout; it begins at once, unless it is a draft."""
        return rollouts.create(
            services,
            caller(request, body.reason),
            body.model,
            body.version,
            _policy(body),
            draft=body.draft,
        )

    @routes.post("/rollouts/plan")
    @needs(Role.VIEWER)
    def plan_rollout(
        request: Request,
        body: RolloutRequest,
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int | None, Query(ge=0, le=100_000)] = None,
    ) -> Plan:
        """What a rollout would do, device by device; limit 0 gives what is summed up alone."""
        from fleet.access.scope import confine

        policy, scope = _policy(body), caller(request, "").scope
        selector = confine(policy.selector, scope)
        policy = msgspec.structs.replace(policy, selector=selector)
        return rollouts.plan(services, body.model, body.version, policy, after=after, limit=limit)

    @routes.get("/rollouts/schema")
    @needs(Role.VIEWER)
    def show_policy_schema() -> dict[str, Any]:
        """The JSON Schema of a rollout's policy."""
        return schema()


def _seen(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/rollouts")
    @needs(Role.VIEWER)
    def list_rollouts(
        request: Request, model: Text = "", after: After = "", limit: Limit = 100
    ) -> Page[RolloutInfo]:
        """The rollouts, newest first, without their devices."""
        scope = caller(request, "").scope
        return paged(
            "rollouts",
            after,
            lambda key: rollouts.page(services, model=model, after=key, limit=limit, scope=scope),
            str,
        )

    @routes.get("/rollouts/{rollout}")
    @needs(Role.VIEWER)
    def show_rollout(request: Request, rollout: str) -> RolloutInfo:
        """One rollout, with its devices."""
        return rollouts.show(services, rollout, scope=caller(request, "").scope)

    @routes.get("/rollouts/{rollout}/cost")
    @needs(Role.VIEWER)
    def show_rollout_cost(request: Request, rollout: str) -> CostInfo:
        """What it cost in bytes and money, in all and each device, the most expensive first."""
        return cost.of_rollout(services, rollout, scope=caller(request, "").scope)

    @routes.get("/rollouts/{rollout}/explain")
    @needs(Role.VIEWER)
    def explain_rollout(request: Request, rollout: str) -> Explanation:
        """Why it stands where it stands, with every gate's numbers."""
        return rollouts.explain(services, rollout, scope=caller(request, "").scope)


def _changed(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    simple: dict[str, tuple[Change, Role]] = {
        "start": (rollouts.start, Role.OPERATOR),
        "approve": (rollouts.approve, Role.APPROVER),
        "pause": (rollouts.pause, Role.OPERATOR),
        "resume": (rollouts.resume, Role.OPERATOR),
        "abort": (rollouts.abort, Role.OPERATOR),
    }
    for verb, (change, role) in simple.items():
        routes.post(
            f"/rollouts/{{rollout}}/{verb}",
            name=f"{verb}_rollout",
            description=(change.__doc__ or "").partition("\n")[0],
        )(needs(role)(_changing(services, caller, change)))

    @routes.post("/rollouts/{rollout}/retry")
    @needs(Role.OPERATOR)
    def retry_rollout(
        request: Request, rollout: str, body: RetryRequest | None = None
    ) -> RolloutInfo:
        """Try again the devices that failed; the rollout goes on, if it had stopped."""
        devices = body.devices if body else []
        return rollouts.retry(services, caller(request, why(body)), rollout, devices)

    @routes.post("/rollouts/{rollout}/override")
    @needs(Role.APPROVER)
    def override_gate(request: Request, rollout: str, body: OverrideRequest) -> RolloutInfo:
        """Let a gate of the present wave pass, though it does not; wants a reason."""
        return rollouts.override(services, caller(request, body.reason), rollout, body.gate)

    @routes.post("/rollouts/{rollout}/rollback", status_code=201)
    @needs(Role.OPERATOR)
    def roll_back(
        request: Request, rollout: str, body: RollbackRequest | None = None
    ) -> RolloutInfo:
        """Roll the devices that it reached back to a version, in a rollout of its own."""
        to = body.to if body else ""
        return rollouts.rollback(services, caller(request, why(body)), rollout, to)


def _blocked(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/rollouts/blocks")
    @needs(Role.VIEWER)
    def list_blocks(request: Request) -> list[BlockInfo]:
        """The releases that no device of a hardware class is given any more, and why."""
        return blocks.list_blocks(services, caller(request, "").scope)

    @routes.post("/rollouts/blocks", status_code=201)
    @needs(Role.OPERATOR, whole_fleet=True)
    def block_release(request: Request, body: BlockRequest) -> list[BlockInfo]:
        """Give a release to no device of a hardware class any more; wants a reason."""
        who = caller(request, body.reason)
        return blocks.block(services, who, body.model, body.version, body.hardware_class)

    @routes.post("/rollouts/blocks/remove")
    @needs(Role.OPERATOR, whole_fleet=True)
    def unblock_release(request: Request, body: BlockRequest) -> list[BlockInfo]:
        """Let devices of a hardware class have a release again; wants a reason."""
        who = caller(request, body.reason)
        return blocks.unblock(services, who, body.model, body.version, body.hardware_class)


def _changing(services: Services, caller: CallerOf, change: Change) -> Callable[..., RolloutInfo]:
    def endpoint(request: Request, rollout: str, body: ChangeRequest | None = None) -> RolloutInfo:
        return change(services, caller(request, why(body)), rollout)

    return endpoint


def _policy(body: RolloutRequest) -> Policy:
    policy = parse_policy(body.policy)
    if body.selector is None:
        return policy
    parse_selector(body.selector)
    return msgspec.structs.replace(policy, selector=body.selector)
