"""The listener that devices talk to: enrolment, hello, records, desired states, trust, blobs.

Browsers and operators have another one. Everything but enrolment wants a token that the device
signs with its key (`cloud_sync.trust.device_token`); an answer 401 carries the challenge.
"""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cloud_sync.messages import EnrollRequest, decode, encode
from cloud_sync.trust.device_token import SCHEME, check_token, claimed_device, make_challenge
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from edgeml.errors import EdgemlError, RemoteError, TrustError
from fleet.ingest import Ingest
from fleet.problem import Unauthorized, on_crash, on_edgeml_error, on_http_error, problem
from fleet.registry_routes import RegistryRoutes
from fleet.services import enrollment, reported
from fleet.services.context import Services

_JSON = "application/json"
_MAX_ENROLL_BYTES = 1 << 16
_Endpoint = Callable[[Request], Awaitable[Response]]


def device_app(services: Services, ingest: Ingest) -> Starlette:
    """The ASGI application of the device listener."""
    handlers = _Handlers(services, ingest)
    registry: list[BaseRoute] = [
        Route(route.path, handlers.known(route.endpoint), methods=list(route.methods or ()))
        for route in RegistryRoutes(services.registry).pull()
    ]
    routes: list[BaseRoute] = [
        Route("/device/v1/enroll", handlers.enroll, methods=["POST"]),
        Route("/device/v1/hello", handlers.known(handlers.hello), methods=["POST"]),
        Route("/device/v1/desired", handlers.known(handlers.desired), methods=["GET"]),
        Route("/device/v1/records", handlers.known(handlers.records), methods=["POST"]),
        Route("/device/v1/trust/{path:path}", handlers.known(handlers.trust), methods=["GET"]),
        *registry,
    ]
    return Starlette(
        routes=routes,
        exception_handlers={
            EdgemlError: on_edgeml_error,
            HTTPException: on_http_error,
            Exception: on_crash,
        },
    )


class _Handlers:
    def __init__(self, services: Services, ingest: Ingest) -> None:
        self._services = services
        self._ingest = ingest

    def known(self, endpoint: _Endpoint) -> _Endpoint:
        """Let only enrolled devices in; the endpoint finds the id in `request.state.device`."""

        async def guarded(request: Request) -> Response:
            header = request.headers.get("authorization", "")
            request.state.device = await run_in_threadpool(self._authenticate, header)
            return await endpoint(request)

        return guarded

    async def enroll(self, request: Request) -> Response:
        # Whoever has no token yet has no business with more than a certificate's request.
        wanted = decode(await _body(request, _MAX_ENROLL_BYTES), EnrollRequest)
        enrolled = await run_in_threadpool(enrollment.enroll, self._services, wanted)
        return Response(encode(enrolled), media_type=_JSON)

    async def hello(self, request: Request) -> Response:
        body = await _body(request)
        device = request.state.device
        return _maybe(await run_in_threadpool(reported.hello, self._services, device, body))

    async def desired(self, request: Request) -> Response:
        device = request.state.device
        return _maybe(await run_in_threadpool(reported.current_desired, self._services, device))

    async def records(self, request: Request) -> Response:
        body = await _body(request)
        ack = await run_in_threadpool(self._ingest.send, request.state.device, body)
        return Response(ack, media_type=_JSON)

    async def trust(self, request: Request) -> Response:
        path = request.path_params["path"]
        data = await run_in_threadpool(self._services.trust.store.file, path)
        if data is None:
            return problem(404, "There is no such file.", path[:200])
        return Response(data, media_type="application/octet-stream")

    def _authenticate(self, header: str) -> str:
        services = self._services
        if not header:
            raise self._challenge("A device's token is needed.", "The request carries none.")
        try:
            device = claimed_device(header)
            key = reported.device_key(services, device)
        except TrustError:
            services.counters.add("security.unknown-device")
            raise
        try:
            return check_token(header, key, services.keys.challenge_secret, services.now())
        except TrustError as error:
            raise self._challenge(error.what, error.why) from None

    def _challenge(self, what: str, why: str) -> Unauthorized:
        challenge = make_challenge(self._services.keys.challenge_secret, self._services.now())
        return Unauthorized(what, why=why, challenge=f'{SCHEME} challenge="{challenge}"')


async def _body(request: Request, most: int = MAX_ENVELOPE_BYTES) -> bytes:
    """The request's body, bounded.

    Raises:
        RemoteError: it is too long, or did not come whole.
    """
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise RemoteError("A message was refused.", why=f"It is longer than {most} bytes.")
    except ClientDisconnect:
        raise RemoteError("A message was refused.", why="Its end did not come.") from None
    return bytes(data)


def _maybe(envelope: bytes | None) -> Response:
    if envelope is None:
        return Response(status_code=204)
    return Response(envelope, media_type=_JSON)
