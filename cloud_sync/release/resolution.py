"""Which variant of a release a device gets: a pure function of the two.

The fleet plans with it before a rollout starts, and the agent chooses with it.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from cloud_sync.release.model import Listed, Release, Variant
from hardware.capabilities import Capabilities
from hardware.requirements import unmet

_Choice = TypeVar("_Choice", bound=Listed)


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A variant that does not fit, and everything the device lacks for it."""

    target: str
    precision: str
    digest: str
    reasons: tuple[str, ...]


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """The variant that fits best, or None; `reason` says why in a sentence."""

    variant: Variant | None
    rejected: tuple[Rejection, ...]
    reason: str


def choose(variants: Iterable[_Choice], capabilities: Capabilities) -> _Choice | None:
    """Choose the variant for a device; None where nothing fits.

    Of those whose requirements are met, the one of the most demanding target (most CPU
    features) wins, then the best rank within it, then the digest, so that the answer is
    the same everywhere.
    """
    fitting = (variant for variant in variants if not unmet(variant.requires, capabilities))
    return min(fitting, key=_order, default=None)


def resolve(release: Release, capabilities: Capabilities) -> Resolution:
    """What `choose` chooses, and why."""
    fitting: list[Variant] = []
    rejected: list[Rejection] = []
    for variant in release.variants:
        reasons = unmet(variant.requires, capabilities)
        if reasons:
            rejected.append(
                Rejection(
                    target=variant.target,
                    precision=variant.precision,
                    digest=variant.digest,
                    reasons=reasons,
                )
            )
        else:
            fitting.append(variant)
    if not fitting:
        details = "; ".join(f"{r.target} {r.precision} {', '.join(r.reasons)}" for r in rejected)
        return Resolution(
            variant=None,
            rejected=tuple(rejected),
            reason=f"No variant of {release.name} fits: {details}.",
        )
    best = min(fitting, key=_order)
    return Resolution(
        variant=best,
        rejected=tuple(rejected),
        reason=f"{best.name} is the best of {len(fitting)} that fit.",
    )


def _order(variant: Listed) -> tuple[int, int, str, str]:
    requires = variant.requires
    demands = len(requires.cpu_features) + 100 * (requires.accelerator is not None)
    return -demands, variant.rank, variant.target, variant.digest
