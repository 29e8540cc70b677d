"""Which devices switch together, or not at all: those that share the value of a label.

[together]
label = "line"               # devices of one line are a group; one without the label is alone
prepare_timeout_s = 900      # in which all must have it, tested, beside what they run
commit_timeout_s = 300       # in which all must have switched, and passed their trials
on_missing = "abort"         # or "without": the group goes on without who cannot
switch_after_s = 2           # they switch so long after the last was ready, by the fleet's time
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Together(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the devices of a group switch; see the module."""

    label: Annotated[str, Meta(min_length=1, max_length=128)]
    prepare_timeout_s: Annotated[float, Meta(gt=0)] = 900.0
    commit_timeout_s: Annotated[float, Meta(gt=0)] = 300.0
    on_missing: Literal["abort", "without"] = "abort"
    switch_after_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0
