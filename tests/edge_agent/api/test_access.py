"""Who may come in, and where the API may listen at all."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.api.guard import refusal
from edge_agent.api.options import ApiOptions, check, parse_address
from edgeml.errors import TrustError, UserError

TOKEN = "0123456789abcdef0123"
NAMES = frozenset({"localhost", "cam-1"})


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("127.0.0.1:8093", "127.0.0.1", 8093, ""),
        ("localhost:0", "localhost", 0, ""),
        ("[::1]:80", "::1", 80, ""),
        ("unix:/run/edgeml/api.sock", "", 0, "/run/edgeml/api.sock"),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int, path: str) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.path) == (host, port, path)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "8093", "127.0.0.1", ":8093", "a:b", "1.2.3.4:99999", "u@h:1", "h:1/x", "unix:x", "unix:"],
)
def test_what_is_no_address_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UserError, match=r"Write 127\.0\.0\.1:8093"):
        parse_address(text)


def test_loopback_and_unix_sockets_need_nothing_more() -> None:
    for listen in ("127.0.0.1:0", "[::1]:0", "localhost:1", "unix:/tmp/x"):
        assert check(ApiOptions(listen=listen)).token == ""


def test_beyond_loopback_needs_a_certificate_and_a_token(token_file: Path) -> None:
    lacking = [
        (ApiOptions(listen="0.0.0.0:8093"), "no certificate and no token"),
        (ApiOptions(listen="0.0.0.0:8093", token_file=str(token_file)), "no certificate"),
        (ApiOptions(listen="[::]:8093", certificate="c", key="k"), "no token"),
        (ApiOptions(listen="cam-1.local:8093"), "no certificate and no token"),
    ]
    for options, why in lacking:
        with pytest.raises(UserError, match=why):
            check(options)
    whole = ApiOptions(listen="0.0.0.0:8093", token_file=str(token_file), certificate="c", key="k")
    assert check(whole).token == TOKEN


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(UserError, match="belong together"):
        check(ApiOptions(listen="127.0.0.1:0", certificate="c"))


def test_a_token_that_others_can_read_or_guess_is_refused(token_file: Path, tmp_path: Path) -> None:
    options = ApiOptions(listen="127.0.0.1:0", token_file=str(token_file))
    token_file.chmod(0o640)
    with pytest.raises(TrustError, match="chmod 600"):
        check(options)
    token_file.chmod(0o600)
    token_file.write_text("short")
    with pytest.raises(TrustError, match="fewer than 16"):
        check(options)
    with pytest.raises(TrustError, match="openssl rand"):
        check(ApiOptions(listen="127.0.0.1:0", token_file=str(tmp_path / "none")))


def allowed(method: str = "GET", path: str = "/metrics", token: str = "", **headers: str) -> int:
    named = {"host": "127.0.0.1:8093"} | {k.replace("_", "-"): v for k, v in headers.items()}
    said = refusal(method, path, named, names=NAMES, token=token)
    return said[0] if said else 200


def test_only_this_machines_names_and_addresses_are_asked_for() -> None:
    for host in (
        "127.0.0.1:8093",
        "[::1]:8093",
        "localhost",
        "LOCALHOST:1",
        "cam-1:80",
        "10.0.0.9",
    ):
        assert allowed(host=host) == 200, host
    for host in ("", "evil.example", "evil.example:8093", "localhost.evil.example", "[::1", "@"):
        assert allowed(host=host) == 421, host


def test_on_a_unix_socket_the_host_does_not_matter() -> None:
    assert refusal("GET", "/", {"host": "anything"}, names=None) is None


def test_another_sites_page_is_kept_out() -> None:
    assert allowed("POST", origin="https://evil.example") == 403
    assert allowed("POST", origin="null") == 403
    assert allowed("POST", origin="http://127.0.0.1:9999") == 403
    assert allowed("POST", origin="http://127.0.0.1:8093") == 200
    assert allowed(path="/frames/toy.jpg", sec_fetch_site="cross-site") == 403
    assert allowed(path="/frames/toy.jpg", sec_fetch_site="same-site") == 403
    assert allowed(path="/frames/toy.jpg", sec_fetch_site="same-origin") == 200
    assert allowed(path="/", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert allowed(path="/frames/a", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 403


def test_a_token_is_asked_for_and_compared() -> None:
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    assert allowed(token=TOKEN) == 401
    assert allowed(token=TOKEN, authorization=f"Bearer {TOKEN}") == 200
    assert allowed(token=TOKEN, authorization=f"Basic {basic}") == 200
    assert allowed(token=TOKEN, authorization=f"Bearer {TOKEN[:-1]}") == 401
    assert allowed(token=TOKEN, authorization=f"Digest {TOKEN}") == 401
    assert allowed(token=TOKEN, authorization="Basic !!!") == 401


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_header_is_too_strange(host: str, origin: str, authorization: str) -> None:
    headers = {"host": host, "origin": origin, "authorization": authorization}
    said = refusal("GET", "/", headers, names=NAMES, token=TOKEN)
    assert said is not None
    assert said[0] in {401, 403, 421}
