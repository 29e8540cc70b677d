"""What the routes' requests share: why something is done, and names with bounds."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.services.context import Caller

MAX_REASON = 2000
Reason = Annotated[str, Query(max_length=MAX_REASON, description="Why; kept in the audit log.")]
Text = Annotated[str, Query(max_length=4096)]
CallerOf = Callable[[Request, str], Caller]


class WithReason(BaseModel):
    """Says why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(
        default="", max_length=MAX_REASON, description="Why; kept in the audit log."
    )


class ChangeRequest(WithReason):
    """Says why."""


def why(body: WithReason | None) -> str:
    """The reason that a body gives, if there is one."""
    return body.reason if body else ""
