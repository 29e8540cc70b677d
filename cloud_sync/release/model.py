"""A release and its variants as values, whatever they were read from."""

import msgspec

from edgeml.errors import ReleaseError
from hardware.requirements import Requirements


class ReleaseFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a variant; `role` is `model`, `pipeline`, `recipe`, `golden`, `recorded`, ..."""

    role: str
    path: str
    media_type: str
    digest: str
    size: int


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A variant as its release's index lists it; `rank` 0 is the best of its target."""

    digest: str
    size: int
    target: str
    rank: int
    requires: Requirements
    verification: str


class Variant(Listed, frozen=True, kw_only=True):
    """The model compiled for one target, with its files."""

    format: str
    precision: str
    quantization: str
    files: tuple[ReleaseFile, ...]

    @property
    def name(self) -> str:
        """A short name for people: `cpu-x86-64-vnni int8`."""
        return f"{self.target} {self.precision}"

    @property
    def total_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(file.size for file in self.files)

    def find(self, role: str) -> ReleaseFile | None:
        """Its file with that role, if there is one."""
        return next((file for file in self.files if file.role == role), None)

    def file(self, role: str) -> ReleaseFile:
        """Its file with that role.

        Raises:
            ReleaseError: it has none.
        """
        found = self.find(role)
        if found is None:
            raise ReleaseError(f"The variant {self.name} has no {role} file.")
        return found


class ReleaseName(msgspec.Struct, frozen=True, kw_only=True):
    """What a release is called; `digest`, of its index, is its identity."""

    model: str
    version: str
    digest: str
    size: int

    @property
    def name(self) -> str:
        """`digits:1.2.0`."""
        return f"{self.model}:{self.version}"


class ReleaseIndex(ReleaseName, frozen=True, kw_only=True):
    """What a release's index says: enough to choose a variant by."""

    variants: tuple[Listed, ...]


class Release(ReleaseName, frozen=True, kw_only=True):
    """One immutable version of a model, with all of its variants."""

    variants: tuple[Variant, ...]

    def variant(self, digest: str) -> Variant:
        """The variant with that digest.

        Raises:
            ReleaseError: the release has none such.
        """
        for variant in self.variants:
            if variant.digest == digest:
                return variant
        raise ReleaseError(f"{self.name} has no variant {digest}.")
