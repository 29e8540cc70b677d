"""The HTTP side: limits, hostile and slow clients, Unix sockets, TLS; over real sockets."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cloud_sync.messages import Measure
from edge_agent.api.device import Watched
from edge_agent.api.http_server import Limits
from edge_agent.api.options import parse_address
from edge_agent.api.server import LocalApi, take
from edgeml.errors import UserError
from tests.edge_agent.api.conftest import MODEL, Bench
from tests.hardware.pipeline.test_decode import png_bomb

Serve = Callable[..., LocalApi]


def raw(api: LocalApi, data: bytes, timeout_s: float = 20.0) -> bytes:
    """What the server answers to bytes, until it closes."""
    with socket.create_connection((api.address.host, api.address.port), timeout_s) as client:
        client.sendall(data)
        found = b""
        while part := client.recv(65536):
            found += part
    return found


def get(api: LocalApi, path: str, **how: object) -> httpx.Response:
    return httpx.get(f"http://{api.address}{path}", timeout=20, **how)  # type: ignore[arg-type]


def test_every_answer_forbids_sniffing_framing_and_storing(serve: Serve) -> None:
    for path in ("/", "/metrics", "/v2", "/nothing"):
        headers = get(serve(), path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_what_is_not_there_is_a_sentence(serve: Serve) -> None:
    api = serve()
    for path in ("/nothing", "/v2/models", "/v2/models/toy/config", "/frames/other.jpg"):
        answer = get(api, path)
        assert answer.status_code == 404
        assert answer.json()["error"].endswith(".")
    assert httpx.post(f"http://{api.address}/metrics").status_code == 404


def test_a_foreign_host_and_a_foreign_page_are_refused_before_their_body(serve: Serve) -> None:
    api = serve()
    assert get(api, "/v2", headers={"host": "evil.example"}).status_code == 421
    head = (
        b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n"
    )
    answer = raw(api, head + b"Content-Length: 30000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"connection: close" in answer


def test_bodies_and_heads_that_are_too_large_are_refused(serve: Serve) -> None:
    api = serve(limits=Limits(body_bytes=1000))
    url = f"http://{api.address}/v2/models/toy/infer"
    answer = httpx.post(url, content=b"x" * 1001)
    assert answer.status_code == 413
    assert "at most 1000 bytes" in answer.text
    chunked = httpx.post(url, content=iter([b"x" * 600, b"x" * 600]))
    assert chunked.status_code == 413
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40000 + b"\r\n\r\n"
    assert raw(api, head).startswith(b"HTTP/1.1 431")
    assert raw(api, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_bad_inferences_are_the_callers_fault(serve: Serve) -> None:
    url = f"http://{serve().address}/v2/models/toy/infer"
    good = {"name": "image", "datatype": "FP32", "shape": [1, 1, 4, 4], "data": [0.5] * 16}

    def refused(body: object, **headers: str) -> str:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = httpx.post(url, content=content, headers=headers)
        assert answer.status_code == 400, answer.text
        return str(answer.json()["error"])

    assert "cannot be read" in refused(b"{")
    assert "cannot be read" in refused({"inputs": 3})
    assert "cannot be read" in refused(b"[" * 5000)
    assert "image is missing" in refused({"inputs": []})
    assert "there twice" in refused({"inputs": [good, good]})
    assert "16 values" in refused({"inputs": [good | {"shape": [1, 1, 4, 5]}]})
    assert "ragged" in refused({"inputs": [good | {"data": [[1], [1, 2]]}]})
    assert "not of FP32" in refused({"inputs": [good | {"data": ["a"] * 16}]})
    assert "shape that no tensor has" in refused({"inputs": [good | {"shape": [-1, 16]}]})
    assert "got float64" in refused({"inputs": [good | {"datatype": "FP64"}]})
    huge = good | {"shape": [1 << 40, 1 << 40], "data": [1]}
    assert "Its shape needs" in refused({"inputs": [huge]})
    sized = {k: v for k, v in good.items() if k != "data"} | {
        "parameters": {"binary_data_size": 64}
    }
    head = json.dumps({"inputs": [sized]}).encode()
    length = {"inference-header-content-length": str(len(head))}
    assert "0 bytes are there" in refused(head, **length)
    assert "belong to no input" in refused(head + b"x" * 65, **length)
    assert "the body has" in refused(head, **{"inference-header-content-length": "99999"})
    shared = good | {"parameters": {"shared_memory_region": "a"}}
    assert "shared memory" in refused({"inputs": [shared]})
    nan = httpx.post(url, json={"inputs": [good]})
    assert nan.status_code == 200


def test_a_slow_client_holds_its_connection_and_nothing_else(serve: Serve, bench: Bench) -> None:
    bench.start()
    api = serve(limits=Limits(connections=4, request_s=2.0))
    address = (api.address.host, api.address.port)
    slow = [socket.create_connection(address, 20) for _ in range(8)]
    try:
        for client in slow:
            client.sendall(b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\nContent-")
        # The places are taken, and the one that waited longest makes room.
        assert get(api, "/v2/health/live").status_code == 200
        done = len(bench.results)
        deadline = time.monotonic() + 20
        while len(bench.results) < done + 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for client in slow:  # none of them is answered, all of them are let go
            client.settimeout(20)
            try:
                assert client.recv(100) == b""
            except ConnectionResetError:
                continue
    finally:
        for client in slow:
            client.close()


def test_one_connection_carries_many_requests_and_heads_have_no_body(serve: Serve) -> None:
    api = serve()
    with httpx.Client(base_url=f"http://{api.address}") as client:
        for _ in range(3):
            assert client.get("/v2/health/live").json() == {"live": True}
        head = client.head("/v2")
        assert (head.status_code, head.content) == (200, b"")
        assert client.get("/v2").json()["name"] == "edgeml"
    asked = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = raw(api, asked + asked.replace(b"Host", b"Connection: close\r\nHost"))
    assert both.count(b'{"live":true}') == 2


def test_a_unix_socket_needs_no_host_and_replaces_a_stale_one(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    api = serve(f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o660
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://anything/v2/models/toy").json()["name"] == "toy"
    with pytest.raises(UserError, match="Another program uses it"):
        serve(f"unix:{path}")
    api.close()
    assert not path.exists()


def test_an_address_that_is_taken_is_said_with_the_option(serve: Serve) -> None:
    taken = str(serve().address)
    with pytest.raises(UserError, match="--api"):
        serve(taken)


def test_closing_leaves_no_thread_and_no_port(serve: Serve, bench: Bench) -> None:
    before = {thread.name for thread in threading.enumerate()}
    api = serve()
    get(api, "/metrics")
    get(api, "/figures.json")
    waiting = socket.create_connection((api.address.host, api.address.port), 20)
    api.close()
    assert {thread.name for thread in threading.enumerate()} <= before
    with waiting, contextlib.suppress(ConnectionResetError):  # it was not even accepted
        assert waiting.recv(10) == b""
    again = serve(str(api.address))
    assert get(again, "/v2/health/live").status_code == 200


def test_health_answers_while_frames_are_waited_for(serve: Serve, bench: Bench) -> None:
    api = serve()  # the source is not started: no frame ever comes
    answers: list[int] = []
    lookers = [
        threading.Thread(
            target=lambda: answers.append(get(api, f"/frames/{MODEL}.jpg").status_code)
        )
        for _ in range(6)
    ]
    for looker in lookers:
        looker.start()
    assert get(api, "/v2/health/ready").json() == {"ready": True}
    assert get(api, "/metrics").status_code == 200
    for looker in lookers:
        looker.join(30)
    assert answers == [503] * 6


def test_the_last_frame_is_a_picture_with_its_result(serve: Serve, bench: Bench) -> None:
    import cv2
    import numpy as np

    bench.start()
    api = serve()
    answer = get(api, f"/frames/{MODEL}.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-edgeml-frame"].startswith("belt frame ")
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (48, 64, 3)
    watched = bench.workers.watch(MODEL, 5.0)
    assert isinstance(watched, Watched)


def test_frames_are_pushed_to_a_source(serve: Serve) -> None:
    import cv2
    import numpy as np

    class Pushed:
        def __init__(self) -> None:
            self.images: list[np.ndarray] = []

        def push(self, image: np.ndarray, captured_at: float | None = None) -> str:
            self.images.append(image)
            return "accepted"

    source = Pushed()
    api = serve(push={"door": source}.get)
    picture = np.full((6, 8, 3), 200, np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    answer = httpx.post(f"http://{api.address}/sources/door/frames", content=data)
    assert (answer.status_code, answer.json()) == (202, {"frame": "accepted"})
    assert np.array_equal(source.images[0], picture)
    broken = httpx.post(f"http://{api.address}/sources/door/frames", content=b"no picture")
    assert broken.status_code == 400
    missing = httpx.post(f"http://{api.address}/sources/gate/frames", content=data)
    assert missing.status_code == 404


def test_a_program_gives_metrics_that_go_up_with_the_models_telemetry(
    serve: Serve, bench: Bench
) -> None:
    api = serve()

    def give(body: bytes, model: str = MODEL) -> httpx.Response:
        return httpx.post(f"http://{api.address}/models/{model}/metrics", content=body)

    answer = give(b'{"reject_share": 0.02, "glare": [0.1, 0.4]}')
    assert (answer.status_code, answer.json()) == (202, {"taken": 3})
    bench.workers.report(20.0)
    [window] = [window for window in bench.windows if window.metrics]
    assert (window.model, window.release) == (MODEL, bench.loaded.desired.release)
    assert window.metrics["reject_share"] == Measure(n=1, sum=0.02, min=0.02, max=0.02)
    assert (window.metrics["glare"].n, window.metrics["glare"].max) == (2, 0.4)
    assert give(b"{}", model="no-such").status_code == 404
    for body, why in (
        (b"[1]", "cannot be read"),
        (b'{"x": "1"}', "cannot be read"),
        (b'{"x": 1e999}', ""),
        (b'{"X y": 1}', "cannot be named"),
        (b'{"error_rate": 0}', "measures error_rate by itself"),
        (json.dumps({"x": [0.0] * 1001}).encode(), "more than 1000 values"),
        (json.dumps({f"x{n}": 1 for n in range(64)}).encode(), "no more than 63 metrics"),
    ):
        refused = give(body)
        assert refused.status_code == 400
        assert why in refused.json()["error"]


def test_an_inference_is_bounded_where_the_model_leaves_it_open(serve: Serve) -> None:
    url = f"http://{serve().address}/v2/models/toy/infer"

    def asked(batch: int) -> httpx.Response:
        image = {"name": "image", "datatype": "FP32", "shape": [batch, 1, 4, 4]}
        return httpx.post(url, json={"inputs": [image | {"data": [0.5] * (16 * batch)}]})

    assert asked(64).status_code == 200
    refused = asked(65)
    assert refused.status_code == 400
    assert "Its first axis is 65, allowed are 64" in refused.json()["error"]
    long = httpx.post(url, content=b'{"inputs":[' + b"[]," * (3 << 20))
    assert long.status_code == 400
    assert "JSON is too long" in long.json()["error"]


def test_bodies_that_wait_are_bounded_together(serve: Serve) -> None:
    api = serve(limits=Limits(body_bytes=1000, bodies_bytes=1500, request_s=60.0))
    url = f"http://{api.address}/v2/models/toy/infer"
    head = b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((api.address.host, api.address.port), 20) as half:
        half.sendall(head + b"x" * 999)
        deadline = time.monotonic() + 20
        while (answer := httpx.post(url, content=b"x" * 900)).status_code != 503:
            assert time.monotonic() < deadline
        assert answer.headers["retry-after"] == "1"
        assert "Ask again later" in answer.text
        assert httpx.post(url, content=b"x" * 400).status_code == 400  # read, and no request
    while (answer := httpx.post(url, content=b"x" * 900)).status_code != 400:
        assert time.monotonic() < deadline
    for _ in range(3):  # what was answered is not held
        assert httpx.post(url, content=b"x" * 900).status_code == 400


def test_a_picture_that_would_not_fit_into_memory_is_refused(serve: Serve) -> None:
    class Source:
        def push(self, image: object, captured_at: float | None = None) -> str:
            return "accepted"

    api = serve(push={"door": Source()}.get)
    answer = httpx.post(f"http://{api.address}/sources/door/frames", content=png_bomb(20_000))
    assert answer.status_code == 400
    assert "20000 x 20000 pixels" in answer.json()["error"]


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("unix:{folder}/none/api.sock", "is not there. Make the folder"),
        ("unix:{folder}/file/api.sock", "is no folder"),
        ("192.0.2.1:8093", "This machine has no such address"),
    ],
)
def test_why_it_cannot_listen_is_said_with_what_helps(
    listen: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as refused:
        take(parse_address(listen.format(folder=tmp_path)))
    assert said in str(refused.value)
    assert "--api" in str(refused.value)
