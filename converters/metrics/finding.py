"""Which metric a name means: ours, a plug-in's, or one of the user's own."""

# ruff: noqa: ARG001 -- all makers of metrics are called alike

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from converters.attribute import attribute_of, cause_of, names_attribute
from converters.dataset import Dataset
from converters.metrics.classification import MacroF1, RocAuc, TopK
from converters.metrics.detection import MeanAveragePrecision
from converters.metrics.foreign import completed
from converters.metrics.interface import Metric
from converters.metrics.similarity import Cosine
from converters.metrics.text import Alphabet, CharacterAccuracy, ExactMatch, read_alphabet
from edgeml.errors import EdgemlError, UserError

GROUP = "edgeml.metrics"
_BLANK_LAST = "blank=last"


def find_metric(name: str, *, labels: Sequence[str] = ()) -> Metric:
    """The metric that a name means.

    Args:
        name: `top1`, `topk:5`, `f1`, `auc`, `auc:reconstruction`, `map`, `map50`, `cosine`,
            `exact:labels.txt`, `char_accuracy:labels.txt` (with `,blank=last` where the blank
            is the last class), a plug-in's name, or `module:attribute`; a parameter after a
            further colon is handed on.
        labels: the pipeline's labels, which text metrics take where no file is named.

    Raises:
        UserError: there is no such metric, its parameter is wrong or its file unreadable.
    """
    base, _, parameter = name.partition(":")
    if base in _OURS:
        return _OURS[base](name, parameter, labels)
    for entry in entry_points(group=GROUP):
        if entry.name == base:
            try:
                return completed(name, entry.load(), parameter)
            except EdgemlError:
                raise
            except Exception as error:  # a plug-in may raise anything
                raise UserError(
                    f"The metric plug-in {base} cannot be loaded.",
                    why=f"{cause_of(error)}.",
                    fix="Repair or uninstall the package that brings it.",
                ) from error
    module, _, rest = name.partition(":")
    attribute, _, parameter = rest.partition(":")
    if names_attribute(f"{module}:{attribute}"):
        return completed(name, attribute_of(f"{module}:{attribute}"), parameter)
    plugged = sorted(entry.name for entry in entry_points(group=GROUP))
    raise UserError(
        f"No metric {name!r}.",
        why=f"Known are {', '.join([*_OURS, *plugged])}, and module:attribute.",
    )


def chance_of(metric: Metric, dataset: Dataset) -> float:
    """What guessing would score on these data; 0 where that is not known."""
    labels = dataset.annotation
    if isinstance(metric, TopK) and labels is not None and labels.are_class_numbers:
        return min(1.0, metric.k / len(np.unique(labels.y)))
    return metric.chance


def _without_parameter(make: Callable[[str], Metric]) -> Callable[..., Metric]:
    def made(name: str, parameter: str, labels: Sequence[str]) -> Metric:
        if ":" in name:
            raise UserError(
                f"No metric {name!r}.", why=f"{name.partition(':')[0]} takes no parameter."
            )
        return make(name)

    return made


def _top_k(name: str, parameter: str, labels: Sequence[str]) -> Metric:
    if not (parameter.isascii() and parameter.isdigit() and int(parameter)):
        raise UserError(
            f"No metric {name!r}.", why="topk needs a number of classes.", fix="Write topk:5."
        )
    return TopK(name, int(parameter))


def _auc(name: str, parameter: str, labels: Sequence[str]) -> Metric:
    if parameter not in {"", "reconstruction"}:
        raise UserError(f"No metric {name!r}.", why="auc takes no parameter but reconstruction.")
    return RocAuc(name, reconstruction=bool(parameter))


def _text(make: Callable[[str, Alphabet], Metric]) -> Callable[..., Metric]:
    def made(name: str, parameter: str, labels: Sequence[str]) -> Metric:
        blank_last = parameter == _BLANK_LAST or parameter.endswith(f",{_BLANK_LAST}")
        file = parameter.removesuffix(_BLANK_LAST).removesuffix(",")
        if file:
            return make(name, read_alphabet(Path(file), blank_last=blank_last))
        if not labels:
            raise UserError(
                f"The metric {name} needs labels.",
                why="There is no pipeline that names what the model's classes mean.",
                fix=f"Name a file with one a line: {name.partition(':')[0]}:labels.txt.",
            )
        return make(name, Alphabet(tuple(labels), blank_last))

    return made


_OURS: dict[str, Callable[[str, str, Sequence[str]], Metric]] = {
    "top1": _without_parameter(TopK),
    "topk": _top_k,
    "f1": _without_parameter(MacroF1),
    "auc": _auc,
    "map": _without_parameter(MeanAveragePrecision),
    "map50": _without_parameter(lambda name: MeanAveragePrecision(name, (0.5,))),
    "exact": _text(ExactMatch),
    "char_accuracy": _text(CharacterAccuracy),
    "cosine": _without_parameter(Cosine),
}
