"""What the API says of users, tokens and the caller."""

from typing_extensions import TypedDict


class UserInfo(TypedDict):
    """A user; `scope` is a label selector, empty for the whole fleet.

    `issuer` is the OpenID provider that they log in with, empty for a password.
    """

    name: str
    role: str
    scope: str
    issuer: str
    must_change_password: bool
    created_at: float
    created_by: str
    disabled_at: float | None
    last_login_at: float | None


class NewUser(UserInfo):
    """A user, and the password that is shown this once; empty where one was given."""

    password: str


class TokenInfo(TypedDict):
    """An API token, without its secret; `owner` is empty for the holder of `operator.token`."""

    id: str
    owner: str
    name: str
    role: str
    scope: str
    created_at: float
    created_by: str
    expires_at: float
    last_used_at: float | None
    revoked_at: float | None


class NewToken(TokenInfo):
    """A token, and its secret, which is shown this once."""

    token: str


class Me(TypedDict):
    """Who asks, as the fleet sees it."""

    actor: str
    user: str
    role: str
    scope: str
    kind: str
    expires_at: float | None
    must_change_password: bool


class Login(TypedDict):
    """A session's secret, to be sent as `Authorization: Bearer`, and whose it is."""

    token: str
    expires_at: float
    me: Me
