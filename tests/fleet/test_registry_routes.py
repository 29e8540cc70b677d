from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud_sync.release import Blobs, Layout, digest_of, oci
from cloud_sync.transfer import OciClient
from edgeml.errors import EdgemlError, ReleaseError, RemoteError
from fleet.client import BearerAuth, FleetClient

Make = Callable[..., Any]


def test_what_was_pushed_is_what_a_device_pulls(
    fleet: Any, make_device: Make, release_folder: Path, tmp_path: Path
) -> None:
    pushed = fleet.client.push(release_folder)
    device = make_device()
    registry = OciClient(device.base_url, device.client().auth)
    release = registry.release("digits", pushed["digest"])
    assert release == Layout.open(release_folder).release()
    blobs = Blobs(tmp_path / "pulled")
    for variant in release.variants:
        for file in variant.files:
            assert registry.fetch_blob("digits", file.digest, file.size, blobs) >= 0
            blobs.verify(file.digest)
    registry.close()


def test_a_blob_comes_in_parts_with_its_digest_as_the_tag(
    fleet: Any, http: httpx.Client, release_folder: Path
) -> None:
    fleet.client.push(release_folder)
    file = Layout.open(release_folder).release().variants[0].file("model")
    url = f"/v2/digits/blobs/{file.digest}"
    whole = http.get(url)
    assert whole.headers["etag"] == f'"{file.digest}"'
    assert digest_of(whole.content) == file.digest
    headers = {"Range": "bytes=3-", "If-Range": f'"{file.digest}"'}
    rest = http.get(url, headers=headers)
    assert (rest.status_code, rest.content) == (206, whole.content[3:])
    assert rest.headers["content-range"] == f"bytes 3-{file.size - 1}/{file.size}"
    other = http.get(url, headers={"Range": "bytes=3-", "If-Range": '"sha256:other"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert http.get(url, headers={"Range": f"bytes={file.size}-"}).status_code == 416
    head = http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(file.size)


def test_a_download_goes_on_where_it_stopped(
    fleet: Any, make_device: Make, release_folder: Path, tmp_path: Path
) -> None:
    fleet.client.push(release_folder)
    file = Layout.open(release_folder).release().variants[0].file("model")
    device, blobs = make_device(), Blobs(tmp_path / "pulled")
    part = blobs.path(file.digest).with_name(f".{file.digest.removeprefix('sha256:')}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(Layout.open(release_folder).blobs.path(file.digest).read_bytes()[:4])
    registry = OciClient(device.base_url, device.client().auth)
    assert registry.fetch_blob("digits", file.digest, file.size, blobs) == file.size - 4
    registry.close()


def test_a_push_under_a_wrong_digest_is_refused(http: httpx.Client) -> None:
    begun = http.post("/v2/digits/blobs/uploads/")
    wrong = digest_of(b"what was promised")
    done = http.put(begun.headers["location"], params={"digest": wrong}, content=b"what came")
    assert done.status_code == 400
    assert done.headers["content-type"] == "application/problem+json"
    assert done.json()["errors"][0]["code"] == "BLOB_UPLOAD_INVALID"
    assert http.head(f"/v2/digits/blobs/{wrong}").status_code == 404


def test_a_blob_may_be_pushed_in_chunks(http: httpx.Client) -> None:
    data = b"first,second"
    where = http.post("/v2/digits/blobs/uploads/").headers["location"]
    first = http.patch(where, content=b"first,", headers={"Content-Range": "0-5"})
    assert (first.status_code, first.headers["range"]) == (202, "0-5")
    assert http.get(where).headers["range"] == "0-5"
    again = http.patch(where, content=b"first,", headers={"Content-Range": "0-5"})
    assert again.status_code == 416
    done = http.put(where, params={"digest": digest_of(data)}, content=b"second")
    assert done.status_code == 201
    assert http.get(done.headers["location"]).content == data


def test_a_blob_may_be_pushed_in_one_request_and_a_push_be_cancelled(http: httpx.Client) -> None:
    done = http.post("/v2/digits/blobs/uploads/", params={"digest": digest_of(b"x")}, content=b"x")
    assert done.status_code == 201
    where = http.post("/v2/digits/blobs/uploads/").headers["location"]
    assert http.delete(where).status_code == 204
    assert http.get(where).status_code == 400


def test_what_is_not_there_is_404_and_what_is_no_digest_400(http: httpx.Client) -> None:
    missing = "sha256:" + "0" * 64
    assert http.get("/v2/").status_code == 200
    assert http.get(f"/v2/digits/manifests/{missing}").status_code == 404
    assert http.get(f"/v2/digits/blobs/{missing}").status_code == 404
    assert http.get("/v2/digits/blobs/sha256:short").status_code == 400
    assert http.get("/v2/DIGITS/manifests/1.0.0").status_code == 400


def test_a_manifest_that_is_too_long_is_refused(http: httpx.Client) -> None:
    answer = http.put(
        "/v2/digits/manifests/1.0.0",
        content=b" " * (oci.MAX_DOCUMENT_BYTES + 1),
        headers={"Content-Type": oci.MANIFEST},
    )
    assert answer.status_code == 413


def test_evidence_is_found_by_what_it_is_about(
    fleet: Any, http: httpx.Client, release_folder: Path
) -> None:
    digest = fleet.client.push(release_folder)["digest"]
    found = http.get(f"/v2/digits/referrers/{digest}").json()
    assert [entry["artifactType"] for entry in found["manifests"]] == [oci.EVIDENCE_ARTIFACT]


def test_a_device_may_pull_and_not_push(make_device: Make, release_folder: Path) -> None:
    device = make_device()
    layout = Layout.open(release_folder)
    registry = OciClient(device.base_url, device.client().auth)
    with pytest.raises(RemoteError, match=r"40[45]"):
        registry.push(layout, layout.release())
    registry.close()


def test_nobody_pulls_without_a_token(fleet: Any, release_folder: Path) -> None:
    digest = fleet.client.push(release_folder)["digest"]
    for base in (fleet.devices, fleet.operators):
        answer = httpx.get(f"{base}/v2/digits/manifests/{digest}")
        assert answer.status_code == 401
        assert "WWW-Authenticate" in answer.headers


def test_a_swapped_blob_is_noticed_by_who_pulls_it(
    fleet: Any, make_device: Make, release_folder: Path, tmp_path: Path
) -> None:
    fleet.client.push(release_folder)
    file = Layout.open(release_folder).release().variants[0].file("model")
    path = fleet.services.registry.blobs.path(file.digest)
    path.write_bytes(bytes(path.stat().st_size))
    device = make_device()
    registry = OciClient(device.base_url, device.client().auth)
    with pytest.raises(ReleaseError, match="not what its release says"):
        registry.fetch_blob("digits", file.digest, file.size, Blobs(tmp_path / "pulled"))
    registry.close()


def test_the_operators_token_is_sent_to_the_fleet_alone(fleet: Any) -> None:
    auth = BearerAuth(fleet.operators, "secret")
    with httpx.Client(auth=auth) as client:
        own = client.build_request("GET", f"{fleet.operators}/v2/")
        other = client.build_request("GET", "http://127.0.0.1:9/v2/")
        assert "Authorization" in next(auth.auth_flow(own)).headers
        assert "Authorization" not in next(auth.auth_flow(other)).headers


def test_a_damaged_release_folder_is_not_pushed(fleet: Any, release_folder: Path) -> None:
    layout = Layout.open(release_folder)
    file = layout.release().variants[0].file("model")
    layout.blobs.path(file.digest).write_bytes(b"damaged")
    client: FleetClient = fleet.client
    with pytest.raises(EdgemlError, match="damaged"):
        client.push(release_folder)
    assert client.releases() == []
