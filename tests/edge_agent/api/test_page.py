"""The live page in a real browser: what it shows, that it asks nobody else, and keeps a token."""

import datetime as dt
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import Browser, expect, sync_playwright

from edge_agent.api.server import LocalApi
from edgeml.errors import TrustError
from tests import needs
from tests.edge_agent.api.conftest import MODEL, Bench

TOKEN = "0123456789abcdef0123456789abcdef"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
Serve = Callable[..., LocalApi]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = needs.program("chromium", "chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, key_file


def test_the_page_shows_frames_and_figures_and_asks_nobody_else(
    serve: Serve, bench: Bench, browser: Browser, tmp_path: Path
) -> None:
    bench.start()
    api = serve()
    faults: list[str] = []
    hosts: set[str] = set()
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(f"http://{api.address}/")
    expect(page.get_by_role("heading", name="cam-1")).to_be_visible()
    expect(page.get_by_role("heading", name=MODEL)).to_contain_text("1.2.0")
    image = page.get_by_alt_text(f"The last frame of {MODEL} with its result")
    expect(image).to_have_js_property("naturalWidth", 64)
    expect(page.locator("figcaption")).to_contain_text("belt frame")
    bench.workers.report(5.0)
    expect(page.get_by_role("cell", name="inference")).to_be_visible()
    expect(page.get_by_role("cell", name="belt", exact=True)).to_be_visible()
    if shot := os.environ.get("EDGEML_SCREENSHOTS"):
        page.screenshot(path=Path(shot) / "agent-page.png")
    bench.workers.retire(MODEL)
    expect(page.get_by_role("status")).to_have_text("no model runs")
    expect(page.locator("article")).to_have_count(0)
    page.close()
    assert hosts - {""} == {str(api.address)}
    assert [f for f in faults if "status of 404" not in f and "status of 503" not in f] == []


def test_a_script_from_elsewhere_does_not_run(serve: Serve, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"http://{serve().address}/")
    added = page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.bad = 1';"
        " document.body.append(s); return window.bad === undefined; }"
    )
    page.close()
    assert added


def test_beyond_loopback_speaks_tls_and_asks_for_the_token(
    serve: Serve, bench: Bench, certificate: tuple[Path, Path], tmp_path: Path, browser: Browser
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    pem, key = certificate
    api = serve("0.0.0.0:0", token_file=str(token_file), certificate=str(pem), key=str(key))
    url = f"https://localhost:{api.address.port}"
    trusted = ssl.create_default_context(cafile=str(pem))
    with httpx.Client(base_url=url, verify=trusted, timeout=20) as client:
        refused = client.get("/v2/health/live")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v2/health/live", headers=bearer).json() == {"live": True}
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{api.address.port}/", timeout=5)
    bench.start()
    context = browser.new_context(
        ignore_https_errors=True, http_credentials={"username": "me", "password": TOKEN}
    )
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_role("img")).to_have_js_property("naturalWidth", 64)
    context.close()


def test_a_certificate_that_is_none_is_refused(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    with pytest.raises(TrustError, match="--api-certificate"):
        serve(certificate=str(tmp_path / "x.pem"), key=str(tmp_path / "x.pem"))
