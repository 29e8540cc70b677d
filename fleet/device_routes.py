"""The REST API of devices: who is there, their labels, configuration, commands and costs."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from fleet.access.needs import needs
from fleet.resources import CommandInfo, DeviceInfo, EnrollmentToken, LedgerInfo, Page
from fleet.rest.cursors import After, Limit, paged, sliced
from fleet.rest.etags import IfMatch, tagged
from fleet.rest.requests import CallerOf, Reason, Text, WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import commands, devices, enrollment, ledger
from fleet.services.context import Services


class EnrollmentRequest(WithReason):
    """Asks for a one-time token."""

    device: str = Field(max_length=64)
    labels: dict[str, str] = Field(default_factory=dict)
    ttl_s: float = Field(default=enrollment.DEFAULT_TTL_S, gt=0, le=enrollment.MAX_TTL_S)


class CommandRequest(WithReason):
    """What a device shall do once: snapshot, log-tail, restart or diagnostics."""

    kind: Literal["snapshot", "log-tail", "restart", "diagnostics"]
    source: str = Field(default="", max_length=256, description="Of a snapshot; empty: the first.")
    lines: int = Field(default=200, ge=1, le=2000, description="Of a log-tail.")
    ttl_s: float = Field(default=commands.DEFAULT_TTL_S, gt=0, le=commands.MAX_TTL_S)


def device_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "devices")
    for add in (_seen, _changed, _commanded):
        add(routes, services, caller)
    return routes


def _seen(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/devices")
    @needs(Role.VIEWER)
    def list_devices(
        request: Request, selector: Text = "", after: After = "", limit: Limit = 100
    ) -> Page[DeviceInfo]:
        """The devices that a label selector chooses, by name."""
        scope = caller(request, "").scope
        return paged(
            "devices",
            after,
            lambda key: devices.list_devices(
                services, selector=selector, after=key, limit=limit, scope=scope
            ),
            str,
        )

    @routes.get("/devices/{device}")
    @needs(Role.VIEWER)
    def show_device(device: str) -> DeviceInfo:
        """One device: desired beside reported."""
        return devices.show(services, device)

    @routes.get("/devices/{device}/labels")
    @needs(Role.VIEWER)
    def show_device_labels(response: Response, device: str) -> dict[str, str]:
        """A device's labels; their ETag goes with a change of them."""
        return tagged(response, devices.labels(services, device))

    @routes.get("/devices/{device}/ledger")
    @needs(Role.VIEWER)
    def show_ledger(device: str, month: Text = "", rollout: Text = "") -> LedgerInfo:
        """What a device spent on the network, by month, rollout and cause."""
        return ledger.show(services, device, month=month, rollout=rollout)


def _changed(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.put("/devices/{device}/labels")
    @needs(Role.OPERATOR)
    def label_device(
        request: Request,
        device: str,
        labels: dict[str, str],
        reason: Reason = "",
        if_match: IfMatch = "",
    ) -> DeviceInfo:
        """Replace a device's labels; with `If-Match` only if they are still those."""
        who = caller(request, reason)
        return devices.set_labels(services, who, device, labels, if_match=if_match)

    @routes.post("/enrollments", status_code=201)
    @needs(Role.OPERATOR)
    def create_enrollment(
        request: Request, response: Response, body: EnrollmentRequest
    ) -> EnrollmentToken:
        """Make a one-time enrolment token."""
        response.headers["Cache-Control"] = "no-store"
        who = caller(request, body.reason)
        return enrollment.create_token(services, who, body.device, body.labels, body.ttl_s)


def _commanded(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.post("/devices/{device}/commands", status_code=201)
    @needs(Role.OPERATOR)
    def command_device(request: Request, device: str, body: CommandRequest) -> CommandInfo:
        """Have a device do something once; it is signed and expires."""
        return commands.create(
            services,
            caller(request, body.reason),
            device,
            body.kind,
            source=body.source,
            lines=body.lines,
            ttl_s=body.ttl_s,
        )

    @routes.get("/devices/{device}/commands")
    @needs(Role.VIEWER)
    def list_device_commands(
        device: str, after: After = "", limit: Limit = 100
    ) -> Page[CommandInfo]:
        """The commands to a device, newest first, without what they brought."""
        found = commands.list_commands(services, device)

        def key(command: CommandInfo) -> str:
            return f"{command['created_at']:020.6f} {command['id']}"

        return paged(
            "commands", after, lambda last: sliced(found, key, last, limit, newest=True), str
        )

    @routes.get("/devices/{device}/commands/{command}")
    @needs(Role.OPERATOR)
    def show_device_command(device: str, command: str) -> CommandInfo:
        """One command to a device, with what it brought."""
        return commands.show(services, device, command)
