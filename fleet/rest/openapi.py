"""The OpenAPI document: what FastAPI writes, and what all routes have in common."""

from typing import Any

from fastapi import FastAPI

PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "An error (RFC 9457): what happened, why, and what to do next.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "what": {"type": "string"},
        "why": {"type": "string"},
        "fix": {"type": "string"},
        "kind": {"type": "string", "description": "The class of the error in `edgeml.errors`."},
    },
}
_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request was refused.", "content": _CONTENT},
    "5XX": {"description": "The fleet cannot do it now.", "content": _CONTENT},
}
_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A random value: sent again with it, the request is done once.",
    "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"},
}
_NOT_MODIFIED = {"description": "It is what `If-None-Match` names."}
_ETAG = {"description": "Names this content, for `If-None-Match`.", "schema": {"type": "string"}}


def describe(app: FastAPI) -> None:
    """Have an application's document say what the middleware does, too."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    parts = document.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = PROBLEM
    parts.setdefault("securitySchemes", {})["bearer"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "A user's API token, or the operator's token of the data folder.",
    }
    document["security"] = [{"bearer": []}]
    for path in document["paths"].values():
        for method, operation in path.items():
            if method == "post":
                operation.setdefault("parameters", []).append(_KEY)
            answer = operation["responses"].get("200", {})
            if method == "get" and "application/json" in answer.get("content", {}):
                answer["headers"] = {"ETag": _ETAG}
                operation["responses"]["304"] = _NOT_MODIFIED
    return document
