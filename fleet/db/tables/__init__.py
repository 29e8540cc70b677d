"""The tables, as SQLAlchemy 2 typed classes.

Times are Unix seconds; documents (capabilities, reported states, evidence) are kept as the JSON
that came in, beside the columns that are searched for. Histories refer to devices and releases,
which are therefore never deleted: a device is revoked, a release stays.
"""

from fleet.db.tables.base import Table
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
from fleet.db.tables.rollouts import Assignment, DesiredModel, DesiredState, Rollout

__all__ = [
    "Assignment",
    "AuditEntry",
    "Command",
    "Decommission",
    "DesiredModel",
    "DesiredState",
    "Device",
    "DeviceBoot",
    "DeviceKey",
    "DeviceLabel",
    "Enrollment",
    "Evidence",
    "Fact",
    "LedgerEntry",
    "Record",
    "Release",
    "ReportedModel",
    "RevokedCertificate",
    "Rollout",
    "SecurityEvent",
    "SignedBatch",
    "Stream",
    "Table",
]
