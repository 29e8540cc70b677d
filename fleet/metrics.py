"""Metrics in Prometheus's format, at `/metrics` of the operators' listener.

What is counted in this process is counted as it happens; what is in the database is read when
somebody asks. No metric has a device, a rollout or a user for a label: their number is bounded,
whatever the fleet's size.
"""

import shutil
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.db import tables
from fleet.events import EventHub
from fleet.services import devices, facts
from fleet.services.context import Services
from fleet.trust.repository import TOP
from fleet.version import version

PATH = "/metrics"
_MAX_NAMES = 200
_MAX_CLASSES = 50
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class FleetMetrics:
    """The metrics of one listener.

    Args:
        services: the fleet.
        hub: the event streams.
    """

    def __init__(self, services: Services, hub: EventHub) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "edgeml_http_request_seconds",
            "Time to answer a request to the API.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_OfTheFleet(services, hub))

    def route(self) -> Route:
        """The route that Prometheus asks."""

        async def metrics(_request: Request) -> Response:
            text = await run_in_threadpool(generate_latest, self.registry)
            return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

        return Route(PATH, metrics, methods=["GET"])


class TimedMiddleware:
    """Times the requests below a path, by their routes; streams are not requests."""

    def __init__(self, app: ASGIApp, histogram: Histogram, prefix: str) -> None:
        self._app = app
        self._histogram = histogram
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        began, status, is_stream = time.perf_counter(), 500, False

        async def sending(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                is_stream = any(b"event-stream" in value for _, value in message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            if not is_stream:
                method = scope["method"] if scope["method"] in _METHODS else "other"
                where = (method, _route(scope), f"{status // 100}xx")
                self._histogram.labels(*where).observe(time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """The route's own pattern, so that no name of a device becomes a label."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


class _OfTheFleet(Collector):
    def __init__(self, services: Services, hub: EventHub) -> None:
        self._services = services
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        """Read everything once."""
        services = self._services
        yield _gauge("build", "The version that runs.", [((version(),), 1)], ("version",))
        yield _gauge("started_at_seconds", "When it was started.", [((), services.started_at)])
        connected = int(services.publisher.connected)
        yield _gauge("broker_connected", "Whether the broker is there.", [((), connected)])
        yield _gauge("event_clients", "Who listens to events.", [((), self._hub.clients)])
        yield from self._machine()
        yield from self._trust()
        with services.database.read() as session:
            yield from self._devices(session)
            yield from self._work(session)

    def _machine(self) -> Iterator[Metric]:
        services = self._services
        disk = shutil.disk_usage(services.keys.folder)
        yield _gauge("disk_free_bytes", "Free on the fleet's disk.", [((), disk.free)])
        yield _gauge("disk_bytes", "The size of the fleet's disk.", [((), disk.total)])
        counted = list(services.counters.all().items())[:_MAX_NAMES]
        family = CounterMetricFamily(
            "edgeml_happened", "What happened since the start, by name.", labels=("name",)
        )
        for name, number in counted:
            family.add_metric((name,), number)
        yield family
        values = [((name,), read()) for name, read in sorted(services.gauges.items())]
        yield _gauge("level", "Levels of this process, by name.", values[:_MAX_NAMES], ("name",))

    def _trust(self) -> Iterator[Metric]:
        found = [(role, self._services.trust.published(role)) for role in TOP]
        yield _gauge(
            "trust_expires_at_seconds",
            "When what a role has signed expires.",
            [((role,), m.signed.expires.timestamp()) for role, m in found if m is not None],
            ("role",),
        )

    def _devices(self, session: Session) -> Iterator[Metric]:
        table, now = tables.Device, self._services.now()
        number = select(func.count()).select_from(table)
        there = table.last_seen > now - devices.ONLINE_S
        online = number.where(table.online, there, table.revoked_at.is_(None))
        counts = {
            "online": session.scalar(online) or 0,
            "revoked": session.scalar(number.where(table.revoked_at.is_not(None))) or 0,
        }
        counts["offline"] = (session.scalar(number) or 0) - sum(counts.values())
        values = [((state,), n) for state, n in sorted(counts.items())]
        yield _gauge("devices", "Devices by state.", values, ("state",))
        classes = (
            select(table.hardware_class, func.count())
            .where(table.revoked_at.is_(None))
            .group_by(table.hardware_class)
            .order_by(func.count().desc(), table.hardware_class)
            .limit(_MAX_CLASSES)
        )
        values = [((name or "unknown",), n) for name, n in session.execute(classes)]
        yield _gauge(
            "devices_by_class", "Devices by hardware class, the largest.", values, ("class",)
        )

    def _work(self, session: Session) -> Iterator[Metric]:
        frozen = int(bool(facts.get(session, facts.FROZEN)))
        yield _gauge("frozen", "Whether rollouts are frozen after a restore.", [((), frozen)])
        rollouts, alerts, sent = tables.Rollout, tables.Alert, tables.Delivery
        grouped = select(rollouts.status, func.count()).group_by(rollouts.status)
        values = [((status,), n) for status, n in session.execute(grouped)]
        yield _gauge("rollouts", "Rollouts by status.", values, ("status",))
        firing = (
            select(alerts.kind, alerts.severity, func.count())
            .where(alerts.state == "firing")
            .group_by(alerts.kind, alerts.severity)
        )
        found = [((kind, severity), n) for kind, severity, n in session.execute(firing)]
        yield _gauge("alerts_firing", "Alerts that fire.", found, ("kind", "severity"))
        grouped = select(sent.status, func.count()).group_by(sent.status)
        values = [((status,), n) for status, n in session.execute(grouped)]
        yield _gauge("webhook_deliveries", "Events for webhooks.", values, ("status",))


def _gauge(
    name: str,
    what: str,
    values: Iterable[tuple[tuple[str, ...], float]],
    labels: tuple[str, ...] = (),
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"edgeml_{name}", what, labels=labels)
    for given, value in values:
        family.add_metric(given, value)
    return family
