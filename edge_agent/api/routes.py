"""Which address answers what. Every answer is made from what `Device` and the totals say."""

from typing import Any

import msgspec

from edge_agent.api import inference
from edge_agent.api.device import Device, FindPush, ServedModel, Sources
from edge_agent.api.http_server import Request, Response
from edge_agent.api.totals import Totals
from edgeml.errors import DeviceError, EdgemlError, ModelError, UserError
from hardware.probes import agent_version, clock_share, hottest, temperatures

INFER_S = 30.0
WATCH_S = 2.0
JSON = "application/json"
# Answered where the connections are served: they wait for nothing.
AT_ONCE = ""
INFERENCE = "inference"
FRAMES = "frames"
FIGURES = "figures"
PUSHES = "pushes"


class Routes:
    """See the module. `answer` may be called on any thread; `lane` says on which kind."""

    def __init__(
        self,
        device: Device,
        totals: Totals,
        *,
        name: str,
        push: FindPush | None = None,
        sources: Sources = dict,
    ) -> None:
        self._device = device
        self._totals = totals
        self._name = name
        self._push = push
        self._sources = sources

    def lane(self, request: Request) -> str:
        """The lane on which a request is answered."""
        first, _, last = request.path.strip("/").partition("/")
        if first == "v2" and last.endswith("/infer"):
            return INFERENCE
        lanes = {"frames": FRAMES, "metrics": FIGURES, "figures.json": FIGURES, "sources": PUSHES}
        return lanes.get(first, AT_ONCE)

    def answer(self, request: Request) -> Response:
        """Answer a request; what is wrong with it is an answer too."""
        try:
            return self._answer(request)
        except (UserError, ModelError) as error:
            return problem(400, str(error))
        except DeviceError as error:
            return problem(503, str(error))
        except EdgemlError as error:
            return problem(500, str(error))

    def _answer(self, request: Request) -> Response:
        path = [part for part in request.path.split("/") if part]
        method = "GET" if request.method == "HEAD" else request.method
        match (method, *path):
            case ("GET",):
                return _page()
            case ("GET", "metrics"):
                return self._metrics()
            case ("GET", "figures.json"):
                return self._figures()
            case ("GET", "frames", name) if name.endswith(".jpg"):
                return self._frame(name.removesuffix(".jpg"))
            case ("POST", "sources", name, "frames"):
                return self._pushed(name, request)
            case ("POST", "models", name, "metrics"):
                return self._measured(name, request)
            case (_, "v2", *rest):
                return self._protocol(method, rest, request)
        return problem(404, f"There is no {request.method} {request.path[:200]}.")

    def _protocol(self, method: str, rest: list[str], request: Request) -> Response:
        match (method, *rest):
            case ("GET",):
                extensions = ["binary_tensor_data"]
                return _json(
                    {"name": "edgeml", "version": agent_version(), "extensions": extensions}
                )
            case ("GET", "health", "live"):
                return _json({"live": True})
            case ("GET", "health", "ready"):
                models = self._device.models()
                ready = bool(models) and all(_ready(model) for model in models)
                return _json({"ready": ready}, 200 if ready else 503)
            case (_, "models", name, "versions", version, *last):
                return self._of_model(method, self._model(name, version), last, request)
            case (_, "models", name, *last):
                return self._of_model(method, self._model(name), last, request)
        return problem(404, f"There is no {request.method} {request.path[:200]}.")

    def _of_model(
        self, method: str, model: ServedModel | None, last: list[str], request: Request
    ) -> Response:
        if model is None:
            running = ", ".join(f"{m.name}:{m.version}" for m in self._device.models())
            return problem(404, f"This model does not run here; what runs: {running or 'nothing'}.")
        match (method, *last):
            case ("GET",):
                return _json(inference.metadata(model))
            case ("GET", "ready"):
                ready = _ready(model)
                said = {"name": model.name, "version": model.version, "ready": ready}
                return _json(said, 200 if ready else 503)
            case ("POST", "infer"):
                return self._infer(model, request)
        return problem(404, f"There is no {request.method} {request.path[:200]}.")

    def _model(self, name: str, version: str = "") -> ServedModel | None:
        for model in self._device.models():
            if model.name == name and version in {"", model.version}:
                return model
        return None

    def _infer(self, model: ServedModel, request: Request) -> Response:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            return problem(415, f"The content encoding {encoding[:50]} is not supported.")
        asked = inference.read(model, request.headers, request.body)
        outputs = self._device.infer(model.name, asked.tensors, INFER_S)
        if len(outputs) != len(model.outputs):
            raise DeviceError("The model was replaced meanwhile.", fix="Ask again.")
        body, length = inference.write(model, asked, outputs)
        if length is None:
            return Response(body=body, content_type=JSON)
        return Response(
            body=body,
            content_type="application/octet-stream",
            headers={inference.JSON_LENGTH: str(length)},
        )

    def _frame(self, name: str) -> Response:
        from edge_agent.annotate import annotate, headline, jpeg

        if self._model(name) is None:
            return problem(404, f"No model {name[:100]} takes frames here.")
        watched = self._device.watch(name, WATCH_S)
        if watched is None:
            return problem(503, f"No frame of {name} came within {WATCH_S:g} seconds.")
        picture = annotate(watched.image, watched.result, watched.region)
        said = f"{watched.source} frame {watched.index}: {headline(watched.result)}"
        return Response(
            body=jpeg(picture),
            content_type="image/jpeg",
            headers={"x-edgeml-frame": said.encode("ascii", "replace").decode()},
        )

    def _pushed(self, name: str, request: Request) -> Response:
        from hardware.pipeline import decode_image

        source = self._push(name) if self._push else None
        if source is None:
            return problem(404, f"No source {name[:100]} takes frames from here.")
        said = source.push(decode_image(request.body))
        return _json({"frame": said}, 503 if said == "refused" else 202)

    def _measured(self, name: str, request: Request) -> Response:
        from edge_agent.api.measured import read_metrics

        if self._model(name) is None:
            return problem(404, f"No model {name[:100]} runs here.")
        metrics = read_metrics(request.body)
        self._device.measure(name, metrics)
        return _json({"taken": sum(map(len, metrics.values()))}, 202)

    def _metrics(self) -> Response:
        from edge_agent.api.metrics import Figures
        from edge_agent.memory import rss_bytes

        text, kind = Figures(
            device=self._name,
            agent_version=agent_version(),
            models=self._device.models(),
            totals=self._totals.all(),
            sources=self._sources(),
            temperatures=temperatures(),
            clock_share=clock_share(),
            rss_bytes=rss_bytes(),
        ).text()
        return Response(body=text, content_type=kind)

    def _figures(self) -> Response:
        from edge_agent.api.page import figures

        said = figures(
            self._name, self._device.models(), self._totals.all(), hottest(), clock_share()
        )
        return _json(said)


def problem(status: int, sentence: str) -> Response:
    """An error as the protocol wants it, for every address alike."""
    return _json({"error": sentence}, status)


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(status=status, body=msgspec.json.encode(body), content_type=JSON)


def _page() -> Response:
    from edge_agent.api.page import page

    text, policy = page()
    return Response(
        body=text,
        content_type="text/html; charset=utf-8",
        headers={"content-security-policy": policy},
    )


def _ready(model: ServedModel) -> bool:
    return model.stuck_s == 0
