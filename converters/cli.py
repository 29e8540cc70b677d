"""The commands `edgeml convert` and `edgeml inspect`.

Results go to standard output, progress and remarks to standard error; `--json` prints one
object. Exit codes are those of `edgeml.errors`: 4 means that an undecided accuracy gate kept
an int8 candidate out, though the release with the float variant was written.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def convert(  # noqa: PLR0917 -- typer reads options from the signature
    model: Annotated[Path, typer.Argument(help="The trained model, an ONNX file.")],
    calibration: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Samples that set the int8 ranges: .npz with x, a folder of images, or "
            "module:function.",
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
        typer.Option(help="A target, or the group cpu; may be given more than once."),
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
    accept_undecided: Annotated[
        str, typer.Option(metavar="REASON", help="Deploy int8 on an undecided accuracy gate.")
    ] = "",
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
    where none does, float32 on its fastest runtime. Ctrl-C keeps what is finished: the same
    command goes on from there.
    """
    from converters.conversion import run
    from converters.progress import Terminal
    from converters.request import Request
    from converters.show import conversion_text

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
        accept_undecided=accept_undecided,
        recipe=recipe,
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
    path: Annotated[Path, typer.Argument(help="A release folder or an ONNX file.")],
    as_json: _JSON = False,
) -> None:
    """Show what is in a release or in a model."""
    from converters.show import describe, description_text

    description = describe(path)
    typer.echo(_json(description) if as_json else description_text(description))


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2)
