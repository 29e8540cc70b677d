"""What `edgeml convert` and `edgeml inspect` print: releases and models, for people or as JSON."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import CompileReport, Evidence, Verdict
from cloud_sync.release import Layout, Release, Variant
from converters.model import load_model
from converters.recipe import FLOAT
from converters.report.compiled import expected
from converters.result import ConversionResult, Loss, VariantResult, alike
from converters.weighing import table
from edgeml.errors import ModelError, UserError


def conversion_text(result: ConversionResult, *, explain: bool = False) -> str:
    """A finished conversion in a few lines; `explain` adds why each variant is there."""
    lines = [f"{result.model}:{result.version}  {result.release}", f"in {result.path}", ""]
    head = (
        "target",
        "runtime",
        "precision",
        "KB",
        "accuracy",
        "p50 ms",
        "p95 ms",
        "memory MB",
        "checked",
        "gates",
    )
    lines += _table(head, [_row(variant) for variant in result.variants])
    if any(variant.latency is None for variant in result.variants):
        lines += ["-: not measured; nothing here runs as that device does"]
    said = ((v.target, line) for v in result.variants for line in _compiled(v.compiled))
    lines += [f"{', '.join(targets)}: {line}" for line, targets in alike(said)]
    if result.float_kept_because:
        given = next((v.precision for v in result.variants if not v.quantization), FLOAT)
        lines += ["", f"{given} is the answer for {result.float_kept_because}"]
    failed = {failure.target for failure in result.failed}
    doubted = ((c.target, c.remedy) for c in result.undecided if c.target not in failed)
    lines += [f"undecided for {', '.join(targets)}: {text}" for text, targets in alike(doubted)]
    if explain:
        lines += ["", "why each is there, best first:"]
        lines += [f"  {v.target} {v.precision} on {v.runtime}: {v.why}" for v in result.variants]
        lines += [
            f"  {v.target}:\n{table(v.compiled.alternatives)}"
            for v in result.variants
            if v.compiled and v.compiled.alternatives
        ]
        lines += ["left out:"] if result.left_out else []
        lines += [f"  {c.target} {c.precision} {c.runtime}: {c.reason}" for c in result.left_out]
    told = [
        loss
        for loss in result.losses
        if explain or (loss.gate.result is Verdict.FAIL and loss.target not in failed)
    ]
    lines += ["", "where accuracy is lost:"] if told else []
    lines += [f"  {_loss(loss)}" for loss in told]
    lines += [f"warning: {warning}" for warning in result.warnings]
    skipped = alike((skipped.target, skipped.reason) for skipped in result.skipped)
    lines += [f"left out: {', '.join(targets)}: {reason}" for reason, targets in skipped]
    lines += [f"failed: {failure.target}: {failure}" for failure in result.failed]
    lines += ["", f"report: {result.path / 'report.html'}"]
    if any(variant.compiled for variant in result.variants):
        lines.append(f"what the compilers made: edgeml inspect {result.path} --files FOLDER")
    if (logs := result.path / "logs").is_dir():
        lines.append(f"compilers' logs: {logs}")
    return "\n".join(lines)


def describe(path: Path) -> dict[str, Any]:
    """Everything there is to say about a release folder or an ONNX file.

    Raises:
        ReleaseError: the folder is no release or damaged.
        ModelError: the file is no ONNX model, or there is nothing.
    """
    if path.is_dir():
        layout = Layout.open(path)
        return {
            "kind": "release folder",
            "path": str(path),
            "releases": [_release(layout, release) for release in layout.releases()],
        }
    if not path.exists():
        raise ModelError(f"There is nothing at {path}.", fix="Name a release folder or .onnx file.")
    model = load_model(path)
    return {
        "kind": "model",
        "path": str(path),
        "digest": model.digest,
        "bytes": len(model.data),
        "format": model.format,
        "opset": model.opset,
        "inputs": msgspec.to_builtins(model.inputs),
        "outputs": msgspec.to_builtins(model.outputs),
        "parameters": model.parameters,
        "operators": model.operators,
    }


def write_files(path: Path, folder: Path) -> list[Path]:
    """Write what is beside the evidence of a release: reports, bitstreams, Verilog.

    Raises:
        ReleaseError: the release cannot be read.
        UserError: there is no release, or the folder has files already.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no release folder.", fix="Name the folder that convert wrote.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} has files already.", fix="Name another folder.")
    layout = Layout.open(path)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for release in layout.releases():
        for name, content in sorted(layout.documents(release.digest).items()):
            (folder / name).write_bytes(content)
            written.append(folder / name)
    return written


def description_text(body: dict[str, Any]) -> str:
    """`describe`'s answer for people."""
    if body["kind"] == "model":
        return "\n".join(_model_lines(body))
    return "\n\n".join("\n".join(_release_lines(release)) for release in body["releases"])


def _compiled(report: CompileReport | None) -> Iterator[str]:
    """What a compiler said: what stays on the CPU, its estimates, called so, and its remarks."""
    if report is None:
        return
    for node in report.placement.left if report.placement else ():
        yield f"on the CPU: {node.node} ({node.operator}): {node.reason}"
    if report.estimates:
        yield expected(report)
    yield from report.remarks


def _loss(loss: Loss) -> str:
    where = f", {loss.where}" if loss.where else ""
    return f"{loss.kind}{where}: {loss.gate.result}. {loss.gate.reason}"


