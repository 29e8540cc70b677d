"""Users, tokens and the audit log as text for people."""

import datetime as dt
from collections.abc import Sequence

from fleet.access.resources import Me, TokenInfo, UserInfo
from fleet.resources import AuditInfo
from fleet.show import table


def users_text(users: Sequence[UserInfo]) -> str:
    """A line for each user."""
    rows = [
        (
            user["name"],
            user["role"],
            user["scope"] or "the whole fleet",
            user["issuer"] or "a password",
            _date(user["last_login_at"], "never"),
            _state(user),
        )
        for user in users
    ]
    return table(("USER", "ROLE", "SCOPE", "LOGS IN WITH", "LAST LOGIN", "STATE"), rows)


def tokens_text(tokens: Sequence[TokenInfo]) -> str:
    """A line for each token, the newest first."""
    rows = [
        (
            token["id"],
            f"{token['owner'] or 'operator'}/{token['name']}",
            token["role"],
            token["scope"] or "as its owner",
            _date(token["expires_at"], ""),
            _date(token["last_used_at"], "never"),
            "revoked" if token["revoked_at"] else "",
        )
        for token in sorted(tokens, key=lambda t: t["created_at"], reverse=True)
    ]
    return table(("ID", "NAME", "ROLE", "SCOPE", "UNTIL", "LAST USED", "STATE"), rows)


def me_text(me: Me) -> str:
    """Who one is to the fleet."""
    scope = f"the devices with {me['scope']}" if me["scope"] else "the whole fleet"
    until = f", until {_date(me['expires_at'], '')}" if me["expires_at"] else ""
    return f"{me['actor']}, {me['role']}, sees {scope}{until}"


def audit_text(entries: Sequence[AuditInfo]) -> str:
    """A line for each entry."""
    rows = [
        (
            str(entry["seq"]),
            _date(entry["at"], ""),
            entry["actor"],
            entry["action"],
            entry["subject"],
            entry["reason"],
        )
        for entry in entries
    ]
    return table(("NUMBER", "WHEN", "WHO", "WHAT", "OF WHAT", "WHY"), rows)


def _state(user: UserInfo) -> str:
    if user["disabled_at"]:
        return "disabled"
    return "must change the password" if user["must_change_password"] else ""


def _date(unix: float | None, none: str) -> str:
    if unix is None:
        return none
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d %H:%M")
