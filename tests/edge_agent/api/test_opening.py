"""An address that is busy, or not there yet, is taken when it can be."""

import logging
import socket
import time
from pathlib import Path

import httpx
import pytest

from edge_agent.api.opening import Opening
from edge_agent.api.options import ApiOptions
from edge_agent.api.server import LocalApi
from edgeml.errors import TrustError, UserError
from tests.edge_agent.api.conftest import Bench
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import Scene


def test_it_is_opened_once_the_address_is_free(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        api = LocalApi(ApiOptions(listen=where), bench.workers, device="cam-1")
        opening = Opening(api, retry_s=0.01)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                opening.turn()
                time.sleep(0.02)
        [said] = caplog.messages
        assert "Another program uses it" in said
        assert "runs without it" in said
    try:
        opening.turn()
        assert httpx.get(f"http://{where}/v2/health/live").json() == {"live": True}
        opening.turn()  # an open one is left alone
    finally:
        api.close()


def test_a_certificate_that_cannot_be_used_is_refused_and_not_tried_again(
    bench: Bench, tmp_path: Path
) -> None:
    pem = tmp_path / "none.pem"
    pem.write_text("no certificate")
    options = ApiOptions(listen="127.0.0.1:0", certificate=str(pem), key=str(pem))
    with pytest.raises(TrustError):
        Opening(LocalApi(options, bench.workers, device="cam-1")).turn()


def test_an_agent_whose_address_is_taken_runs_without_it(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        with AgentProcess(scene.config, options=("--api", where)) as agent:
            results = scene.data / "results.jsonl"
            eventually(lambda: results.exists() and results.read_text(), what="results")
            log = (scene.data / "agent.log").read_text()
            assert f"cannot listen on {where}" in log
            assert agent.stop()[0] == 0


@pytest.mark.parametrize("listen", ["rubbish", "127.0.0.1:99999", "0.0.0.0:8093"])
def test_what_can_never_be_opened_is_refused_at_the_start(bench: Bench, listen: str) -> None:
    with pytest.raises(UserError):
        LocalApi(ApiOptions(listen=listen), bench.workers, device="cam-1")
