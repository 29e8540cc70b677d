"""Users, tokens, webhooks and an audit log, written into a database."""

from fleet.access.scope import EVERYTHING
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import Caller, Services, tokens, users, webhooks
from fleet.services.audit import audited
from fleet.services.credentials import Principal
from tests.fleet.console.seeds import seed

ADMIN = Caller("operator", "a new colleague")


@seed
def access(services: Services) -> None:
    """Some users with tokens, and a webhook."""
    for name, role, scope in (
        ("olga", Role.OPERATOR, ""),
        ("anna", Role.APPROVER, ""),
        ("nils", Role.OPERATOR, "site=north"),
        ("vera", Role.VIEWER, ""),
    ):
        users.create(services, ADMIN, name, role, scope=scope)
    users.disable(services, Caller("operator", "she left"), "vera")
    olga = Principal("olga", Role.OPERATOR, EVERYTHING, user="olga")
    tokens.create(services, olga, "ci", ttl_s=9 * 86400.0)
    north = parse_selector("site=north")
    tokens.create(services, Principal("nils", Role.OPERATOR, north, user="nils"), "grafana",
                  role=Role.VIEWER)  # fmt: skip
    webhooks.add(
        services, ADMIN, "https://203.0.113.7/hook", ["dev.edgeml.alert.*"], allow_private=True
    )


@seed
def history(services: Services) -> None:
    """What was done with the story's rollouts."""
    for who, action, subject, why in (
        ("operator", "rollout.create", "digits-1.1.0-ab12cd", "retrained on the night shift"),
        ("controller", "rollout.halt", "digits-1.1.0-ab12cd", "3% of 60 results were confident"),
        ("olga", "rollout.create", "digits-1.2.0-ab12cd", "retrained on blur"),
        ("anna", "rollout.approve", "digits-1.2.0-ab12cd", "the canary looks good"),
        ("controller", "rollout.advance", "digits-1.2.0-ab12cd", ""),
        ("olga/ci", "device.label", "cam-00001", ""),
    ):
        with audited(services, Caller(who, why), action, subject):
            pass
