"""One entrance for all methods: a prepared model and a recipe's rules in, a file out."""

from collections.abc import Sequence

from converters.methods.bias import correct_bias
from converters.methods.calibrate import Feeds, Statistics, observe
from converters.methods.choice import Choice, choose
from converters.methods.dynamic import quantize_dynamic
from converters.methods.equalize import equalize
from converters.methods.half import quantize_half
from converters.methods.prepare import Prepared
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.result import Quantized
from converters.methods.sessions import open_bytes
from converters.methods.static import quantize_static
from converters.methods.weight_only import quantize_weights
from converters.recipe import Method, Rule


def quantize(
    prepared: Prepared,
    statistics: Statistics | None,
    rules: Sequence[Rule],
    feeds: Feeds | None = None,
    *,
    whole: bool = False,
) -> Quantized:
    """Quantize the nodes that the rules choose.

    Args:
        prepared: the model.
        statistics: what calibration saw; only static quantization needs it.
        rules: a recipe's rules; those that choose no float32 name one method.
        feeds: samples for bias correction; those of calibration if None.
        whole: of static quantization, see `quantize_static`.

    Raises:
        NotQuantizableError: the rules quantize nothing or ask for what is not known, or the
            method cannot be applied to this model.
    """
    choice = choose(prepared, rules)
    made = _by_method(prepared, statistics, choice, feeds, whole=whole)
    with refusing("loaded after its quantization"):
        open_bytes(made.data)
    return made


def _by_method(
    prepared: Prepared,
    statistics: Statistics | None,
    choice: Choice,
    feeds: Feeds | None,
    *,
    whole: bool,
) -> Quantized:
    match choice.method:
        case Method.DYNAMIC:
            return quantize_dynamic(prepared, choice)
        case Method.FLOAT16:
            return quantize_half(prepared, choice)
        case Method.WEIGHT_ONLY:
            return quantize_weights(prepared, choice)
        case Method.STATIC_QDQ:
            return _static(prepared, statistics, choice, feeds, whole=whole)
        case _:
            raise NotQuantizableError(
                f"The recipe asks for the method {choice.method}.", why="It is for .tflite files."
            )


def _static(
    prepared: Prepared,
    statistics: Statistics | None,
    choice: Choice,
    feeds: Feeds | None,
    *,
    whole: bool,
) -> Quantized:
    if statistics is None:
        raise NotQuantizableError(
            "Static quantization needs calibration.", why="No sample was observed."
        )
    parameters = choice.parameters
    feeds = feeds or statistics.feeds
    if parameters.equalize:
        prepared, statistics = _equalized(prepared, statistics, parameters.per_channel)
    ranges = statistics.ranges(parameters.calibration, parameters.percentile)
    made = quantize_static(prepared, ranges, choice, whole=whole)
    if parameters.bias_correction:
        corrected = correct_bias(prepared, made.data, feeds)
        made = quantize_static(corrected, ranges, choice, whole=whole)
    return made


def reference_of(prepared: Prepared, statistics: Statistics, rules: Sequence[Rule]) -> Prepared:
    """The float model whose tensors a model quantized by these rules approximates.

    It is the prepared one, equalised where the rules ask for that: what `sensitivity` takes.

    Raises:
        NotQuantizableError: the rules quantize nothing, or the model cannot be equalised.
    """
    parameters = choose(prepared, rules).parameters
    if not parameters.equalize:
        return prepared
    return _equalized(prepared, statistics, parameters.per_channel)[0]


def _equalized(
    prepared: Prepared, statistics: Statistics, per_channel: bool
) -> tuple[Prepared, Statistics]:
    known = statistics.equalized
    if per_channel not in known:
        made = equalize(prepared, statistics.feeds, per_channel=per_channel)
        known[per_channel] = (made, observe(made, statistics.feeds))
    return known[per_channel]
