"""The routes by which devices bring captured frames up: offered, then in pieces, resumable.

What came of a piece before its connection was cut is kept; the device asks how much that is.
"""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud_sync.messages import encode
from cloud_sync.samples import MAX_LINE_BYTES, MAX_PIECE_BYTES, SampleHeld
from edgeml.errors import RemoteError
from fleet.rest.bodies import received, whole
from fleet.services import samples
from fleet.services.context import Services

_MAX_OFFER_BYTES = 4 * MAX_LINE_BYTES  # base64 of a line and what is around it
_MAX_OFFSET = 1 << 40


class SampleRoutes:
    """The routes; the caller lets only enrolled devices in."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/device/v1/samples", self._offer, methods=["POST"]),
            Route("/device/v1/samples/{model}/{digest}", self._piece, methods=["PUT"]),
        ]

    async def _offer(self, request: Request) -> Response:
        body = await whole(request, _MAX_OFFER_BYTES)
        device = request.state.device
        return _held(await run_in_threadpool(samples.offer, self._services, device, body))

    async def _piece(self, request: Request) -> Response:
        wanted = request.query_params.get("offset", "")
        if not wanted.isascii() or not wanted.isdigit() or int(wanted[:20]) > _MAX_OFFSET:
            raise RemoteError("A piece was refused.", why="It has no offset.")
        piece, _ = await received(request, MAX_PIECE_BYTES)
        found = await run_in_threadpool(
            samples.take,
            self._services,
            request.state.device,
            request.path_params["model"],
            request.path_params["digest"],
            offset=int(wanted),
            piece=piece,
        )
        return _held(found)


def _held(found: SampleHeld) -> Response:
    return Response(encode(found), media_type="application/json")
