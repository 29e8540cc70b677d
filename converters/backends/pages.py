"""The pages of targets, `docs/targets/TARGET.md`: what each is and runs, from its rules."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from converters.backends import backend, target_profiles
from converters.backends.support import EVERY, Constraint, message
from hardware.profiles import TargetProfile

WRITTEN = "Written by `make docs` from the target's profile and its table of constraints."


def pages() -> dict[str, str]:
    """By file name the page of each of our targets, and `README.md`, which lists them."""
    profiles = target_profiles()
    lines = [f"| [{p.name}]({p.name}.md) | {p.description} | `{p.backend}` |" for p in profiles]
    index = "\n".join(
        [
            "# Compiled targets",
            "",
            "Written by `make docs` from the targets' profiles. [How to add one](../targets.md).",
            "",
            "| target | what it is | backend |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )
    return {f"{p.name}.md": page(p) for p in profiles} | {"README.md": index}


def page(profile: TargetProfile) -> str:
    """The page of one target, Markdown."""
    serving = backend(profile.backend)
    part = profile.accelerator
    optional = getattr(serving, "optional_toolchains", ())
    options = getattr(serving, "options", ())
    tools = [_quoted(serving.toolchains)] if serving.toolchains else []
    tools += [f"{_quoted(optional)}, as options ask"] if optional else []
    facts = [
        f"- **Backend** `{profile.backend}`; toolchains: {' and '.join(tools) or 'none'}",
        *([f"- **Options** {_quoted(options)}"] if _is_bare(options) else []),
        f"- **Runs on** {profile.os}/{profile.architecture}, "
        + ", ".join(f"`{runtime.name}{runtime.versions}`" for runtime in profile.runtimes),
        *([f"- **Accelerator** {part.part}"] if part else []),
        *(f"- **{n}** {value}" for n, value in profile.settings.items() if n != "accelerator"),
    ]
    return "\n".join(
        [
            f"# {profile.name}",
            "",
            WRITTEN,
            "",
            f"{profile.description}.",
            "",
            *facts,
            "",
            *_meanings(options),
            *_rules(serving.constraints(profile)),
        ]
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_bare(options: Collection[str]) -> bool:
    return bool(options) and not isinstance(options, Mapping)


def _meanings(options: Collection[str]) -> list[str]:
    if not isinstance(options, Mapping):
        return []
    lines = [f"| `--option {name}=` | {meaning} |" for name, meaning in options.items()]
    return ["| option | what it is |", "|---|---|", *lines, ""]


def _rules(table: Mapping[str, Sequence[Constraint]]) -> list[str]:
    """What runs, by ONNX operator; operators with the same constraints share a line."""
    if not table:
        return ["Its compiler alone says what it runs.", ""]
    groups: dict[tuple[str, ...], list[str]] = {}
    for operator, constraints in sorted(table.items()):
        if operator != EVERY:
            said = tuple(message(constraint) for constraint in constraints)
            groups.setdefault(said, []).append(operator)
    every = [f"- {message(constraint)}" for constraint in table.get(EVERY, ())]
    lines = ["## What it runs", "", "Checked on the ONNX model before any toolchain starts.", ""]
    lines += ["Every node:", "", *every, ""] if every else []
    if not groups:
        return [*lines, "Which operators run, its compiler alone says.", ""]
    lines += ["| operators | where |", "|---|---|"]
    lines += [
        f"| {', '.join(operators)} | {' '.join(said) or 'always'} |"
        for said, operators in groups.items()
    ]
    others = (
        "Any other operator is left to the CPU where the compiler can do that; else the model is "
        "refused."
    )
    return [*lines, "", others, ""]
