"""The options that targets have of their own: `--option NAME=VALUE`."""

from collections.abc import Iterable, Mapping

from converters.backends import backend
from converters.backends.interface import Backend
from converters.result import alike
from edgeml.errors import UserError
from hardware.profiles import TargetProfile


def refuse_unknown(options: Mapping[str, str], targets: Iterable[TargetProfile]) -> None:
    """Check that each option is one that some target has.

    Raises:
        UserError: one is not.
    """
    known: dict[str, str] = {}
    for target in targets:
        own = getattr(backend(target.backend), "options", None) if target.backend else ()
        if own is None:  # this backend looks at them itself
            return
        known |= dict.fromkeys(own, target.name)
    if unknown := sorted(set(options) - set(known)):
        of = alike((option, target) for option, target in known.items())
        told = "; ".join(f"{target} has {', '.join(names)}" for target, names in of)
        raise UserError(
            f"There is no option {unknown[0]}.",
            why=f"{told or 'The targets asked for have none'}.",
            fix="`edgeml targets TARGET` shows what a target has.",
        )


def own_options(serving: Backend, options: Mapping[str, str]) -> dict[str, str]:
    """Those that a backend has; all for one that looks at them itself."""
    own = getattr(serving, "options", None)
    return {name: value for name, value in options.items() if own is None or name in own}
