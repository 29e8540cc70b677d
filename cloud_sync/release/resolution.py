"""Which variant of a release a device gets: a pure function of the two.

The fleet plans with it before a rollout starts, and the agent chooses with it.
"""

import msgspec

from cloud_sync.release.model import Release, Variant
from hardware.capabilities import Capabilities
from hardware.requirements import unmet


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


def resolve(release: Release, capabilities: Capabilities) -> Resolution:
    """Choose the variant for a device.

    Of those whose requirements are met, the one of the most demanding target (most CPU
    features) wins, then the best rank within it, then the digest, so that the answer is
    the same everywhere.
    """
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
    best = min(fitting, key=lambda v: (-_demands(v), v.rank, v.target, v.digest))
    return Resolution(
        variant=best,
        rejected=tuple(rejected),
        reason=f"{best.name} is the best of {len(fitting)} that fit.",
    )


def _demands(variant: Variant) -> int:
    requires = variant.requires
    return len(requires.cpu_features) + 100 * (requires.accelerator is not None)
