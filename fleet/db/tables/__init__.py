"""The tables, as SQLAlchemy 2 typed classes.

Times are Unix seconds; documents (capabilities, reported states, evidence) are kept as the JSON
that came in, beside the columns that are searched for. Histories refer to devices and releases,
which are therefore never deleted: a device is revoked, a release stays.
"""

from fleet.db.tables.access import Credential, RolloutScope, User
from fleet.db.tables.base import Table
from fleet.db.tables.configurations import (
    ConfigurationLayer,
    ConfigurationPin,
    ConfigurationRevision,
)
from fleet.db.tables.devices import (
    Command,
    Decommission,
    Device,
    DeviceBoot,
    DeviceKey,
    DeviceLabel,
    Enrollment,
    LedgerEntry,
    ReportedModel,
    RevokedCertificate,
)
from fleet.db.tables.operations import AuditEntry, Fact, SecurityEvent
from fleet.db.tables.records import Evidence, Record, SignedBatch, Stream
from fleet.db.tables.releases import Release
from fleet.db.tables.rollouts import (
    Assignment,
    DesiredModel,
    DesiredState,
    ReleaseBlock,
    Rollout,
    RolloutMember,
)
from fleet.db.tables.rollups import DeviceRollUp, RollUp
from fleet.db.tables.samples import Sample
from fleet.db.tables.webhooks import Alert, Delivery, IdempotencyKey, Webhook

__all__ = [
    "Alert",
    "Assignment",
    "AuditEntry",
    "Command",
    "ConfigurationLayer",
    "ConfigurationPin",
    "ConfigurationRevision",
    "Credential",
    "Decommission",
    "Delivery",
    "DesiredModel",
    "DesiredState",
    "Device",
    "DeviceBoot",
    "DeviceKey",
    "DeviceLabel",
    "DeviceRollUp",
    "Enrollment",
    "Evidence",
    "Fact",
    "IdempotencyKey",
    "LedgerEntry",
    "Record",
    "Release",
    "ReleaseBlock",
    "ReportedModel",
    "RevokedCertificate",
    "RollUp",
    "Rollout",
    "RolloutMember",
    "RolloutScope",
    "Sample",
    "SecurityEvent",
    "SignedBatch",
    "Stream",
    "Table",
    "User",
    "Webhook",
]
