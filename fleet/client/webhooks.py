"""Webhooks."""

from collections.abc import Sequence
from typing import cast

from fleet.client.connection import Connection, part
from fleet.webhooks.resources import DeliveryInfo, WebhookInfo, WebhookSecret


class WebhookCalls(Connection):
    """Webhooks."""

    def webhooks(self) -> list[WebhookInfo]:
        """All webhooks."""
        return list(self._pages("/webhooks"))

    def webhook(self, webhook: str) -> WebhookInfo:
        """One webhook."""
        return cast("WebhookInfo", self._get(f"/webhooks/{part(webhook)}"))

    def add_webhook(
        self,
        url: str,
        events: Sequence[str] = (),
        *,
        allow_private: bool = False,
        reason: str = "",
    ) -> WebhookSecret:
        """Have alerts sent to a URL; the answer has the secret, this once."""
        body = {
            "url": url,
            "events": list(events),
            "allow_private": allow_private,
            "reason": reason,
        }
        return cast("WebhookSecret", self._post("/webhooks", body))

    def remove_webhook(self, webhook: str, reason: str = "") -> None:
        """Send nothing there any more."""
        self._delete(f"/webhooks/{part(webhook)}", reason=reason)

    def test_webhook(self, webhook: str, reason: str = "") -> DeliveryInfo:
        """Send a test event."""
        return cast(
            "DeliveryInfo", self._post(f"/webhooks/{part(webhook)}/test", {"reason": reason})
        )

    def deliveries(self, webhook: str, status: str = "") -> list[DeliveryInfo]:
        """What was and is sent to a webhook, newest first."""
        return list(self._pages(f"/webhooks/{part(webhook)}/deliveries", status=status))

    def delivery(self, webhook: str, delivery: int) -> DeliveryInfo:
        """One event on its way."""
        path = f"/webhooks/{part(webhook)}/deliveries/{delivery}"
        return cast("DeliveryInfo", self._get(path))

    def retry_delivery(self, webhook: str, delivery: int, reason: str = "") -> DeliveryInfo:
        """Send an event again that was given up."""
        path = f"/webhooks/{part(webhook)}/deliveries/{delivery}/retry"
        return cast("DeliveryInfo", self._post(path, {"reason": reason}))
