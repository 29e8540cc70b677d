"""What somebody gets at who tries: secrets, other people's devices, pages and sessions."""

import json

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect

from tests.fleet.console.conftest import Console, live

SECRET = "hunter2"


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console) -> None:
    served.seed("site")
    served.seed("fill", "30")
    served.seed("camera", "press-1", SECRET)
    served.seed("block", "2.1.0", "cam-00001-burned")


def sent(page: Page) -> list[str]:
    """All that the fleet sends to a page from now on, in answers and over its socket."""
    found: list[str] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: found.append(str(frame)))

    def keep(html: str) -> None:
        found.append(html)

    page.on("websocket", listen)
    page.on("load", lambda loaded: keep(loaded.content()))
    return found


def test_a_viewer_is_sent_no_password_of_a_camera(console: Console, browser: Browser) -> None:
    with console.visit(browser, "viewer") as page:
        found = sent(page)
        for tab in ("twin", "configuration", "history", "commands"):
            console.open(page, f"/devices/press-1?tab={tab}")
            if tab in {"twin", "configuration"}:
                expect(page.locator("#main")).to_contain_text("rtsp://***@10.0.0.7/stream1")
        console.open(page, "/audit?subject=press-1")
        expect(page.locator("#main")).to_contain_text("the camera is rtsp://***@10.0.0.7/stream1")
        page.get_by_text("the camera is").first.click()
        expect(page.get_by_role("dialog")).to_contain_text("rtsp://***@10.0.0.7/stream1")
        assert len(found) > 5
        assert SECRET not in "".join(found)


def test_an_operator_reads_it_where_it_was_set(console: Console, browser: Browser) -> None:
    with console.visit(browser, "operator") as page:
        console.open(page, "/devices/press-1?tab=configuration")
        expect(page.locator("#main")).to_contain_text(SECRET)


def test_who_was_demoted_changes_nothing_from_a_page_that_is_open(
    console: Console, page: Page, browser: Browser
) -> None:
    with console.visit(browser, link=console.link_of("dora", "operator")) as hers:
        console.open(hers, "/devices/press-2")
        hers.get_by_role("button", name="Revoke").click()
        sure = hers.get_by_role("alertdialog")
        sure.get_by_label("Type press-2 to confirm").fill("press-2")
        sure.get_by_label("Reason, for the audit log").fill("a trial")
        expect(sure.get_by_role("button", name="Revoke")).to_be_enabled()
        console.seed("demote", "dora")
        hers.evaluate("document.querySelector('[role=alertdialog] .danger').click()")
        # What she is shown now is a viewer's page, or that the session has ended.
        ended = hers.get_by_role("alert").filter(has_text="Your session has ended")
        expect(ended.or_(hers.locator("body:not(:has(.button.bad))")).first).to_be_attached()
    console.open(page, "/devices/press-2")
    expect(page.locator("main .chip").first).not_to_have_text("revoked")
    assert page.get_by_role("button", name="Revoke").count() == 1


def test_a_session_that_is_over_shows_and_changes_nothing_more(
    console: Console, browser: Browser
) -> None:
    with console.visit(browser, link=console.link_of("erin", "operator")) as page:
        console.open(page, "/devices/press-1")
        console.seed("expire", "erin")
        expect(page.get_by_role("alert").filter(has_text="Your session has ended")).to_be_visible()
        page.get_by_role("link", name="Log in again").click()
        page.get_by_label("User").fill("erin")
        page.get_by_label("Password").fill("a long enough one")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/console/devices/press-1")
        live(page)
        expect(page.get_by_role("button", name="Restart")).to_be_visible()


def test_a_row_of_another_site_cannot_be_ticked_by_its_name(
    console: Console, page: Page, browser: Browser
) -> None:
    with console.visit(browser, "operator", "site=north") as his:
        console.open(his, "/devices?name=cam-0000")
        tick = his.locator("tbody input[data-tick]").first
        tick.evaluate("(box) => { box.dataset.tick = 'cam-00001'; }")
        tick.check()
        his.get_by_role("button", name="Change labels").click()
        his.get_by_label("Labels", exact=True).fill("taken=yes")
        his.get_by_role("button", name="Go on").click()
        his.get_by_role("alertdialog").get_by_role("button", name="Change labels").click()
        refusal = his.get_by_role("alert").filter(has_text="There is no device 'cam-00001'")
        expect(refusal).to_be_visible()
    console.open(page, "/devices/cam-00001")
    expect(page.get_by_text("site=south")).to_be_visible()
    assert page.get_by_text("taken=yes").count() == 0


def test_who_sees_one_site_reads_nothing_of_another(console: Console, browser: Browser) -> None:
    with console.visit(browser, link=console.link_of("sara", "viewer", "site=south")) as page:
        found = sent(page)
        for path in ("/", "/devices", "/models", "/models/digits", "/rollouts", "/audit",
                     "/releases/digits/2.1.0", "/users", "/settings"):  # fmt: skip
            console.open(page, path)
            expect(page.locator("#main")).not_to_be_empty()
        said = "".join(found)
        assert "cam-00001" in said
        for other in ("cam-00000", "press-1", "cam-00001-burned"):
            around = said.partition(other)[0][-300:] if other in said else ""
            assert not around, other


EMIT = """([page, element, listener]) => window.socket.emit("event", {
  client_id: page, id: element, listener_id: listener, args: []})"""
LISTENER = """(button) => {
  const id = Number(button.id.slice(1));
  return [window.clientId, id, mounted_app.elements[id].events[0].listener_id];
}"""


def test_a_page_hears_no_socket_but_its_own(console: Console, page: Page, browser: Browser) -> None:
    console.open(page, "/devices/press-1")
    button = page.get_by_role("button", name="Restart")
    place = button.evaluate(LISTENER)
    asked = page.get_by_role("alertdialog")
    with console.visit(browser, "viewer") as other:
        console.open(other, "/users")
        other.evaluate(EMIT, place)
        theme = other.get_by_role("button", name="Theme: as the system")
        theme.click()  # the fleet has heard all that this socket said before
        expect(other.get_by_role("button", name="Theme: dark")).to_be_visible()
        assert asked.count() == 0
        own = [other.evaluate("window.clientId"), *place[1:]]
        assert own[0] != place[0]
    page.evaluate(EMIT, place)
    expect(asked).to_be_visible()


def test_a_browser_that_became_somebody_else_loads_its_pages_anew(
    console: Console, browser: Browser
) -> None:
    with console.visit(browser, link=console.link_of("nora", "admin")) as page:
        console.open(page, "/devices/press-1")
        expect(page.get_by_role("button", name="Restart")).to_be_visible()
        answer = page.context.request.get(
            console.link_of("otis", "viewer"), max_redirects=0,
            headers={"Cookie": ""},
        )  # fmt: skip
        assert answer.status == 303
        page.evaluate("window.socket.disconnect(), window.socket.connect()")
        expect(page.get_by_role("link", name="otis")).to_be_visible()
        assert page.get_by_role("button", name="Restart").count() == 0


def test_a_scripted_label_stays_text(console: Console, page: Page) -> None:
    console.open(page, "/devices?name=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E")
    expect(page.get_by_text("No device is like that.")).to_be_visible()
    assert page.evaluate("document.querySelectorAll('main img').length") == 0
    assert json.dumps(console.faults) == "[]"
