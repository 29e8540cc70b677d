"""NPUs whose compilers cannot be had from package registries: an error that says so, and why.

A package that brings such a target (entry points `edgeml.targets` and `edgeml.backends`) takes the
place: then the name is a target like any other.
"""

from collections.abc import Iterable

from edgeml.errors import TargetError
from hardware.profiles import profiles

_NOWHERE = "is not to be had from PyPI or Debian."
_EMPTY = "LiteRT's package for this vendor holds no compiler: it downloads the SDK when installed."
_MISSING = {
    "npu-coral": f"Google's edgetpu-compiler {_NOWHERE}",
    "npu-edgetpu": f"Google's edgetpu-compiler {_NOWHERE}",
    "npu-google-tensor": _EMPTY,
    "npu-kendryte": f"A complete nncase compiler {_NOWHERE}",
    "npu-mediatek": _EMPTY,
    "npu-sophgo": f"A working tpu-mlir {_NOWHERE}",
}


def refuse_elsewhere(names: Iterable[str]) -> None:
    """Check that no target asked for is one whose compiler cannot be had.

    Raises:
        TargetError: one is, and no installed package brings it.
    """
    for name in names:
        why = next((said for start, said in _MISSING.items() if name.startswith(start)), "")
        if why and name not in profiles():
            raise TargetError(
                f"edgeml cannot compile for {name}.",
                why=why,
                fix="Install the vendor's compiler yourself and bring it as a backend of your own: "
                "docs/targets.md.",
            )
