"""The REST API of details that pages show: histories, counts, signatures, reports."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import Field
from typing_extensions import TypedDict

from fleet.access.needs import needs
from fleet.resources import Page
from fleet.rest.cursors import After, Limit, paged, sliced
from fleet.rest.requests import CallerOf, Text, WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import device_history, device_labels, device_search, release_documents
from fleet.services import signatures as signing
from fleet.services.context import Services
from fleet.services.device_history import HistoryEntry
from fleet.services.device_search import Wanted
from fleet.services.signatures import SignatureInfo

_Name = Annotated[str, Field(max_length=64)]


class Count(TypedDict):
    """How many there are."""

    count: int


class Changed(TypedDict):
    """How many were changed."""

    changed: int


class LabelsRequest(WithReason):
    """Labels to set on devices, and keys of labels to take away; others stay."""

    devices: list[_Name] = Field(min_length=1, max_length=device_labels.MOST)
    put: dict[str, str] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list, max_length=64)


def detail_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services)
    _devices(routes, services, caller)
    _releases(routes, services)
    return routes


def _devices(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/device-count", tags=["devices"])
    @needs(Role.VIEWER)
    def count_devices(
        request: Request,
        *,
        selector: Text = "",
        name: Text = "",
        state: Text = "",
        hardware_class: Text = "",
        model: Text = "",
        version: Text = "",
        phase: Text = "",
    ) -> Count:
        """How many devices are like that: `state` is online, offline or revoked."""
        wanted = Wanted(selector, name, state, hardware_class, model, version, phase)
        return {"count": device_search.count(services, wanted, caller(request, "").scope)}

    @routes.post("/device-labels", tags=["devices"])
    @needs(Role.OPERATOR)
    def label_devices(request: Request, body: LabelsRequest) -> Changed:
        """Set and take away labels of several devices together."""
        who = caller(request, body.reason)
        names = list(dict.fromkeys(body.devices))
        return {"changed": device_labels.change(services, who, names, body.put, body.drop)}

    @routes.get("/devices/{device}/history", tags=["devices"])
    @needs(Role.VIEWER)
    def show_history(device: str, after: After = "", limit: Limit = 100) -> Page[HistoryEntry]:
        """What a device said of its releases, newest first, with its reasons."""
        found = device_history.show(services, device)

        def key(entry: HistoryEntry) -> str:
            return f"{entry['id']:020}"

        return paged(
            "history", after, lambda last: sliced(found, key, last, limit, newest=True), str
        )


def _releases(routes: APIRouter, services: Services) -> None:
    @routes.get("/releases/{model}/{version}/signature", tags=["releases"])
    @needs(Role.VIEWER)
    def show_signature(model: str, version: str) -> SignatureInfo:
        """Who signed a release, and who may still."""
        return signing.show(services, model, version)

    @routes.get("/releases/{model}/{version}/inputs", tags=["releases"])
    @needs(Role.VIEWER)
    def show_inputs(model: str, version: str) -> dict[str, Any]:
        """What a release was made of and with, as its recipe says."""
        return release_documents.inputs(services, model, version)

    @routes.get(
        "/releases/{model}/{version}/report", tags=["releases"], response_class=HTMLResponse
    )
    @needs(Role.VIEWER)
    def show_report(model: str, version: str) -> HTMLResponse:
        """The converter's report, to be kept as a file: somebody else wrote it."""
        report = release_documents.report(services, model, version)
        return HTMLResponse(report, headers={"Content-Disposition": "attachment"})
