"""What a database cannot hold is the caller's fault, on both of them, and told as such."""

from typing import Any

import httpx
import pytest


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/login", {"user": "a\0", "password": "guess"}),
        ("GET", "/api/v1/devices/%00", None),
        ("GET", "/api/v1/audit?who=%00", None),
        ("GET", "/api/v1/rollouts?model=%00", None),
    ],
)
def test_nul_is_no_fault_of_the_fleet(
    http: httpx.Client, method: str, path: str, body: Any
) -> None:
    assert http.request(method, path, json=body).status_code in {200, 401, 404, 422}


def test_a_stranger_makes_no_fault(fleet: Any) -> None:
    form = {"user": "\0", "password": "guess"}
    headers = {"Origin": fleet.operators}
    answer = httpx.post(f"{fleet.operators}/login", data=form, headers=headers, timeout=60.0)
    assert answer.status_code in {401, 422}
