"""The metrics that a program on the device gives: what the model cannot know of itself.

    POST /models/digits/metrics   {"reject_share": 0.02, "glare": [0.1, 0.4]}

They go up with the model's next telemetry window, and a rollout's policy can bound them by name
(`gates.metrics`). Names of what the fleet measures by itself are taken.
"""

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from edgeml.errors import UserError

MAX_VALUES = 1000
TAKEN = frozenset(
    {
        "confident_share",
        "empty_share",
        "energy_per_inference_j",
        "error_rate",
        "latency_p95_ms",
        "memory_mb",
        "replaced_share",
        "temperature_c",
    }
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_metrics = msgspec.json.Decoder(dict[str, float | list[float]])


def read_metrics(body: bytes) -> Mapping[str, Sequence[float]]:
    """The values by name.

    Raises:
        UserError: no JSON object of numbers, a name that cannot be, or too many values.

    >>> read_metrics(b'{"reject_share": 0.02, "glare": [0.1, 0.4]}')
    {'reject_share': [0.02], 'glare': [0.1, 0.4]}
    """
    try:
        said = _metrics.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(
            "The metrics cannot be read.",
            why=f"{error}.",
            fix='Send a JSON object of numbers: {"reject_share": 0.02}.',
        ) from None
    found = {
        name: value if isinstance(value, list) else [value]
        for name, value in said.items()
        if value != []
    }
    for name, values in found.items():
        if not _NAME.fullmatch(name):
            raise UserError(
                f"A metric cannot be named {name[:80]!r}.",
                fix="Use small letters, digits and _, a letter first, at most 64.",
            )
        if name in TAKEN:
            raise UserError(f"The agent measures {name} by itself.", fix="Use another name.")
        if not all(map(math.isfinite, values)):
            raise UserError(f"A value of {name} is not finite.", fix="Leave it out.")
    if sum(map(len, found.values())) > MAX_VALUES:
        raise UserError(f"These are more than {MAX_VALUES} values.", fix="Send them in parts.")
    return found
