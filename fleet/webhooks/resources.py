"""What the API gives of webhooks."""

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict


class WebhookInfo(TypedDict):
    """Where alerts are sent, and how it goes; the secret is not shown again.

    `events` are the types that are sent, `dev.edgeml.alert.*`; none of them means all.
    `disabled` says why nothing is sent any more.
    """

    id: str
    url: str
    events: list[str]
    allow_private: bool
    created_at: float
    created_by: str
    disabled: str
    waiting: int
    delivered: int
    dead: int
    last_error: str


class WebhookSecret(WebhookInfo):
    """A webhook that was just made, with the secret that verifies what it sends."""

    secret: str


class DeliveryInfo(TypedDict):
    """An event on its way to a webhook. `status` is `waiting`, `delivered` or `dead`.

    `settled_at` is when it was taken or given up.
    """

    id: int
    webhook: str
    event: str
    type: str
    status: str
    created_at: float
    attempts: int
    next_at: float | None
    settled_at: float | None
    answer: int | None
    error: str
