"""The listener of operators: the REST API, the registry with push, and the console."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from edgeml.errors import EdgemlError
from fleet.access import Access, AccessMiddleware
from fleet.operator_routes import router
from fleet.problem import on_crash, on_edgeml_error, on_http_error, problem
from fleet.registry_routes import RegistryRoutes
from fleet.services.context import Services
from fleet.version import version

Mount = Callable[[FastAPI, Services], None]


def operator_app(services: Services, access: Access, mount: Mount | None = None) -> FastAPI:
    """The ASGI application of the operator listener.

    Args:
        services: what it works on.
        access: who may use it.
        mount: adds the console's pages.
    """
    app = FastAPI(
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
            Exception: on_crash,
        },
    )
    app.include_router(router(services, access))
    registry = RegistryRoutes(services.registry)
    app.router.routes.extend([*registry.push(), *registry.pull()])
    if mount is not None:
        mount(app, services)
    app.add_middleware(AccessMiddleware, access=access)
    return app


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
    ]
    detail = "; ".join(found)
    what = "The request is not valid."
    return problem(422, what, detail, what=what, why=f"{detail}.", fix="", kind="UserError")
