"""The REST API of how models do over time, and of devices counted."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from fleet.access.needs import needs
from fleet.rest.requests import CallerOf, Text
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import metrics
from fleet.services.census import Census, census
from fleet.services.context import Services
from fleet.services.metrics import Metrics

_DAY_S = 86400.0
_LATEST = 2**40

Moment = Annotated[float | None, Query(ge=0, le=_LATEST, description="Unix seconds.")]
By = Annotated[
    list[str] | None,
    Query(
        max_length=4,
        description="What series are kept apart by: `model`, `release`, `hardware_class`, "
        "`label:site`, `device`; may be given again.",
    ),
]
Step = Annotated[int, Query(ge=0, le=_LATEST, description="Seconds; 0: the best that fits.")]


def metrics_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "observed")

    @routes.get("/metrics")
    @needs(Role.VIEWER)
    def list_metrics(
        request: Request,
        *,
        model: Text = "",
        release: Text = "",
        hardware_class: Text = "",
        device: Text = "",
        selector: Text = "",
        begin: Moment = None,
        end: Moment = None,
        step: Step = 0,
        by: By = None,
        stage: Text = "inference",
    ) -> Metrics:
        """Latency, errors and rates over time; the last day where no time is given."""
        until = time.time() if end is None else end
        asked = metrics.Asked(
            begin=max(until - _DAY_S, 0.0) if begin is None else begin,
            end=until,
            model=model,
            release=release,
            hardware_class=hardware_class,
            device=device,
            selector=selector,
            by=tuple(dict.fromkeys(by or ())),
            step_s=step,
            stage=stage,
        )
        return metrics.series(services, asked, caller(request, "").scope)

    @routes.get("/census")
    @needs(Role.VIEWER)
    def show_census(request: Request, *, selector: Text = "", label: Text = "") -> Census:
        """The devices counted: by hardware class, by what they run, and by a label's values."""
        chosen = parse_selector(selector)
        return census(services, caller(request, "").scope, selector=chosen, label=label)

    return routes
