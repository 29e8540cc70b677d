"""Users, tokens, webhooks and an audit log, written into a database."""

import msgspec
from sqlalchemy import update

from cloud_sync.messages import ReportedSource
from fleet.access.scope import EVERYTHING
from fleet.db import tables
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import Caller, Services, blocks, devices, tokens, users, webhooks
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


@seed
def camera(services: Services, device: str, secret: str) -> None:
    """A device has a camera with a password, in all places where that can be read."""
    address = f"rtsp://viewer:{secret}@10.0.0.7/stream1"
    source = {"name": "belt", "uri": address, "model": "digits"}
    why = Caller("operator", f"the camera is {address} now")
    devices.configure(services, why, device, {"sources": [source]})
    said = ReportedSource(model="digits", state="lost", reason=f"{address} does not answer")
    with services.database.write() as session:
        row = session.get_one(tables.Device, device)
        row.sources = msgspec.json.encode({"belt": said}).decode()


@seed
def block(services: Services, version: str, reason: str) -> None:
    """A release is blocked on a class of hardware."""
    blocks.block(services, Caller("operator", reason), "digits", version, "cortex-m55-u55")


@seed
def demote(services: Services, name: str) -> None:
    """A user may only look from now on, and her sessions are not ended for her."""
    with services.database.write() as session:
        session.get_one(tables.User, name).role = Role.VIEWER


@seed
def expire(services: Services, name: str) -> None:
    """A user's sessions are over."""
    with services.database.write() as session:
        table = tables.Credential
        over = update(table).where(table.owner == name).values(expires_at=services.now() - 1)
        session.execute(over)
