"""Under which conditions a conversion measured, and the commands that repeat it."""

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cloud_sync.release import Release
from converters.arena import THREADS
from converters.report import words
from converters.request import Request
from hardware.probes import instruction_set
from hardware.profiles import Limits

if TYPE_CHECKING:
    from converters.build import Parts

_MOST_RECIPE = 64 << 10  # bytes that are shown


def conditions(parts: "Parts") -> Iterator[tuple[str, str]]:
    """Pairs of a name and a text."""
    request, host, inputs = parts.request, parts.host, parts.recipe.inputs
    candidates = (*parts.candidates, *parts.doubted)
    samples = max((len(c.judged.outcomes) for c in candidates), default=0)
    rounds = sorted({n for c in candidates if (n := len(c.timing.milliseconds))})
    yield "Machine", host.cpu.model or "unknown"
    hardware = (
        f"{host.cpu.cores} cores",
        f"{words.size(host.memory_bytes)} of memory",
        instruction_set(host),
        f"class {host.hardware_class}",
        host.os,
    )
    yield "Hardware", ", ".join(hardware)
    yield "Runtimes", ", ".join(f"{r.name} {r.version}" for r in host.runtimes)
    yield "Made with", ", ".join(f"{k} {v}" for k, v in sorted(parts.recipe.tools.items()))
    threads = f"{THREADS} thread{'' if THREADS == 1 else 's'}"
    counts = words.listed(map(words.count, rounds))
    yield "Latency", f"{threads}, each lane in a process of its own, in turns, {counts} rounds"
    yield "Metric", f"{parts.metric.name} on {words.count(samples)} samples"
    bound = f"{words.in_points(request.max_drop)} lost at {100 * request.confidence:g} % confidence"
    speed = f"{request.min_speedup:g} x the speed of float32"
    limits = [f"{text} {what}" for _, text, what in _limits(request.limits)]
    yield "Asked for", ", ".join([f"at most {bound}", f"at least {speed}", *limits])
    for target in {c.target.name: c.target for c in candidates}.values():
        own = [f"{text} {what}" for _, text, what in _limits(target.limits)]
        if own:
            yield f"Limits of {target.name}", ", ".join(own)
    yield "Model", f"{request.model}, {inputs.model}"
    yield "Evaluation data", f"{request.evaluation}, {inputs.evaluation}"
    yield "Calibration data", f"{request.calibration}, {inputs.calibration}"
    if request.pipeline:
        yield "Pipeline", f"{request.pipeline}, {inputs.pipeline}"


def command(request: Request) -> str:
    """The command that a conversion was asked for with."""
    targets = [("--target", target) for target in request.targets]
    recipe = [("--recipe", str(request.recipe))] if request.recipe else []
    return _command(request, [*targets, *_options(request), *recipe], str(request.out))


def replay(request: Request, release: Release) -> str:
    """The command that makes the same release from its recipe, beside it."""
    digest = release.variants[0].file("recipe").digest
    recipe = request.out / "blobs" / "sha256" / digest.removeprefix("sha256:")
    return _command(
        request, [*_options(request), ("--recipe", str(recipe))], f"{request.out}-again"
    )


def recipe_text(parts: "Parts") -> str:
    """The recipe as it is in the release; empty where it is too long to read."""
    encoded = parts.recipe.encode()
    return encoded.decode() if len(encoded) <= _MOST_RECIPE else ""


def _limits(limits: Limits) -> Iterator[tuple[str, str, str]]:
    """The limits that are set: the option, the bound with its unit, and of what it is."""
    sizes = (
        ("--max-size", limits.max_model_bytes, "a file at most"),
        ("--max-memory", limits.max_memory_bytes, "of memory at most"),
    )
    times = (
        ("--max-start", limits.max_start_ms, "until it is ready at most"),
        ("--max-latency", limits.max_latency_ms, "an inference at most"),
    )
    yield from ((option, f"{bound}B", what) for option, bound, what in sizes if bound)
    yield from ((option, f"{bound:g}ms", what) for option, bound, what in times if bound)


def _has_npu(request: Request) -> bool:
    return request.recipe is not None or any(t.startswith("npu") for t in request.targets)


def _options(request: Request) -> list[tuple[str, str]]:
    pairs = [
        ("--metric", request.metric),
        ("--max-drop", str(request.max_drop)),
        ("--confidence", str(request.confidence)),
        ("--min-speedup", str(request.min_speedup)),
        *([("--min-offload", str(request.min_offload))] if _has_npu(request) else []),
        *(("--option", f"{name}={value}") for name, value in sorted(request.options.items())),
        *((option, text) for option, text, _ in _limits(request.limits)),
        *(("--dim", f"{axis}={size}") for axis, size in sorted(request.dims.items())),
        *(("--runtime", runtime) for runtime in request.runtimes),
    ]
    if request.pipeline:
        pairs.insert(0, ("--pipeline", str(request.pipeline)))
    if request.accept_undecided:
        pairs.append(("--accept-undecided", request.accept_undecided))
    if request.fuse:
        pairs.append(("--fuse", ""))
    if request.executor != "local":
        pairs.append(("--executor", request.executor))
    return pairs


def _command(request: Request, options: Sequence[tuple[str, str]], out: str) -> str:
    pairs = [
        ("edgeml convert", str(request.model)),
        ("--calibration", request.calibration),
        ("--evaluate", request.evaluation),
        *options,
        ("--name", request.name),
        ("--version", request.version),
        ("--out", out),
    ]
    return " \\\n  ".join(
        f"{name} {shlex.quote(value)}" if value else name for name, value in pairs
    )
