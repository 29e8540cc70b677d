"""Whether a configuration that is being tried may stay. Pure.

Every new source of files, folders, arrays or pushed frames has to work, and what a site sets must
not make the models fail. A camera or microphone may be off: its state is reported, and the rest of
the configuration is not held up by it.
"""

from collections.abc import Mapping

import msgspec

from cloud_sync.messages import Configuration, SourceConfig

PATIENCE_S = 30.0
MIN_ANSWERS = 10
MAX_ERROR_SHARE = 0.5
# What this device has by itself; all else, plug-ins too, is something that may be switched off.
OWN_KINDS = frozenset({"file", "images", "npy", "push", "wav", "watch"})


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in `seconds` of the trial.

    `sources` has, by name, whether a source works, with what it says where it does not;
    `models` has, of those that run, how many frames were answered and how many failed.
    """

    seconds: float
    sources: Mapping[str, tuple[bool, str]] = {}
    models: Mapping[str, tuple[int, int]] = {}


def new_sources(before: Configuration, after: Configuration) -> tuple[SourceConfig, ...]:
    """The sources that the newer configuration changes or brings."""
    return tuple(source for source in after.sources if source not in before.sources)


def new_sites(before: Configuration, after: Configuration) -> tuple[str, ...]:
    """The models whose site parameters the newer configuration changes."""
    names = {*before.site, *after.site}
    return tuple(sorted(m for m in names if before.site.get(m, {}) != after.site.get(m, {})))


def may_be_off(source: SourceConfig) -> bool:
    """Whether its silence says nothing against the configuration: a camera, a microphone."""
    return source.uri.partition(":")[0].lower() not in OWN_KINDS


def needs_trial(before: Configuration, after: Configuration) -> bool:
    """Whether anything of it could do badly here."""
    return bool(new_sources(before, after) or new_sites(before, after))


def judge(before: Configuration, after: Configuration, seen: Seen) -> str | None:
    """The verdict: why it is rolled back, empty where it is committed, None while it is tried."""
    failing = [
        f"{errors} of {answered + errors} frames of {model} failed with it"
        for model in new_sites(before, after)
        for answered, errors in [seen.models.get(model, (0, 0))]
        if errors >= MIN_ANSWERS and errors > MAX_ERROR_SHARE * (answered + errors)
    ]
    if failing:
        return "; ".join(failing)
    silent = {
        source: seen.sources[source.name][1]
        for source in new_sources(before, after)
        if source.name in seen.sources and not seen.sources[source.name][0]
    }
    unsure = [
        model
        for model in new_sites(before, after)
        if model in seen.models and sum(seen.models[model]) < MIN_ANSWERS
    ]
    if not silent and not unsure:
        return ""
    if seen.seconds < PATIENCE_S:
        return None
    # A model that sees nothing says nothing against its parameters. A camera that is off was
    # waited for all the same: a driver that ends the process does so while it is being tried.
    return "; ".join(
        f"the source {source.name!r} gave no frame in {seen.seconds:.0f} s"
        f"{f': {why}' if why else ''}"
        for source, why in silent.items()
        if not may_be_off(source)
    )
