"""The commands `edgeml webhooks ...`."""

import time
from typing import Annotated

import typer

from edgeml.errors import RemoteError
from fleet.commands.connection import Why
from fleet.commands.session import Session, fleet_command

webhooks_app = typer.Typer(help="Tell other systems of alerts and rollouts.", no_args_is_help=True)
_Webhook = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id, wh_...")]
_LOOK_S = 0.2


@fleet_command(webhooks_app, "list")
def list_webhooks(fleet: Session) -> None:
    """List the webhooks, and how it goes with them."""
    from fleet.show_alerts import webhooks_text

    found = fleet.client.webhooks()
    fleet.show(found, webhooks_text(found))


@fleet_command(webhooks_app, "add")
def add(
    fleet: Session,
    url: Annotated[str, typer.Argument(help="Where to send events: https://HOST/PATH.")],
    *,
    event: Annotated[
        list[str] | None,
        typer.Option(help="Only this type, such as dev.edgeml.alert.*; may be given again."),
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="The address may be inside your network.")
    ] = False,
    why: Why = "",
) -> None:
    """Have events sent to a URL, and print the secret that verifies them: once, here.

    Events are CloudEvents in JSON, signed by the Standard Webhooks scheme; what is not taken is
    sent again for three days.
    """
    found = fleet.client.add_webhook(url, event or (), allow_private=allow_private, reason=why)
    fleet.remark(f"Events go to {found['url']}. Its secret is not shown again:")
    fleet.show(found, f"{found['id']}  {found['secret']}")


@fleet_command(webhooks_app, "show")
def show(fleet: Session, webhook: _Webhook) -> None:
    """Show a webhook and what was sent to it, the newest first; dead is what was given up."""
    from fleet.show_alerts import webhook_text

    found = fleet.client.webhook(webhook)
    deliveries = fleet.client.deliveries(webhook)
    fleet.show({**found, "deliveries": deliveries}, webhook_text(found, deliveries))


@fleet_command(webhooks_app, "test")
def send_test(
    fleet: Session,
    webhook: _Webhook,
    *,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the first attempt.")
    ] = 20.0,
    why: Why = "",
) -> None:
    """Send a test event, and tell whether it was taken."""
    from fleet.show_alerts import deliveries_text

    found = fleet.client.test_webhook(webhook, why)
    end = time.monotonic() + wait_s
    while not found["attempts"] and time.monotonic() < end:
        time.sleep(_LOOK_S)
        found = fleet.client.delivery(webhook, found["id"])
    fleet.show(found, deliveries_text([found]))
    if found["status"] != "delivered":
        raise RemoteError(
            "The test event was not taken.",
            why=found["error"] or f"It was not sent within {wait_s:g} s.",
            fix=f"It is sent again. See how it goes: edgeml webhooks show {webhook}",
        )


@fleet_command(webhooks_app, "retry")
def retry(
    fleet: Session,
    webhook: _Webhook,
    delivery: Annotated[
        int | None, typer.Argument(metavar="DELIVERY", help="Its number; none: all that are dead.")
    ] = None,
    *,
    why: Why = "",
) -> None:
    """Send events again that were given up."""
    from fleet.show_alerts import deliveries_text

    client = fleet.client
    dead = [d["id"] for d in client.deliveries(webhook, "dead")] if delivery is None else [delivery]
    found = [client.retry_delivery(webhook, number, why) for number in dead]
    fleet.show(found, deliveries_text(found) if found else "Nothing was given up.")


@fleet_command(webhooks_app, "remove")
def remove(fleet: Session, webhook: _Webhook, *, why: Why = "") -> None:
    """Send nothing there any more."""
    fleet.client.remove_webhook(webhook, why)
    fleet.show({"removed": webhook}, f"{webhook} is removed.")
