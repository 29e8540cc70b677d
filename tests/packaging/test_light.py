"""What a device carries: the packages of its extra, and what its resident process imports."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cloud_sync.messages import Phase
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene

ROOT = Path(__file__).parents[2]
# The server, the converters, and whatever is too heavy for a small board.
FORBIDDEN = {
    *("fastapi", "starlette", "uvicorn", "nicegui", "sqlalchemy", "alembic", "jinja2"),
    *("pydantic", "pydantic-core", "onnx", "onnxslim", "torch", "tensorflow", "scipy", "pandas"),
    *("matplotlib", "pycocotools", "ray", "scikit-learn", "aiohttp", "gevent", "pillow"),
    *("openvino", "ai-edge-litert"),
}
# httpx brings h11, and rich too where click is there, which a device does not have.
NEVER_IMPORTED = (
    *("typer", "pydantic", "prometheus_client", "asyncio", "edge_agent.api.server"),
    *("edge_agent.commands", "openvino", "ai_edge_litert", "fastapi", "onnx"),
)


def carried(extra: str) -> set[str]:
    """All that `edgeml[extra]` installs, by the metadata of what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    found: set[str] = set()
    waiting = [*map(Requirement, project["dependencies"]), *map(Requirement, optional[extra])]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name == "edgeml":
            waiting += [Requirement(r) for e in wanted.extras for r in optional[e]]
            continue
        if name in found:
            continue
        found.add(name)
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        for text in needs:
            requirement = Requirement(text)
            marker = requirement.marker
            extras = wanted.extras or {""}
            if marker is None or any(marker.evaluate({"extra": each}) for each in extras):
                waiting.append(requirement)
    return found


def test_a_device_carries_nothing_of_the_server_or_the_converters() -> None:
    found = carried("agent")
    assert {"numpy", "onnxruntime", "paho-mqtt", "msgspec"} <= found
    assert found & FORBIDDEN == set()


@pytest.mark.parametrize(
    ("extra", "runtime"), [("agent-litert", "ai-edge-litert"), ("agent-openvino", "openvino")]
)
def test_another_runtime_is_one_extra_away(extra: str, runtime: str) -> None:
    found = carried(extra)
    assert carried("agent") < found
    assert found & FORBIDDEN == {runtime}


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["agent", "agent-litert", "agent-openvino"])
def test_the_extra_resolves_in_a_clean_environment(extra: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    resolve = ["install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *resolve, "-c", "constraints.txt", f".[{extra}]"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "No matching distribution" not in done.stderr:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    found = {
        canonicalize_name(entry["metadata"]["name"])
        for entry in json.loads(report.read_text())["install"]
    }
    allowed = {"agent-litert": {"ai-edge-litert"}, "agent-openvino": {"openvino"}}
    assert found & FORBIDDEN == allowed.get(extra, set())
    assert found - {"edgeml"} <= carried(extra)


RUN = """
import atexit, json, sys
atexit.register(lambda: open(sys.argv[1], "w").write(json.dumps(sorted(sys.modules))))
from edge_agent import link
link.POLL_ALONE_S = 0.3
from edge_agent.service import main
sys.exit(main(sys.argv[3:]))
"""


def test_the_service_imports_nothing_that_it_does_not_use(scene: Scene, tmp_path: Path) -> None:
    modules = tmp_path / "modules.json"
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config, code=RUN, arguments=(str(modules),)) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed")
        assert agent.stop()[0] == 0
    loaded = set(json.loads(modules.read_text()))
    assert "onnxruntime" in loaded
    assert [name for name in NEVER_IMPORTED if name in loaded] == []


def test_the_service_opens_its_api_where_it_is_asked_to(scene: Scene, tmp_path: Path) -> None:
    import httpx

    path = tmp_path / "api.sock"
    scene.want(scene.release("1.0.0"))
    code = RUN.replace("sys.argv[3:]", f"[*sys.argv[3:], '--api', 'unix:{path}']")
    with AgentProcess(scene.config, code=code, arguments=(str(tmp_path / "m.json"),)) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=20) as client:
            assert client.get("http://here/v2/models/toy/ready").status_code == 200
            assert client.get("http://here/frames/toy.jpg").content[:2] == b"\xff\xd8"
            eventually(
                lambda: 'edgeml_frames_total{model="toy"' in client.get("http://here/metrics").text
            )
        status, seconds = agent.stop()
    assert status == 0
    assert seconds < 10
    assert not path.exists()
