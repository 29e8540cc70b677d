"""The values of a policy that the form asks for: where each is, and what it is called."""

from collections.abc import Mapping
from typing import Any

import msgspec

from fleet.rollouts.timing import DAYS

Path = tuple[str, ...]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a policy: where it is, what it is called, what it means.

    `choices` are its values and their words, of which several hold where `is_many`; a field
    without is a number, or text where `is_text`.
    """

    path: Path
    label: str
    help: str = ""
    unit: str = ""
    is_text: bool = False
    is_many: bool = False
    choices: Mapping[Any, str] = {}

    @property
    def name(self) -> str:
        """As the file names it: `gates.max_error_rate`."""
        return ".".join(self.path)


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """A list of tables, such as `[[windows]]`; `fields` are those of one of them.

    `word` names one, `new` is what one begins with.
    """

    path: Path
    word: str
    help: str
    fields: tuple[Field, ...]
    new: Mapping[str, Any]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that are thought of together."""

    title: str
    help: str
    fields: tuple[Field, ...]
    rows: tuple[Rows, ...] = ()


_STOP = {"halt": "It stops", "pause": "It pauses"}

WINDOWS = Rows(
    path=("windows",),
    word="window",
    help="Devices are given the release only while one of these is open; without any, always.",
    new={"begins": "22:00", "ends": "05:00"},
    fields=(
        Field(path=("begins",), label="Opens at", is_text=True),
        Field(path=("ends",), label="Closes at", is_text=True),
        Field(
            path=("days",),
            label="Opens on",
            is_many=True,
            choices={day: day.capitalize() for day in DAYS},
        ),
        Field(
            path=("timezone",),
            label="Time zone",
            help='"device" is what each device\'s clock says; or one such as Europe/Berlin.',
            is_text=True,
        ),
    ),
)

THRESHOLDS = Rows(
    path=("thresholds",),
    word="threshold",
    help="The rollout stops when so many of those that have finished failed in such a way.",
    new={"percent": 10, "minimum": 20},
    fields=(
        Field(
            path=("failures",),
            label="Failures",
            choices={
                "any": "Of any kind",
                "rolled_back": "Rolled back by itself",
                "crashed": "Crashed",
                "timed_out": "Not in time",
                "no_evidence": "Showed no evidence",
                "gate": "A gate fails",
                "refused": "Refused it",
            },
        ),
        Field(path=("percent",), label="More than", unit="%"),
        Field(path=("minimum",), label="Once so many have finished"),
        Field(path=("action",), label="Then", choices=_STOP),
    ),
)

METRICS = Rows(
    path=("gates", "metrics"),
    word="metric",
    help="A bound on any figure that devices report, by its name.",
    new={"name": "temperature_c", "max": 80},
    fields=(
        Field(path=("name",), label="Name", is_text=True),
        Field(path=("max",), label="At most"),
        Field(path=("min",), label="At least"),
        Field(path=("min_samples",), label="Samples it must rest on"),
        Field(path=("max_failing_percent",), label="Devices that may be beyond it", unit="%"),
    ),
)

BEGIN = Section(
    title="When it begins, and who is asked",
    help="By default at once, and nobody is asked.",
    fields=(
        Field(
            path=("approval",),
            label="Approval",
            help="By somebody else than who makes the rollout.",
            choices={
                False: "Nobody is asked",
                "before-start": "Before it starts",
                "each-wave": "Before each wave",
            },
        ),
        Field(
            path=("start_at",),
            label="Not before",
            help="With its time zone: 2026-12-01T02:00:00Z. Empty: at once.",
            is_text=True,
        ),
        Field(
            path=("membership",),
            label="Devices that join later",
            choices={
                "dynamic": "Are taken in while it runs",
                "fixed": "Are left out",
                "continuous": "Are taken in for ever",
            },
        ),
    ),
    rows=(WINDOWS,),
)

