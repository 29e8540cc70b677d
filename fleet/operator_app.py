"""The listener of operators: the REST API, the registry with push, and the console."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from edgeml.errors import EdgemlError
from fleet.access import Access, AccessMiddleware
from fleet.access.guard import guarded
from fleet.access.masking import MaskMiddleware
from fleet.events import EventHub
from fleet.login_routes import login_routes
from fleet.metrics import FleetMetrics, TimedMiddleware
from fleet.operator_routes import api_routes
from fleet.problem import on_crash, on_edgeml_error, on_http_error, on_unholdable, problem
from fleet.registry_routes import RegistryRoutes
from fleet.rest.bodies import BodyLimit
from fleet.rest.etags import ConditionalMiddleware
from fleet.rest.openapi import describe
from fleet.rest.repeated import RepeatedMiddleware
from fleet.roles import Role
from fleet.services.context import Services
from fleet.version import version

Mount = Callable[[FastAPI, Services], None]
_API = "/api/v1/"


def operator_app(services: Services, access: Access, mount: Mount | None = None) -> FastAPI:
    """The ASGI application of the operator listener.

    Args:
        services: what it works on.
        access: who may use it.
        mount: adds the console's pages.
    """
    hub = EventHub(services)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(hub.close)

    app = FastAPI(
        lifespan=lifespan,
        title="edgeml fleet",
        version=version(),
        openapi_url="/api/v1/openapi.json",
        # Their pages load scripts from other hosts; the document itself is all that is offered.
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            EdgemlError: on_edgeml_error,
            HTTPException: on_http_error,
            RequestValidationError: _on_invalid,
            DataError: on_unholdable,
            RecursionError: on_unholdable,
            Exception: on_crash,
        },
    )
    app.router.routes.extend(api_routes(services, access, hub))
    registry = RegistryRoutes(services.registry)
    app.router.routes.extend(guarded(route, Role.OPERATOR) for route in registry.push())
    app.router.routes.extend(guarded(route, Role.VIEWER) for route in registry.pull())
    app.router.routes.extend(login_routes(services, access))
    app.state.end_streams = hub.close
    metrics = FleetMetrics(services, hub)
    app.router.routes.append(guarded(metrics.route(), Role.VIEWER, whole_fleet=True))
    if mount is not None:
        mount(app, services)
    describe(app)
    # The last one added is the first to see a request.
    app.add_middleware(RepeatedMiddleware, services=services, prefix=_API)
    app.add_middleware(MaskMiddleware, prefix=_API)
    app.add_middleware(ConditionalMiddleware, prefix=_API)
    app.add_middleware(BodyLimit, prefix=_API)
    app.add_middleware(AccessMiddleware, access=access)
    app.add_middleware(TimedMiddleware, histogram=metrics.requests, prefix=_API)
    return app


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
    ]
    detail = "; ".join(found)
    what = "The request is not valid."
    return problem(422, what, detail, what=what, why=f"{detail}.", fix="", kind="UserError")
