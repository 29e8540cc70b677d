import asyncio
import gzip

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Scope

from fleet.console.compression import Compression

TEXT = "a script " * 1000


class Site:
    """Counts what is asked of it; behind compression, below `/console`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        app = Starlette(routes=[Route("/{path:path}", self._answer)])
        self.served = Compression(app, ("/fixed/",))

    async def _answer(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        is_there = "nowhere" not in request.url.path
        return PlainTextResponse(TEXT, 200 if is_there else 404)

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent: list[Message] = []
        given = {"accept_encoding": "gzip", **headers}
        scope: Scope = {
            "type": "http", "method": "GET", "path": f"/console{path}", "root_path": "/console",
            "query_string": b"", "scheme": "http", "server": ("fleet", 80), "app": None,
            "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in given.items()],
        }  # fmt: skip

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if "headers" in message:
                message["headers"].append((b"seen-by", str(len(sent)).encode()))
            sent.append(message)

        asyncio.run(self.served(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        assert [name for name, _ in sent[0]["headers"]].count(b"seen-by") == 1
        return sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent)


@pytest.fixture
def site() -> Site:
    return Site()


def test_what_never_changes_is_compressed_once_and_kept_by_browsers(site: Site) -> None:
    for _ in range(3):
        status, headers, body = site.get("/fixed/vue.js")
        assert (status, gzip.decompress(body).decode()) == (200, TEXT)
        assert headers["content-encoding"] == "gzip"
        assert "immutable" in headers["cache-control"]
    assert len(site.asked) == 1


def test_a_page_is_made_anew_each_time(site: Site) -> None:
    for _ in range(2):
        _, headers, body = site.get("/devices")
        assert gzip.decompress(body).decode() == TEXT
        assert "cache-control" not in headers
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/fixed/vue.js", {"range": "bytes=0-9"}),
        ("/fixed/vue.js", {"if_none_match": '"x"'}),
        ("/fixed/vue.js", {"accept_encoding": "identity"}),
        ("/fixed/nowhere.js", {}),
    ],
)
def test_what_is_no_whole_compressed_file_is_not_kept(
    site: Site, path: str, headers: dict[str, str]
) -> None:
    for _ in range(2):
        site.get(path, **headers)
    assert len(site.asked) == 2
