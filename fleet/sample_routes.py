"""The REST API of captured frames: which there are, and the frames themselves as a tar.

Frames and their results may show people: both are for operators, and whoever takes frames away is
in the audit log before the first byte goes.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from cloud_sync.samples import CaptureReason
from fleet.access.needs import needs
from fleet.resources import Page, SampleInfo
from fleet.rest.cursors import After, Limit, paged
from fleet.rest.requests import CallerOf, Text, WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.sample_archive import MEDIA_TYPE, archive
from fleet.services import samples
from fleet.services.audit import audited
from fleet.services.context import Services

MAX_PULL = 500


class PullRequest(WithReason):
    """Which frames: those of `model` that came after the one with the number `after`."""

    model: str = Field(max_length=128)
    device: str = Field(default="", max_length=64)
    selector: str = Field(default="", max_length=4096)
    reasons: list[CaptureReason] = Field(default_factory=list, max_length=10)
    after: int = Field(default=0, ge=0, le=1 << 53)
    limit: int = Field(default=100, ge=1, le=MAX_PULL)


def sample_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "samples")

    @routes.get("/samples")
    @needs(Role.OPERATOR)
    def list_samples(
        request: Request,
        *,
        model: Text = "",
        device: Text = "",
        selector: Text = "",
        reason: Annotated[list[CaptureReason] | None, Query(max_length=10)] = None,
        after: After = "",
        limit: Limit = 100,
    ) -> Page[SampleInfo]:
        """Captured frames that devices brought up, newest first; what was inferred of them."""
        scope = caller(request, "").scope
        return paged(
            "samples",
            after,
            lambda key: samples.list_samples(
                services,
                model=model,
                device=device,
                selector=selector,
                reasons=[str(one) for one in reason or ()],
                after=key,
                limit=limit,
                scope=scope,
            ),
            int,
        )

    @routes.post(
        "/samples/pull",
        response_class=StreamingResponse,
        responses={200: {"content": {MEDIA_TYPE: {}}, "description": "A tar of frames."}},
    )
    @needs(Role.OPERATOR)
    def pull_samples(request: Request, body: PullRequest) -> StreamingResponse:
        """The frames themselves, oldest first, as a tar that begins with their table."""
        who = caller(request, body.reason)
        found = samples.list_samples(
            services,
            model=body.model,
            device=body.device,
            selector=body.selector,
            reasons=[str(one) for one in body.reasons],
            after=body.after,
            limit=body.limit,
            scope=who.scope,
            oldest_first=True,
        )["items"]
        if found:
            numbers = {"first": found[0]["id"], "last": found[-1]["id"], "number": len(found)}
            devices = sorted({one["device"] for one in found})
            with audited(
                services, who, "samples.pull", body.model, devices=devices[:100], **numbers
            ):
                pass
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(
            archive(services.samples, found), media_type=MEDIA_TYPE, headers=headers
        )

    return routes