GATES = Section(
    title="What a wave must show",
    help="In each hardware class by itself; a wave advances when every gate holds for its soak.",
    fields=(
        Field(path=("soak_s",), label="Soak of a wave", unit="s", help="How long gates must hold."),
        Field(
            path=("gates", "min_evidence"),
            label="Devices with evidence",
            help="That each hardware class of a wave needs.",
        ),
        Field(
            path=("gates", "max_latency_p95_ratio"),
            label="Latency p95, times the release before",
            help="On the same device.",
        ),
        Field(path=("gates", "max_latency_p95_ms"), label="Latency p95, at most", unit="ms"),
        Field(
            path=("gates", "max_error_rate"),
            label="Error rate, at most",
            help="A share: 0.01 is 1 %. Its 95 % interval decides.",
        ),
        Field(path=("gates", "max_crash_percent"), label="Devices that may crash", unit="%"),
        Field(path=("gates", "max_memory_mb"), label="Memory, at most", unit="MB"),
        Field(path=("gates", "max_temperature_c"), label="Temperature, at most", unit="°C"),
        Field(
            path=("gates", "undecided"),
            label="A gate that cannot be decided",
            choices={"wait": "Waits until it can", "accept": "Counts as passed"},
        ),
    ),
    rows=(METRICS,),
)

TRIAL = Section(
    title="On each device",
    help="The trial that a device holds before it commits; else it goes back by itself.",
    fields=(
        Field(path=("trial", "soak_s"), label="Trial, at least", unit="s"),
        Field(path=("trial", "timeout_s"), label="Trial, at most", unit="s"),
        Field(path=("trial", "min_inferred"), label="Live results it must have seen"),
        Field(path=("trial", "max_error_rate"), label="Error rate, at most", help="A share."),
        Field(
            path=("trial", "min_confident_ratio"),
            label="Confident share, times before",
            help="At least, of the share that the release before had.",
        ),
        Field(
            path=("trial", "max_latency_p95_ratio"),
            label="Latency p95, times before",
        ),
    ),
)

FAILURE = Section(
    title="When it does not go well",
    help="A device has failed when it rolled back, or did not commit in time.",
    fields=(
        Field(
            path=("on_failure",),
            label="When a gate fails",
            choices={
                "rollback": "Stop, and take it back from every device",
                "rollback-failed": "Stop, and take it back from those that failed",
                "pause": "Pause, and wait for an operator",
            },
        ),
        Field(
            path=("block_class",),
            label="When a hardware class fails",
            choices={False: "It may be tried there again", True: "The release is blocked there"},
        ),
        Field(
            path=("limits", "max_failures"),
            label="Devices that may fail",
            help="Empty: none; with thresholds, only they say.",
        ),
        Field(path=("limits", "device_timeout_s"), label="A device is late after", unit="s"),
        Field(
            path=("limits", "queued"),
            label="Time without an answer",
            choices={"fail": "Runs from when it was given", "wait": "Runs from its first answer"},
        ),
        Field(path=("retries", "rolled_back"), label="Tries after a rollback"),
        Field(path=("retries", "crashed"), label="Tries after a crash"),
        Field(path=("retries", "timed_out"), label="Tries when it was late"),
        Field(path=("retries", "cool_down_s"), label="Wait before a try", unit="s"),
    ),
    rows=(THRESHOLDS,),
)

LIMITS = Section(
    title="How much at a time",
    help="Bounds that hold in every wave. A rate that grows begins small and doubles, say, each "
    "time that 500 more have committed.",
    fields=(
        Field(path=("limits", "in_flight"), label="Devices on their way at once"),
        Field(
            path=("limits", "data_budget_mb"),
            label="Network, each device",
            unit="MB",
            help="0: no bound.",
        ),
        Field(path=("rate", "per_minute"), label="Devices a minute", help="Empty: no bound."),
        Field(
            path=("rate", "increment_factor"),
            label="The rate grows by the factor",
            help="From 1, which is not at all, to 5.",
        ),
        Field(
            path=("rate", "increase_after_committed"),
            label="Each time so many commit",
        ),
        Field(
            path=("rate", "increase_after_given"),
            label="Or each time so many get it",
        ),
        Field(path=("rate", "max_per_minute"), label="Devices a minute, at most"),
    ),
)

TOGETHER = Section(
    title="Which devices switch together",
    help="Those that share the value of a label, such as the cameras of one line: all of them, or "
    "none. Without a label each switches by itself.",
    fields=(
        Field(
            path=("together", "label"), label="Label", help="Such as line or site.", is_text=True
        ),
        Field(
            path=("together", "on_missing"),
            label="When one of them cannot",
            choices={"abort": "None of them switches", "without": "The others switch without it"},
        ),
        Field(path=("together", "prepare_timeout_s"), label="All must be ready within", unit="s"),
        Field(
            path=("together", "commit_timeout_s"),
            label="All must commit within",
            unit="s",
        ),
        Field(path=("together", "switch_after_s"), label="They switch, after that", unit="s"),
    ),
)

SECTIONS = (BEGIN, GATES, TRIAL, FAILURE, LIMITS, TOGETHER)
