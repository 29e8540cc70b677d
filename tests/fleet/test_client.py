import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import EdgemlError, ReleaseError, RemoteError, TrustError, UserError
from fleet.client import FleetClient, error_of


def test_a_fleet_that_is_not_there_is_one_sentence() -> None:
    client = FleetClient("http://127.0.0.1:9", "token")
    with pytest.raises(RemoteError, match="edgeml fleet up"):
        client.health()
    client.close()


@pytest.mark.parametrize("url", ["ftp://x", "http://[", "nonsense", ""])
def test_an_address_that_is_none_is_one_sentence(url: str) -> None:
    with pytest.raises((UserError, RemoteError)):
        FleetClient(url, "token").health()


def test_the_fleets_error_comes_back_as_the_same_class() -> None:
    body = {"what": "It is bad.", "why": "So.", "fix": "Mend it.", "kind": "ReleaseError"}
    response = httpx.Response(400, json={"title": "x", "detail": "y", **body})
    error = error_of(response)
    assert isinstance(error, ReleaseError)
    assert (error.what, error.why, error.fix) == ("It is bad.", "So.", "Mend it.")


def test_a_wrong_token_is_a_matter_of_trust() -> None:
    error = error_of(httpx.Response(401, json={"title": "x", "detail": "y"}))
    assert isinstance(error, TrustError)


@given(
    st.integers(400, 599),
    st.binary(max_size=60)
    | st.sampled_from(["ExitCode", "EdgemlError", "IntEnum", "exit_code_of", ""]).map(
        lambda kind: b'{"title":"t","detail":"d","kind":"%b"}' % kind.encode()
    ),
)
def test_any_answer_becomes_an_error_of_ours(status: int, body: bytes) -> None:
    assert isinstance(error_of(httpx.Response(status, content=body)), EdgemlError)
