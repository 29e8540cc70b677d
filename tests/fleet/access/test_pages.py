import pytest

from fleet.access.pages import back_to, login


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("/console/devices?selector=site%3Dnorth", "/console/devices?selector=site%3Dnorth"),
        ("/console/", "/console/"),
        ("", "/"),
        ("//evil.example/console/", "/"),
        ("https://evil.example/console/", "/"),
        ("/console/\r\nSet-Cookie: a=b", "/"),
        ("/console/\\evil", "/"),
        ('/console/"><script>', "/"),
        ("/logout", "/"),
    ],
)
def test_a_login_leads_to_pages_of_the_console_alone(asked: str, leads_to: str) -> None:
    assert back_to(asked) == leads_to
    page = bytes(login(back=asked).body).decode()
    assert ('name="next"' in page) == (leads_to != "/")
