"""Users and API tokens as they are shown. Pure."""

from collections.abc import Sequence

import msgspec

from fleet.access.resources import TokenInfo, UserInfo
from fleet.console.views.wording import ago, clock

DAY_S = 86400.0
_SOON_S = 14 * DAY_S
ROLES = {
    "viewer": "viewer: sees",
    "operator": "operator: registers, configures, rolls out",
    "approver": "approver: and lets other people's rollouts go on",
    "admin": "admin: and users, trust, what concerns the fleet",
}


class UserLine(msgspec.Struct, frozen=True, kw_only=True):
    """A user."""

    name: str
    role: str
    scope: str
    about: str
    state: str
    tone: str
    has_password: bool
    is_disabled: bool


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A token; `name` as the audit log calls it."""

    id: str
    name: str
    role: str
    scope: str
    about: str
    state: str
    tone: str
    is_good: bool


def user_lines(users: Sequence[UserInfo], now: float) -> tuple[UserLine, ...]:
    """The users; those that are disabled come last."""
    lines = [_user(user, now) for user in users]
    return tuple(sorted(lines, key=lambda line: (line.is_disabled, line.name)))


def token_lines(tokens: Sequence[TokenInfo], now: float) -> tuple[TokenLine, ...]:
    """The tokens; those that are good come first, the one that expires next before others."""
    ordered = sorted(tokens, key=lambda token: token["expires_at"])
    lines = [_token(token, now) for token in ordered]
    return tuple(sorted(lines, key=lambda line: not line.is_good))


def _user(user: UserInfo, now: float) -> UserLine:
    last = user["last_login_at"]
    seen = f"logged in {ago(now - last)} ago" if last else "has never logged in"
    by = f", with {user['issuer']}" if user["issuer"] else ""
    state, tone = "may log in", "good"
    if user["disabled_at"] is not None:
        state, tone = f"disabled since {clock(user['disabled_at'])}", "warn"
    elif user["must_change_password"]:
        state, tone = "must change the password", "busy"
    return UserLine(
        name=user["name"],
        role=user["role"],
        scope=user["scope"] or "the whole fleet",
        about=f"{seen}{by}; made {clock(user['created_at'])} by {user['created_by']}",
        state=state,
        tone=tone,
        has_password=not user["issuer"],
        is_disabled=user["disabled_at"] is not None,
    )


def _token(token: TokenInfo, now: float) -> TokenLine:
    left, used = token["expires_at"] - now, token["last_used_at"]
    is_good = token["revoked_at"] is None and left > 0
    if token["revoked_at"] is not None:
        state, tone = f"revoked {clock(token['revoked_at'])}", "idle"
    elif left <= 0:
        state, tone = f"expired {clock(token['expires_at'])}", "idle"
    else:
        state, tone = f"good for {ago(left)}", "warn" if left < _SOON_S else "good"
    return TokenLine(
        id=token["id"],
        name=f"{token['owner'] or 'operator'}/{token['name']}",
        role=token["role"],
        scope=token["scope"] or "the whole fleet",
        about=f"used {ago(now - used)} ago" if used else "never used",
        state=state,
        tone=tone,
        is_good=is_good,
    )
