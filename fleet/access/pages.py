"""The pages before the console: log in, change the password, log out. No script, no other host."""

import base64
import hashlib
import re
from html import escape

from starlette.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif;
  --page: #f3f5f8; --card: #fff; --line: #dce1e8; --ink: #18212b; --soft: #586575; --tint: #eef1f5;
  --bad: #b3261e; --bad-tint: #fbe7e5; --act: #1c5cb8; --link: #1c5cb8 }
@media (prefers-color-scheme: dark) { :root { --page: #10151b; --card: #191f27; --line: #2e3743;
  --ink: #e7ecf2; --soft: #9fabb9; --tint: #222a34; --bad: #ff8a80; --bad-tint: #3a1d1c;
  --link: #82b1ff } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem;
  background: var(--page); color: var(--ink) }
main { width: min(25rem, 100%); background: var(--card); border: 1px solid var(--line);
  border-radius: 14px; padding: 1.6rem 1.7rem }
.brand { font-size: 1.15rem; font-weight: 700; letter-spacing: -.02em; margin: 0 0 1.1rem }
.brand span { color: var(--soft); font-weight: 500 }
h1 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .5rem; letter-spacing: -.01em }
p { margin: .5rem 0; color: var(--soft) }
label { display: block; margin: .9rem 0 .25rem; font-size: .87rem; font-weight: 550 }
input { font: inherit; width: 100%; padding: .5rem .65rem; color: inherit; background: var(--page);
  border: 1px solid var(--line); border-radius: 8px }
button, a.button { font: inherit; font-weight: 600; display: block; width: 100%; margin-top: 1.2rem;
  padding: .55rem 1rem; border-radius: 8px; border: 1px solid var(--act); background: var(--act);
  color: #fff; text-align: center; text-decoration: none; cursor: pointer }
a.button { margin-top: .6rem; background: none; border-color: var(--line); color: var(--ink) }
a { color: var(--link) }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
code { font: .87rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--tint);
  border-radius: 5px; padding: .1rem .35rem }
.help { font-size: .87rem; margin-top: 1.2rem; border-top: 1px solid var(--line);
  padding-top: .9rem }
.wrong { color: var(--bad); background: var(--bad-tint); border-radius: 8px; padding: .5rem .8rem }
"""
# Pages of the console alone: no other host, no other scheme.
_BACK = re.compile(r"/console/[\w./~%?&=+,:@!*()-]{0,500}", re.ASCII)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    # With no-referrer a browser sends its own forms with the origin `null`.
    "Referrer-Policy": "same-origin",
}


def back_to(address: str) -> str:
    """Where a login leads to: the page of the console that was asked for, or its first one."""
    return address if _BACK.fullmatch(address) else "/"


def login(
    *, oidc: bool = False, wrong: str = "", status: int = 200, back: str = ""
) -> HTMLResponse:
    """The page that asks for a name and a password; `back` is where somebody wanted to go."""
    back = back_to(back)
    hidden = f'<input type="hidden" name="next" value="{escape(back)}">' if back != "/" else ""
    other = '<a class="button" href="/login/oidc">Log in with your organization</a>' if oidc else ""
    return _page(
        "Log in",
        f"""{_wrong(wrong) or "<p>You are not logged in.</p>"}
<form method="post" action="/login">{hidden}
<label for="user">User</label>
<input id="user" name="user" autocomplete="username" required autofocus maxlength="64">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Log in</button></form>{other}
<p class="help">On the fleet's own machine, <code>edgeml fleet console</code> prints a link
that logs in once.</p>""",
        status,
    )


def change(*, wrong: str = "", status: int = 200) -> HTMLResponse:
    """The page that asks for a new password."""
    return _page(
        "Change your password",
        f"""{_wrong(wrong)}<p>Take twelve characters or more.</p>
<form method="post" action="/login/password">
<label for="old">Present password</label>
<input id="old" name="old" type="password" autocomplete="current-password" required autofocus>
<label for="new">New password</label>
<input id="new" name="new" type="password" autocomplete="new-password" required minlength="12">
<button>Change it</button></form>{_LOGOUT}""",
        status,
    )


def logout(actor: str, *, has_password: bool) -> HTMLResponse:
    """The page of whoever is logged in."""
    other = '<p><a href="/login/password">Change your password</a></p>' if has_password else ""
    return _page(
        "Your session",
        f'<p>You are logged in as {escape(actor)}.</p>{_LOGOUT}{other}<p><a href="/">Back</a></p>',
        200,
    )


_LOGOUT = '<form method="post" action="/logout"><button>Log out</button></form>'


def _wrong(text: str) -> str:
    return f'<p class="wrong" role="alert">{escape(text)}</p>' if text else ""


def _page(title: str, body: str, status: int) -> HTMLResponse:
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title} | edgeml fleet</title>
<style>{_STYLE}</style></head><body><main><p class="brand">edgeml <span>fleet</span></p>
<h1>{title}</h1>{body}</main></body></html>"""
    return HTMLResponse(page, status, headers=_HEADERS)
