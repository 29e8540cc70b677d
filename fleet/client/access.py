"""Users, API tokens, sessions."""

from collections.abc import Mapping
from typing import Any, cast

from fleet.access.resources import Login, Me, NewToken, NewUser, TokenInfo, UserInfo
from fleet.client.connection import Connection, part


class AccessCalls(Connection):
    """Users, API tokens, sessions."""

    def login(self, user: str, password: str) -> Login:
        """Begin a session; its token is for another client."""
        return cast("Login", self._secret("/login", {"user": user, "password": password}))

    def logout(self) -> None:
        """End the session whose token this client sends."""
        self._call("POST", "/logout")

    def me(self) -> Me:
        """Who the fleet takes one for."""
        return cast("Me", self._get("/me"))

    def change_password(self, old: str, new: str) -> Login:
        """Change one's own password; all sessions end, a new one begins."""
        return cast("Login", self._put("/me/password", {"old": old, "new": new}, ""))

    def users(self) -> list[UserInfo]:
        """The users, by name."""
        return list(self._pages("/users"))

    def user(self, name: str) -> UserInfo:
        """One user."""
        return cast("UserInfo", self._get(f"/users/{part(name)}"))

    def add_user(
        self, name: str, role: str, *, scope: str = "", password: str = "", reason: str = ""
    ) -> NewUser:
        """Make a user."""
        body = {"name": name, "role": role, "scope": scope, "password": password, "reason": reason}
        return cast("NewUser", self._secret("/users", body))

    def change_user(
        self, name: str, *, role: str | None = None, scope: str | None = None, reason: str = ""
    ) -> UserInfo:
        """Give a user another role or scope; what is none stays."""
        body = {"role": role, "scope": scope, "reason": reason}
        return cast("UserInfo", self._call("PATCH", f"/users/{part(name)}", json=body))

    def reset_password(self, name: str, password: str = "", reason: str = "") -> NewUser:
        """Give a user a new password, to be changed at the next login."""
        body = {"password": password, "reason": reason}
        return cast("NewUser", self._secret(f"/users/{part(name)}/password", body))

    def disable_user(self, name: str, reason: str = "") -> UserInfo:
        """Let a user in no more."""
        return cast("UserInfo", self._post(f"/users/{part(name)}/disable", {"reason": reason}))

    def enable_user(self, name: str, reason: str = "") -> UserInfo:
        """Let a user in again."""
        return cast("UserInfo", self._post(f"/users/{part(name)}/enable", {"reason": reason}))

    def tokens(self) -> list[TokenInfo]:
        """One's own API tokens; an admin sees everybody's."""
        return list(self._pages("/tokens"))

    def create_token(
        self, name: str, *, role: str | None = None, scope: str = "", ttl_s: float, reason: str = ""
    ) -> NewToken:
        """Make an API token for oneself."""
        body = {"name": name, "role": role, "scope": scope, "ttl_s": ttl_s, "reason": reason}
        return cast("NewToken", self._secret("/tokens", body))

    def revoke_token(self, token: str, reason: str = "") -> TokenInfo:
        """End an API token, by its id."""
        return cast("TokenInfo", self._delete(f"/tokens/{part(token)}", reason=reason))

    def _secret(self, path: str, body: Mapping[str, Any]) -> Any:
        """A POST whose answer is a secret: the fleet shall not keep it to give it again."""
        return self._call("POST", path, json=dict(body))
