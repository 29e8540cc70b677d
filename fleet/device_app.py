"""The listener that devices talk to: enrolment, hello, records, desired states, trust, blobs.

Browsers and operators have another one. Everything but enrolment wants a token that the device
signs with its key (`cloud_sync.trust.device_token`); an answer 401 carries the challenge.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cloud_sync.device_api import COMMANDS_HEADER, KEYS_HEADER
from cloud_sync.messages import EnrollRequest, decode, encode
from cloud_sync.trust.device_token import SCHEME, check_token, claimed_device, make_challenge
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from edgeml.errors import EdgemlError, TrustError
from fleet.deltas import Deltas
from fleet.good_tokens import GoodTokens
from fleet.ingest import Ingest
from fleet.ingest.service import HTTP_PATIENCE_S, busy
from fleet.problem import Unauthorized, on_crash, on_edgeml_error, on_http_error, problem
from fleet.registry_routes import RegistryRoutes
from fleet.rest.bodies import whole
from fleet.sample_device_routes import SampleRoutes
from fleet.services import commands, enrollment, identity, own_keys, reported
from fleet.services.context import Services
from fleet.trust.following import FollowingFiles

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
        # In the order in which they are looked through: what an update asks for comes first.
        *registry,
        Route("/device/v1/trust/{path:path}", handlers.known(handlers.trust), methods=["GET"]),
        Route("/device/v1/enroll", handlers.enroll, methods=["POST"]),
        Route("/device/v1/hello", handlers.known(handlers.hello), methods=["POST"]),
        Route("/device/v1/desired", handlers.known(handlers.desired), methods=["GET"]),
        Route("/device/v1/commands", handlers.known(handlers.commands), methods=["GET"]),
        Route("/device/v1/records", handlers.known(handlers.records), methods=["POST"]),
        Route("/device/v1/deltas/{digest}", handlers.known(handlers.deltas), methods=["GET"]),
        *(
            Route(route.path, handlers.known(route.endpoint), methods=list(route.methods or ()))
            for route in SampleRoutes(services).routes()
        ),
        Route("/device/v1/root/{director}", handlers.known(handlers.root), methods=["GET"]),
        Route("/device/v1/time", handlers.known(handlers.time, expired=True), methods=["POST"]),
        Route("/device/v1/renew", handlers.known(handlers.renew, expired=True), methods=["POST"]),
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
        self._deltas = Deltas(services.registry)
        self._following = FollowingFiles(services.trust.store)
        self._good = GoodTokens()
        services.replaced.tell(self._good.forget)

    def known(self, endpoint: _Endpoint, *, expired: bool = False) -> _Endpoint:
        """Let only enrolled devices in; the endpoint finds the id in `request.state.device`.

        `expired` lets in those, too, whose certificate has expired.
        """

        async def guarded(request: Request) -> Response:
            header = request.headers.get("authorization", "")
            if not header:
                raise self._challenge("A device's token is needed.", "The request carries none.")
            found = self._good.get(header)
            if found is None:
                found = await run_in_threadpool(self._authenticate, header)
            request.state.device, good_until = found
            if not expired and self._services.now() > good_until:
                raise TrustError(
                    f"The certificate of {request.state.device} has expired.",
                    fix="The agent renews it by itself; after the fleet's grace enrol again.",
                )
            return await endpoint(request)

        return guarded

    async def enroll(self, request: Request) -> Response:
        # Whoever has no token yet has no business with more than a certificate's request.
        wanted = decode(await whole(request, _MAX_ENROLL_BYTES), EnrollRequest)
        enrolled = await run_in_threadpool(enrollment.enroll, self._services, wanted)
        return Response(encode(enrolled), media_type=_JSON)

    async def hello(self, request: Request) -> Response:
        body = await whole(request, MAX_ENVELOPE_BYTES)
        device = request.state.device
        stored = await run_in_threadpool(self._ingest.hello, device, body)
        try:
            # Not on a thread: all who say hello at once are stored together.
            told = await asyncio.wait_for(asyncio.wrap_future(stored), HTTP_PATIENCE_S)
        except TimeoutError:
            raise busy() from None
        answer = _maybe(told or None)
        waiting = await run_in_threadpool(commands.number_pending, self._services, device)
        answer.headers[COMMANDS_HEADER] = str(waiting)
        answer.headers[KEYS_HEADER] = own_keys.told(self._services)
        return answer

    async def desired(self, request: Request) -> Response:
        device = request.state.device
        return _maybe(await run_in_threadpool(reported.current_desired, self._services, device))

    async def commands(self, request: Request) -> Response:
        device = request.state.device
        waiting = await run_in_threadpool(commands.pending, self._services, device)
        return Response(b"[" + b",".join(waiting) + b"]", media_type=_JSON)

    async def records(self, request: Request) -> Response:
        body = await whole(request, MAX_ENVELOPE_BYTES)
        ack = await run_in_threadpool(self._ingest.send, request.state.device, body)
        return Response(ack, media_type=_JSON)

    async def trust(self, request: Request) -> Response:
        path = request.path_params["path"]
        # A few kilobytes that every device asks for: a thread's turn would take longer.
        data = self._following.answer(path) or self._services.trust.store.file(path)
        if data is None:
            return problem(404, "There is no such file.", path[:200])
        return Response(data, media_type="application/octet-stream")

    async def time(self, request: Request) -> Response:
        body = await whole(request, _MAX_ENROLL_BYTES)
        device = request.state.device
        told = await run_in_threadpool(identity.tell_time, self._services, device, body)
        return Response(told, media_type=_JSON)

    async def renew(self, request: Request) -> Response:
        body = await whole(request, _MAX_ENROLL_BYTES)
        device = request.state.device
        renewed = await run_in_threadpool(identity.renew, self._services, device, body)
        return Response(encode(renewed), media_type=_JSON)

    async def root(self, request: Request) -> Response:
        director = request.path_params["director"]
        found = await run_in_threadpool(own_keys.root_statement, self._services, director)
        return _maybe(found)

    async def deltas(self, request: Request) -> Response:
        found = await run_in_threadpool(self._deltas.offers, request.path_params["digest"])
        return Response(encode(found), media_type=_JSON)

    def _authenticate(self, header: str) -> tuple[str, float]:
        """A device's id, and until when its certificate is good."""
        services = self._services
        try:
            device = claimed_device(header)
            known = identity.known(services, device)
        except TrustError:
            services.counters.add("security.unknown-device")
            raise
        try:
            secret, now = services.keys.challenge_secret, services.now()
            check_token(header, known.key, secret, now)
        except TrustError as error:
            raise self._challenge(error.what, error.why) from None
        self._good.keep(header, device, known.expires_at)
        return device, known.expires_at

    def _challenge(self, what: str, why: str) -> Unauthorized:
        challenge = make_challenge(self._services.keys.challenge_secret, self._services.now())
        return Unauthorized(what, why=why, challenge=f'{SCHEME} challenge="{challenge}"')


def _maybe(envelope: bytes | None) -> Response:
    if envelope is None:
        return Response(status_code=204)
    return Response(envelope, media_type=_JSON)
