"""Target profiles: what a variant can be compiled for, as data.

CPUs are in `hardware/targets/*.toml`. All else comes by the entry point group `edgeml.targets`: a
callable that returns `TargetProfile` objects, ours (`converters.backends`) as those of others.

    >>> [profile.name for profile in select(["cpu-x86-64"])]
    ['cpu-x86-64']
"""

import difflib
import tomllib
from collections.abc import Collection, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Annotated

import msgspec

from edgeml.errors import TargetError
from hardware.requirements import AcceleratorRequirement, Requirements, RuntimeRequirement

GROUPS = ("cpu", "npu", "fpga")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variant may take of a device at most; None is no limit.

    `max_model_bytes` is the size of the model's file, `max_memory_bytes` the peak resident
    memory of the process that runs it, `max_start_ms` the time from opening the file until it
    is ready to infer, `max_latency_ms` the median time of one inference.

        >>> both = Limits(max_start_ms=200).within(Limits(max_start_ms=300, max_model_bytes=9))
        >>> both.max_start_ms, both.max_model_bytes
        (200.0, 9)
    """

    max_model_bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None
    max_memory_bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None
    max_start_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_latency_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def within(self, other: "Limits") -> "Limits":
        """The tighter of both in each."""

        def tighter(name: str) -> float | None:
            given = [getattr(self, name), getattr(other, name)]
            return min((limit for limit in given if limit is not None), default=None)

        return msgspec.convert({n: tighter(n) for n in self.__struct_fields__}, Limits)


class TargetProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of device.

    `cpu_features` are needed, each `a|b` meaning any of them. `int8` is the quantization
    flavour for the target's arithmetic: `u8s8` where VNNI or dot-product instructions add
    exactly, `u8s8-reduced` (7-bit weights) where sums of two products saturate at 16 bits.
    `runtimes` may run a variant here, the preferred first; which of them can run one depends
    on its format. `limits` are what a variant may take there, in a `[limits]` table.

    A target with a `backend` is compiled for: the converter's backend of that name makes its
    files with these `settings`, for this `accelerator`.
    """

    name: str
    description: str
    os: str = "linux"
    architecture: str
    cpu_features: tuple[str, ...] = ()
    runtimes: tuple[RuntimeRequirement, ...] = ()
    int8: str = ""
    limits: Limits = Limits()
    backend: str = ""
    settings: dict[str, str | int | float | bool] = {}
    accelerator: AcceleratorRequirement | None = None

    def requirements(
        self, memory_bytes: int = 0, *, runtimes: Collection[str] | None = None
    ) -> Requirements:
        """What a variant for this target needs of a device.

        Args:
            memory_bytes: that it takes.
            runtimes: names of those that can run it, any one of which will do; all of the
                profile's by default.

        Raises:
            TargetError: the profile knows none of them.
        """
        able = tuple(r for r in self.runtimes if runtimes is None or r.name in runtimes)
        if runtimes is not None and not able:
            # Requirements without runtimes would let every device take it.
            raise TargetError(
                f"The target {self.name} runs nothing on {', '.join(runtimes) or 'no runtime'}.",
                why=f"It has {', '.join(r.name for r in self.runtimes) or 'none'}.",
            )
        return Requirements(
            os=self.os,
            architecture=self.architecture,
            cpu_features=self.cpu_features,
            runtimes=able,
            accelerator=self.accelerator,
            memory_bytes=memory_bytes,
        )


def parse(text: str) -> tuple[TargetProfile, ...]:
    """The profiles of a TOML file: one, or a family of `[[targets]]` that share what is above them.

    >>> [p.settings for p in parse('''
    ... architecture = "arm64"
    ... description = "an NPU"
    ... settings = {clock_mhz = 500}
    ... [[targets]]
    ... name = "npu-one"
    ... [[targets]]
    ... name = "npu-two"
    ... settings = {macs = 256}''')]
    [{'clock_mhz': 500}, {'clock_mhz': 500, 'macs': 256}]
    """
    shared = tomllib.loads(text)
    family = shared.pop("targets", [{}])
    return tuple(
        msgspec.convert(
            {
                **shared,
                **own,
                "settings": {**shared.get("settings", {}), **own.get("settings", {})},
            },
            TargetProfile,
        )
        for own in family
    )


@cache
def profiles() -> dict[str, TargetProfile]:
    """Every known target by name: ours, then those of plug-ins.

    Raises:
        TargetError: a plug-in cannot be loaded.
    """
    found: dict[str, TargetProfile] = {}
    folder = files("hardware") / "targets"
    for file in sorted(folder.iterdir(), key=lambda f: f.name.removesuffix(".toml")):
        if file.name.endswith(".toml"):
            found |= {profile.name: profile for profile in parse(file.read_text("utf-8"))}
    for entry in entry_points(group="edgeml.targets"):
        try:
            added = {profile.name: profile for profile in entry.load()()}
        except Exception as error:
            raise TargetError(
                f"The target plug-in {entry.name} cannot be loaded.",
                why=f"{type(error).__name__}: {error}.",
                fix="Repair or uninstall the package that brings it.",
            ) from error
        found = added | found
    return found


def is_group(name: str) -> bool:
    """Whether the name stands for several targets (`cpu`)."""
    return name in GROUPS


def select(names: Sequence[str]) -> tuple[TargetProfile, ...]:
    """The targets of that name, groups expanded, each once, in the order asked for.

    Raises:
        TargetError: there is no such target.
    """
    known = profiles()
    chosen: dict[str, TargetProfile] = {}
    for name in names:
        if is_group(name):
            chosen |= {n: p for n, p in known.items() if n.startswith(f"{name}-")}
        elif name in known:
            chosen[name] = known[name]
        else:
            near = difflib.get_close_matches(name, [*known, *GROUPS], n=3, cutoff=0.4)
            raise TargetError(
                f"There is no target {name}.",
                why=f"Known are: {', '.join([*GROUPS, *known])}.",
                fix=f"Did you mean {' or '.join(near)}?" if near else "",
            )
    return tuple(chosen.values())