def _row(variant: VariantResult) -> tuple[str, ...]:
    accuracy = variant.accuracy
    return (
        variant.target,
        variant.runtime,
        variant.precision,
        f"{variant.bytes / 1000:.0f}",
        f"{accuracy.value:.4f} ({accuracy.low:.4f}-{accuracy.high:.4f})",
        f"{variant.latency.p50_ms:.3f}" if variant.latency else "-",
        f"{variant.latency.p95_ms:.3f}" if variant.latency else "-",
        f"{variant.memory_bytes / 1e6:.0f}" if variant.memory_bytes else "-",
        variant.verification,
        ", ".join(f"{gate.name} {gate.result}" for gate in variant.gates) or "the baseline",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    columns = list(zip(head, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _release(layout: Layout, release: Release) -> dict[str, Any]:
    evidence = layout.evidence(release.digest)
    return {
        "model": release.model,
        "version": release.version,
        "digest": release.digest,
        "variants": [_variant(layout, v, evidence) for v in release.variants],
        "left_out": [
            _evidence(record) | {"target": record.target}
            for record in evidence
            if not record.variant
        ],
    }


def _variant(layout: Layout, variant: Variant, evidence: Sequence[Evidence]) -> dict[str, Any]:
    return {
        "target": variant.target,
        "rank": variant.rank,
        "digest": variant.digest,
        "format": variant.format,
        "runtime": ", ".join(runtime.name for runtime in variant.requires.runtimes),
        "precision": variant.precision,
        "quantization": variant.quantization,
        "verification": variant.verification,
        "requires": msgspec.to_builtins(variant.requires),
        "bytes": variant.total_bytes,
        "files": {
            file.role: {
                "path": str(layout.blobs.path(file.digest)),
                "name": file.path,
                "bytes": file.size,
            }
            for file in variant.files
        },
        "evidence": [_evidence(record) for record in evidence if record.variant == variant.digest],
    }


def _evidence(record: Evidence) -> dict[str, Any]:
    return {
        "stage": record.stage,
        "runtime": record.runtime,
        "precision": record.conditions.software.get("precision", ""),
        "quantization": record.conditions.software.get("quantization", ""),
        "accuracy": msgspec.to_builtins(record.accuracy),
        "latency": msgspec.to_builtins(record.latency),
        "memory_bytes": record.memory_bytes,
        "load_ms": record.load_ms,
        "conditions": msgspec.to_builtins(record.conditions),
        "gates": msgspec.to_builtins(record.gates),
        "accepted": record.accepted,
        "compiled": msgspec.to_builtins(record.compiled),
    }


def _release_lines(release: dict[str, Any]) -> list[str]:
    lines = [f"{release['model']}:{release['version']}  {release['digest']}"]
    for variant in release["variants"]:
        model = variant["files"]["model"]
        lines += [
            "",
            f"{variant['target']}  rank {variant['rank']}  {_kind(variant)}",
            f"  {variant['digest']}  {variant['verification']}",
            f"  model {model['bytes']} bytes, all files {variant['bytes']} bytes: "
            + ", ".join(sorted(file["name"] for file in variant["files"].values())),
            *_evidence_lines(variant["evidence"]),
        ]
    for record in release["left_out"]:
        what = _kind(record)
        lines += ["", f"left out for {record['target']}: {what}", *_evidence_lines([record])]
    return lines


def _kind(made: dict[str, Any]) -> str:
    """Precision, quantization and runtime of a variant or a candidate."""
    words = [made["precision"], made["quantization"]]
    return " ".join(filter(None, [*words, made["runtime"] and f"on {made['runtime']}"]))


def _evidence_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for record in records:
        accuracy, latency = record["accuracy"], record["latency"]
        if accuracy:
            lines.append(
                f"  {accuracy['metric']} {accuracy['value']:.4f} "
                f"({accuracy['low']:.4f}-{accuracy['high']:.4f}, {accuracy['n']} samples)"
            )
        if latency:
            lines.append(
                f"  latency p50 {latency['p50_ms']:.3f} ms, p95 {latency['p95_ms']:.3f} ms, "
                f"p99 {latency['p99_ms']:.3f} ms on {record['conditions']['instruction_set']}"
            )
        lines += [
            f"  {gate['name']} {gate['result']}: {gate['reason']}" for gate in record["gates"]
        ]
        lines += [f"  accepted: {record['accepted']}"] if record["accepted"] else []
        compiled = msgspec.convert(record["compiled"], CompileReport | None)
        lines += [f"  {line}" for line in _compiled(compiled)]
    return lines


def _model_lines(model: dict[str, Any]) -> list[str]:
    def tensors(specs: Sequence[dict[str, Any]]) -> str:
        return ", ".join(
            f"{spec['name']} {spec['dtype']}[{', '.join(map(str, spec['shape']))}]"
            for spec in specs
        )

    operators = ", ".join(f"{name} {count}" for name, count in model["operators"].items())
    return [
        f"{model['path']}  {model['digest']}",
        f"  {model['bytes']} bytes, {_version(model)}, {model['parameters']} parameters",
        f"  inputs:  {tensors(model['inputs'])}",
        f"  outputs: {tensors(model['outputs'])}",
        f"  operators: {operators}",
    ]


def _version(model: dict[str, Any]) -> str:
    return f"opset {model['opset']}" if model["opset"] else str(model["format"])
