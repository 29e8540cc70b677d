"""The kinds of devices that are simulated: what each is, and how a model behaves on it. Data.

The file `classes.toml` beside this module has what `edgeml simulate` takes by default. A class
is one of a target profile: what the profile asks for the class must have, so that its devices
resolve the variants that real ones do.

    >>> [kind.name for kind in read_classes()][:2]
    ['x86_64-avx512_vnni-4c', 'x86_64-avx2-2c']
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml.errors import UserError
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.profiles import select
from hardware.requirements import unmet

_MAX_BYTES = 1 << 20
_WHAT = "The hardware classes cannot be used."

Positive = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[float, Meta(ge=1)]


class HardwareClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of device; `classes.toml` says what each field means."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    target: str
    share: Positive = 1.0
    features: tuple[str, ...] = ()
    cores: Annotated[int, Meta(ge=1)] = 1
    ram_mb: Annotated[int, Meta(ge=1)] = 1024
    runtimes: dict[str, str] = {}
    latency_ms: Positive = 5.0
    spread: AtLeastOne = 1.2
    tail: AtLeastOne = 1.5
    memory_mb: Positive = 64.0
    confident: Annotated[float, Meta(ge=0, le=1)] = 0.9
    down_mbit: Annotated[float, Meta(ge=0)] = 0.0
    temperature_c: float | None = None
    joules: Annotated[float, Meta(ge=0)] | None = None

    def capabilities(self) -> Capabilities:
        """What a device of this class says that it is.

        Raises:
            UserError: it is not one of its target.
            TargetError: there is no such target.
        """
        [profile] = select([self.target])
        found = Capabilities(
            architecture=profile.architecture,
            hardware_class=self.name,
            cpu=Cpu(model=f"simulated {self.name}", cores=self.cores, features=self.features),
            memory_bytes=self.ram_mb << 20,
            runtimes=tuple(
                RuntimeInfo(name=name, version=version)
                for name, version in sorted(self.runtimes.items())
            ),
            board="simulated",
        )
        if lacks := unmet(profile.requirements(), found):
            raise UserError(
                _WHAT,
                why=f"{self.name} is no {self.target}: it {'; '.join(lacks)}.",
                fix="Mend its features or runtimes, or name another target.",
            )
        return found


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    classes: Annotated[tuple[HardwareClass, ...], Meta(min_length=1, max_length=1000)] = (
        msgspec.field(name="class")
    )


def read_classes(path: Path | None = None) -> tuple[HardwareClass, ...]:
    """The classes of a file; without one those that come with edgeml.

    Raises:
        UserError: it cannot be read, a key or value is wrong, or a class is not of its target.
        TargetError: a class names a target that there is not.
    """
    try:
        if path is None:
            text = (files("fleet.simulator") / "classes.toml").read_text()
        else:
            text = path.read_bytes()[: _MAX_BYTES + 1].decode()
        found = msgspec.convert(tomllib.loads(text), _File).classes
    except OSError as error:
        raise UserError(_WHAT, why=f"{path}: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UserError(_WHAT, why=f"{error}.", fix="docs/simulate.md shows such a file.") from None
    names = [kind.name for kind in found]
    if len(set(names)) != len(names):
        raise UserError(_WHAT, why="Two of them have the same name.")
    for kind in found:
        kind.capabilities()
    return found
