"""The REST API of live state: server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from fleet.access.guard import principal_of
from fleet.access.needs import needs
from fleet.events import TYPES, EventHub, Listener
from fleet.rest.requests import CallerOf
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services.context import Services

_LOOK_S = 5.0
Type = Literal["alert", "device", "devices", "health", "rollout"]
LastId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        max_length=64,
        pattern="^[0-9a-f-]*$",
        description="The id of the last event that came: what was missed is told first.",
    ),
]


def event_router(services: Services, hub: EventHub, caller: CallerOf) -> APIRouter:
    """The operators' route."""
    routes = api_router(services, "events")

    def require_room(request: Request) -> None:
        hub.require_room(caller(request, "").person)

    @routes.get(
        "/events",
        response_class=EventSourceResponse,
        dependencies=[Depends(require_room)],
    )
    @needs(Role.VIEWER)
    async def stream_events(
        request: Request,
        types: Annotated[list[Type], Query(description="Only these; otherwise all.")] = [],  # noqa: B006
        last_event_id: LastId = "",
    ) -> AsyncIterator[ServerSentEvent]:
        """What changes, as it changes; `resync` says that the state is to be read anew."""
        asks = caller(request, "")
        listener = Listener(types or TYPES, asks.scope, who=asks.person)
        hub.join(listener, last_event_id)
        loop = asyncio.get_running_loop()
        look_at = loop.time() + _LOOK_S
        try:
            while not listener.is_over:
                told = await listener.next(_LOOK_S)
                if told is not None:
                    yield ServerSentEvent(data=told.event.data, event=told.event.type, id=told.id)
                if loop.time() > look_at:
                    look_at = loop.time() + _LOOK_S
                    if not await asyncio.to_thread(principal_of(request).is_good):
                        return
        finally:
            hub.leave(listener)

    return routes
