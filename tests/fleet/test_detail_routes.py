"""What the console's pages show can be found through the API, and changed only by who may."""

import httpx
import pytest

from fleet.services import devices, trust
from tests.fleet.conftest import Listening
from tests.fleet.console.seeds_devices import REASON, site


@pytest.fixture
def http_of_site(fleet: Listening, http: httpx.Client) -> httpx.Client:
    trust.begin(fleet.services, fresh=True)
    site(fleet.services)
    return http


def test_details_of_devices_and_releases(http_of_site: httpx.Client) -> None:
    def get(path: str, **query: str | int) -> httpx.Response:
        return http_of_site.get(f"/api/v1{path}", params=query)

    assert get("/device-count").json() == {"count": 2}
    assert get("/device-count", phase="rolled_back").json() == {"count": 1}
    assert get("/device-count", state="asleep").status_code == 422

    first = get("/devices/press-1/history", limit=1).json()
    assert (first["items"][0]["phase"], first["items"][0]["reason"]) == ("rolled_back", REASON)
    rest = get("/devices/press-1/history", after=first["next"]).json()["items"]
    assert [entry["phase"] for entry in rest] == [
        "trial", "downloading", "committed", "testing", "downloading",
    ]  # fmt: skip
    assert get("/devices/nobody/history").status_code == 404

    signature = get("/releases/digits/2.1.0/signature").json()
    assert (signature["state"], signature["role"], len(signature["signed"])) == (
        "signed", "targets", 1,
    )  # fmt: skip
    assert get("/releases/digits/9.9.9/signature").status_code == 404
    made = [get(f"/releases/digits/{v}/inputs").json()["inputs"] for v in ("2.0.0", "2.1.0")]
    assert made[0]["model"] != made[1]["model"]
    assert made[0]["calibration"] == made[1]["calibration"]


def test_a_report_is_given_as_a_file_that_a_browser_does_not_run(
    http_of_site: httpx.Client,
) -> None:
    answer = http_of_site.get("/api/v1/releases/digits/2.1.0/report")
    assert "int8 loses 0.2 points" in answer.text
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_labels_of_several_devices_are_changed_at_once(
    fleet: Listening, http_of_site: httpx.Client
) -> None:
    body = {"devices": ["press-1", "press-2"], "put": {"line": "4"}, "drop": ["site"]}
    answer = http_of_site.post("/api/v1/device-labels", json=body)
    assert answer.json() == {"changed": 2}
    for name in body["devices"]:
        assert devices.labels(fleet.services, name) == {"line": "4"}
