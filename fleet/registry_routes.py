"""The OCI distribution routes over the folder registry: pull for devices, push for operators.

Source: OCI distribution specification 1.1. Large blobs and parts of any are sent by Starlette's
`FileResponse`, which knows Range and If-Range; the digest is the entity tag.
"""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from cloud_sync.release import oci
from edgeml.errors import EdgemlError, ReleaseError, UserError
from fleet.pieces import MAX_BLOB_BYTES, Pieces, Whole
from fleet.problem import of_error, problem
from fleet.registry import Registry, StoredManifest


class _Blob(FileResponse):
    """A file in larger pieces: each is a turn of a thread and of TLS."""

    chunk_size = 256 << 10


_Handler = Callable[[Request], Awaitable[Response]]
_RECENT_S = 2.0
_MOST_RECENT = 64  # of a MiB at most
_IMMUTABLE = "private, max-age=31536000, immutable"


class RegistryRoutes:
    """The routes of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._manifests: dict[tuple[str, str], tuple[float, StoredManifest]] = {}
        self._files: dict[str, tuple[float, Path, os.stat_result]] = {}
        self._pieces = Pieces()

    def pull(self) -> list[Route]:
        """What devices may use."""
        return [
            Route("/v2/", _coded(self._base, ""), methods=["GET"]),
            Route(
                "/v2/{model}/manifests/{reference}",
                _coded(self._get_manifest, "MANIFEST_INVALID"),
                methods=["GET", "HEAD"],
            ),
            Route(
                "/v2/{model}/blobs/{digest}",
                _coded(self._get_blob, "DIGEST_INVALID"),
                methods=["GET", "HEAD"],
            ),
            Route(
                "/v2/{model}/referrers/{digest}",
                _coded(self._referrers, "DIGEST_INVALID"),
                methods=["GET"],
            ),
        ]

    def push(self) -> list[Route]:
        """What only operators may use."""
        uploads = "/v2/{model}/blobs/uploads/"
        upload = uploads + "{upload}"
        invalid = "BLOB_UPLOAD_INVALID"
        return [
            Route(uploads, _coded(self._begin, invalid), methods=["POST"]),
            Route(upload, _coded(self._progress, invalid), methods=["GET"]),
            Route(upload, _coded(self._append, invalid), methods=["PATCH"]),
            Route(upload, _coded(self._finish, invalid), methods=["PUT"]),
            Route(upload, _coded(self._cancel, invalid), methods=["DELETE"]),
            Route(
                "/v2/{model}/manifests/{reference}",
                _coded(self._put_manifest, "MANIFEST_INVALID"),
                methods=["PUT"],
            ),
        ]

    async def _base(self, _request: Request) -> Response:
        return JSONResponse({}, headers={"Docker-Distribution-API-Version": "registry/2.0"})

    async def _get_manifest(self, request: Request) -> Response:
        model, reference = request.path_params["model"], request.path_params["reference"]
        found = self._recent(model, reference)
        if found is None:
            found = await run_in_threadpool(self._registry.manifest, model, reference)
            self._keep(model, reference, found)
        if found is None:
            return problem(404, "There is no such manifest.", reference, code="MANIFEST_UNKNOWN")
        headers = {
            "Docker-Content-Digest": found.digest,
            "ETag": f'"{found.digest}"',
            "Content-Length": str(len(found.data)),
        }
        body = b"" if request.method == "HEAD" else found.data
        return Response(body, media_type=found.media_type, headers=headers)

    async def _get_blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        known = self._files.get(digest)
        if known is None or time.monotonic() > known[0]:
            known = await run_in_threadpool(self._blob, digest)
        if known is None:
            return problem(404, "There is no such blob.", digest, code="BLOB_UNKNOWN")
        headers = {
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Cache-Control": _IMMUTABLE,
            "Accept-Ranges": "bytes",
        }
        _, path, stat = known
        whole = request.method == "GET" and "range" not in request.headers
        if whole and stat.st_size <= MAX_BLOB_BYTES:
            return Whole(self._pieces, path, digest, stat.st_size, headers)
        return _Blob(path, headers=headers, media_type="application/octet-stream", stat_result=stat)

    def _blob(self, digest: str) -> tuple[float, Path, os.stat_result] | None:
        """Where a blob is, remembered for a moment: in a rollout all devices ask for the same."""
        path = self._registry.blob(digest)
        if path is None:
            return None
        if len(self._files) >= _MOST_RECENT:
            self._files.clear()
        known = self._files[digest] = (time.monotonic() + _RECENT_S, path, path.stat())
        return known

    def _recent(self, model: str, reference: str) -> StoredManifest | None:
        found = self._manifests.get((model, reference))
        return found[1] if found and time.monotonic() < found[0] else None

    def _keep(self, model: str, reference: str, found: StoredManifest | None) -> None:
        """Remember for a moment what has a digest: in a rollout all devices ask for the same."""
        if found is not None and found.digest == reference:
            if len(self._manifests) >= _MOST_RECENT:
                self._manifests.clear()
            self._manifests[model, reference] = (time.monotonic() + _RECENT_S, found)

    async def _referrers(self, request: Request) -> Response:
        model, digest = request.path_params["model"], request.path_params["digest"]
        found = await run_in_threadpool(self._registry.referrers, model, digest)
        index = oci.Index(schema_version=2, manifests=tuple(found))
        return Response(oci.to_json(index), media_type=oci.INDEX)

    async def _begin(self, request: Request) -> Response:
        upload = await run_in_threadpool(self._registry.begin_upload)
        if "digest" in request.query_params:
            await self._receive(request, upload)
            return await self._taken(request, upload)
        return self._accepted(request, upload, 0)

    async def _progress(self, request: Request) -> Response:
        upload = request.path_params["upload"]
        size = await run_in_threadpool(self._registry.upload_size, upload)
        response = self._accepted(request, upload, size)
        response.status_code = 204
        return response

    async def _append(self, request: Request) -> Response:
        upload = request.path_params["upload"]
        have = await run_in_threadpool(self._registry.upload_size, upload)
        begin = request.headers.get("content-range", f"{have}-").partition("-")[0]
        if begin != str(have):
            return problem(
                416, "The chunk does not follow the last.", f"{have} bytes have come.",
                code="BLOB_UPLOAD_INVALID", headers={"Range": f"0-{max(0, have - 1)}"},
            )  # fmt: skip
        return self._accepted(request, upload, await self._receive(request, upload))

    async def _finish(self, request: Request) -> Response:
        upload = request.path_params["upload"]
        await self._receive(request, upload)
        return await self._taken(request, upload)

    async def _cancel(self, request: Request) -> Response:
        await run_in_threadpool(self._registry.cancel_upload, request.path_params["upload"])
        return Response(status_code=204)

    async def _put_manifest(self, request: Request) -> Response:
        model, reference = request.path_params["model"], request.path_params["reference"]
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > oci.MAX_DOCUMENT_BYTES:
                return problem(413, "The manifest is too large.", code="SIZE_INVALID")
        kind = request.headers.get("content-type", "").partition(";")[0]
        digest = await run_in_threadpool(
            self._registry.put_manifest, model, reference, kind, bytes(data)
        )
        location = f"/v2/{model}/manifests/{digest}"
        headers = {"Location": location, "Docker-Content-Digest": digest}
        return Response(status_code=201, headers=headers)

    async def _receive(self, request: Request, upload: str) -> int:
        size = await run_in_threadpool(self._registry.upload_size, upload)
        async for chunk in request.stream():
            if chunk:
                size = await run_in_threadpool(self._registry.append, upload, chunk)
        return size

    async def _taken(self, request: Request, upload: str) -> Response:
        digest = request.query_params.get("digest", "")
        await run_in_threadpool(self._registry.finish_upload, upload, digest)
        location = f"/v2/{request.path_params['model']}/blobs/{digest}"
        headers = {"Location": location, "Docker-Content-Digest": digest}
        return Response(status_code=201, headers=headers)

    def _accepted(self, request: Request, upload: str, size: int) -> Response:
        headers = {
            "Location": f"/v2/{request.path_params['model']}/blobs/uploads/{upload}",
            "Docker-Upload-UUID": upload,
            "Range": f"0-{max(0, size - 1)}",
        }
        return Response(status_code=202, headers=headers)


def _coded(handler: _Handler, code: str) -> _Handler:
    """Turn errors into responses that carry the code which OCI clients read."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            return of_error(error, "DENIED")
        except ReleaseError as error:
            return of_error(error, code)
        except EdgemlError as error:
            return of_error(error, "UNSUPPORTED")

    return endpoint
