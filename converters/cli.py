"""The commands `edgeml convert` and `edgeml inspect`.

Results go to standard output, progress and remarks to standard error; `--json` prints one
object. Exit codes are those of `edgeml.errors`: 4 means that a target's answer is float32 only
because a gate is undecided, 5 that it is for want of a toolchain, though the release with the float
variant was written.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def convert(  # noqa: PLR0917 -- typer reads options from the signature
    model: Annotated[Path, typer.Argument(help="The trained model: ONNX, or float .tflite.")],
    calibration: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Samples that set the int8 ranges: .npz with x (for several inputs an array "
            "each, named like it), a folder of images, or module:function.",
        ),
    ],
    evaluate: Annotated[
        str,
        typer.Option(
            metavar="DATA", help="Other samples, labelled, that judge: .npz with x and y, ..."
        ),
    ],
    name: Annotated[str, typer.Option(help="The model's name, for instance digits.")],
    version: Annotated[str, typer.Option(help="The release's version, for instance 1.0.0.")],
    out: Annotated[Path, typer.Option(help="The folder that the release becomes.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A target (cpu-x86-64-vnni, npu-ethos-u55-128, ...), or the group cpu, npu or "
            "fpga; may be given more than once."
        ),
    ] = None,
    pipeline: Annotated[
        Path | None, typer.Option(help="Pre- and post-processing, a TOML file.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Race on this runtime only; may be given more than once."),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="What is measured: top1, topk:K, f1, auc, map, map50, exact, char_accuracy, "
            "cosine, or module:attribute."
        ),
    ] = "top1",
    max_drop: Annotated[
        float, typer.Option(help="The drop of the metric that int8 may cost; 0.01 is one point.")
    ] = 0.01,
    confidence: Annotated[float, typer.Option(help="Of the gates' answers.")] = 0.95,
    min_speedup: Annotated[
        float, typer.Option(help="How many times faster than float32 int8 must be.")
    ] = 1.1,
    min_offload: Annotated[
        float,
        typer.Option(help="The least share of operators, and of MACs, that an NPU must run."),
    ] = 0.95,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Tell the compilers of NPU and FPGA targets something of their own (`edgeml "
            "targets TARGET` names what); may be given more than once.",
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Of FPGAs: engine (multipliers that take one layer after the other), dataflow "
            "(the whole net unrolled into logic), or auto: dataflow where it fits.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Of FPGAs, how far to go: rtl (Verilog, proven), netlist (synthesised, and "
            "proven), or bitstream. Finished steps are kept: the same command goes on from there.",
        ),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of a variant's file at most, such as 4MB.")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the inferring process at most, such as 200MB."),
    ] = None,
    max_start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Until a variant is ready at most, such as 500ms."),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of the median inference at most, such as 20ms."),
    ] = None,
    accept_undecided: Annotated[
        str, typer.Option(metavar="REASON", help="Deploy what only undecided gates keep out.")
    ] = "",
    dim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Fix a free axis of the model: height=320, or x:2=320 for axis 2 of the input "
            "x; may be given more than once.",
        ),
    ] = None,
    fuse: Annotated[
        bool,
        typer.Option(
            "--fuse",
            help="Take what the pipeline computes after its resize (colour order, scale, layout, "
            "softmax) into the model, which then takes uint8 images.",
        ),
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="Replay this recipe instead of deciding anew.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where candidates run: local, or an existing Ray cluster: ray.")
    ] = "local",
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why the winner won, and all that was tried.")
    ] = False,
    as_json: _JSON = False,
) -> None:
    """Convert a model for its targets and prove what was lost.

    The model is quantized in several ways, each is executed on each runtime installed here,
    and the fastest that keeps the metric within MAX_DROP, at CONFIDENCE, becomes the variant;
    where none does, float32 on its fastest runtime. For an NPU or FPGA its compiler makes the
    variant, which is executed as far as that is possible here, and says how far. A target that
    fails leaves the others standing (exit code 10). Ctrl-C keeps what is finished: the same
    command goes on from there.
    """
    from converters.axes import parse_dims
    from converters.conversion import run
    from converters.progress import Terminal
    from converters.quantities import parse_bytes, parse_ms
    from converters.request import Request, parse_options
    from converters.show import conversion_text
    from hardware.profiles import Limits

    named = {"architecture": architecture, "until": until}
    request = Request(
        model=model,
        calibration=calibration,
        evaluation=evaluate,
        name=name,
        version=version,
        out=out,
        targets=tuple(target or ()),
        pipeline=pipeline,
        metric=metric,
        max_drop=max_drop,
        confidence=confidence,
        min_speedup=min_speedup,
        min_offload=min_offload,
        options=parse_options(option or ()) | {n: v for n, v in named.items() if v},
        limits=Limits(
            max_model_bytes=parse_bytes(max_size) if max_size else None,
            max_memory_bytes=parse_bytes(max_memory) if max_memory else None,
            max_start_ms=parse_ms(max_start) if max_start else None,
            max_latency_ms=parse_ms(max_latency) if max_latency else None,
        ),
        accept_undecided=accept_undecided,
        recipe=recipe,
        dims=parse_dims(dim or ()),
        fuse=fuse,
        runtimes=tuple(runtime or ()),
        executor=executor,
    )
    with Terminal().running() as progress:
        result = run(request, progress)
    text = conversion_text(result, explain=explain)
    typer.echo(_json(result.summary()) if as_json else text)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def inspect(
    path: Annotated[Path, typer.Argument(help="A release folder, an ONNX or a .tflite file.")],
    files: Annotated[
        Path | None,
        typer.Option(
            help="Write a release's bitstreams, Verilog and reports into this folder instead."
        ),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Show what is in a release or in a model."""
    from converters.show import describe, description_text, write_files

    if files is not None:
        written = [str(one) for one in write_files(path, files)]
        typer.echo(_json({"written": written}) if as_json else "\n".join(written))
        return
    description = describe(path)
    typer.echo(_json(description) if as_json else description_text(description))


def targets(
    target: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET...]", help="Targets, or the group cpu, npu or fpga."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="An ONNX model: all ways to build it for FPGA targets, estimated."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="With --model, as in `edgeml convert`: share=0.5, latency_ms=10 ...",
        ),
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="With a model, as in `edgeml convert`."),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Show the targets: what can be made here, and how far it is checked by executing it.

    Of one target alone, what it runs: its operators and their limits. With a model, what an FPGA
    could run it on, before anything is made: latency, LUTs, DSPs and block RAM of each way, which
    no other one beats, and which would be built.
    """
    from converters.targets import details, details_text, is_one, listing, listing_text

    names = target or []
    if (option or dim) and not model:
        from edgeml.errors import UserError

        raise UserError(
            "--option and --dim say nothing without --model.",
            why="They change how a model would be built; without one there is nothing to build.",
            fix="Give the model: edgeml targets fpga --model MODEL --option NAME=VALUE.",
        )
    if model:
        from converters.axes import parse_dims
        from converters.request import parse_options
        from converters.weighing import weigh, weighed_text

        weighed = weigh(
            names or ["fpga"], model, parse_options(option or ()), parse_dims(dim or ())
        )
        told = {"weighed": msgspec.to_builtins(weighed)}
        typer.echo(_json(told) if as_json else weighed_text(weighed))
        return
    if is_one(names):
        typer.echo(_json(details(names[0])) if as_json else details_text(names[0]))
        return
    found = listing(names)
    body = {"targets": msgspec.to_builtins(found)}
    typer.echo(_json(body) if as_json else listing_text(found))


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2)
