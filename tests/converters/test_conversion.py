"""The whole conversion, with real models executed: what is in the release, and what is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper

from cloud_sync.evidence import Verdict
from cloud_sync.golden import decode_golden, decode_recorded, matching
from cloud_sync.release import Layout, resolve
from converters.conversion import convert
from converters.methods import prepare, quantize
from converters.recipe import float16, parse_recipe
from converters.result import ConversionResult
from converters.show import conversion_text
from edgeml.errors import (
    ExitCode,
    GateFailed,
    ModelError,
    TargetError,
    UserError,
    exit_code_of,
)
from hardware.pipeline import parse
from hardware.probes import instruction_set, probe
from hardware.profiles import Limits
from hardware.runtimes import open_session

from .conftest import quarters, save_data, write_convnet, write_model

HERE = probe()
FOREIGN = "cpu-arm64" if HERE.architecture == "amd64" else "cpu-x86-64"
Data = tuple[Path, Path]


def run(model: Path, data: Data, out: Path, **more: Any) -> ConversionResult:
    """Convert for this machine; any speed will do, since a test's machine is noisy."""
    options = {
        "targets": ("cpu",),
        "min_speedup": 0.0,
        "name": "toy",
        "version": "1.0.0",
        "runtimes": ("onnxruntime",),
    } | more
    return convert(model, calibration=data[0], evaluation=data[1], out=out, **options)


def findings(result: ConversionResult) -> dict[str, Any]:
    """The document of the evidence about the conversion as a whole."""
    blobs = Layout.open(result.path).blobs
    manifest = json.loads(blobs.path(result.evidence).read_bytes())
    [layer] = [
        each for each in manifest["layers"] if "conversion.json" in each["annotations"].values()
    ]
    assert layer["mediaType"] == "application/json"
    return dict(json.loads(blobs.path(layer["digest"]).read_bytes()))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    """What the fixtures `convnet` and `quarters_data` become; no test writes into its folder."""
    folder = tmp_path_factory.mktemp("converted")
    model, data = write_convnet(folder / "convnet.onnx"), save_data(folder, quarters)
    return run(model, data, folder / "out")


@pytest.fixture
def copied(converted: ConversionResult, tmp_path: Path) -> ConversionResult:
    """The same in a folder of the test's own."""
    out = shutil.copytree(converted.path, tmp_path / "out")
    return msgspec.structs.replace(converted, path=out)


def test_each_target_gets_the_float_model_and_an_int8_one_that_passed(
    converted: ConversionResult,
) -> None:
    assert converted.exit_code is ExitCode.DONE
    best = {v.precision for v in converted.variants if v.rank == 0}
    assert (converted.float_kept_because is None) == (best == {"int8"})
    targets = {variant.target for variant in converted.variants}
    for target in targets:
        mine = [v for v in converted.variants if v.target == target]
        assert [v.rank for v in mine] == list(range(len(mine)))
        assert {v.precision for v in mine} == {"int8", "float32"}
        # By the times of the last race, the fastest is first.
        assert [v.latency.p50_ms for v in mine] == sorted(v.latency.p50_ms for v in mine)
    for variant in converted.variants:
        assert variant.file.stat().st_size == variant.bytes
        assert variant.verification in {"artifact-executed", "cpu-proxy"}
        assert variant.memory_bytes > 10 << 20
        assert variant.accuracy.value == 1.0
        passed = {gate.name: gate.result for gate in variant.gates}
        wanted = {"accuracy": Verdict.PASS, "speedup": Verdict.PASS}
        assert passed == (wanted if variant.precision == "int8" else {})


def test_this_machine_resolves_the_release_to_the_fastest_variant(
    converted: ConversionResult,
) -> None:
    release = Layout.open(converted.path).release()
    chosen = resolve(release, HERE).variant
    assert chosen is not None
    mine = [v for v in converted.variants if v.target == chosen.target]
    assert chosen.digest == min(mine, key=lambda v: v.latency.p50_ms).digest


def test_a_model_of_float16_weights_is_not_called_float32(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(quantize(prepare(convnet.read_bytes()), None, float16()).data)
    result = run(half, quarters_data, tmp_path / "out")
    given = [v for v in result.variants if v.file.read_bytes() == half.read_bytes()]
    assert given
    assert {(v.precision, v.quantization) for v in given} == {("float16", "")}
    assert {v.precision for v in result.variants} <= {"float16", "int8"}
    manifest = Layout.open(result.path).release()
    assert "float32" not in {variant.precision for variant in manifest.variants}
    assert "float32 on onnxruntime" not in (result.path / "report.html").read_text("utf-8")
    assert "float32 is the answer" not in conversion_text(result)


def test_each_runtime_here_gets_variants_of_its_own(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    wanted = ("onnxruntime", "openvino")
    result = run(convnet, quarters_data, tmp_path / "out", runtimes=wanted)
    release = Layout.open(result.path).release()
    for variant in release.variants:
        [runtime] = variant.requires.runtimes
        recordings = decode_recorded(
            Layout.open(result.path).blobs.path(variant.file("recorded").digest).read_bytes()
        )
        assert {recorded.runtime for recorded in recordings} == {runtime.name}
    assert {v.runtime for v in result.variants if v.precision == "float32"} == set(wanted)
    for variant in result.variants:
        if variant.precision == "float32" and variant.runtime == "openvino":
            assert [gate.name for gate in variant.gates] == ["conversion"]


def test_targets_of_the_group_that_cannot_run_here_are_named(converted: ConversionResult) -> None:
    assert FOREIGN in {skipped.target for skipped in converted.skipped}
    assert FOREIGN not in {variant.target for variant in converted.variants}


def test_the_recorded_outputs_are_bit_equal_when_the_variant_runs_again(
    converted: ConversionResult,
) -> None:
    layout = Layout.open(converted.path)
    for variant in layout.release().variants:
        blobs = {role: layout.blobs.path(variant.file(role).digest) for role in
                 ("model", "golden", "recorded")}  # fmt: skip
        golden = decode_golden(blobs["golden"].read_bytes())
        recordings = decode_recorded(blobs["recorded"].read_bytes())
        version = next(r.version for r in HERE.runtimes if r.name == "onnxruntime")
        recorded = matching(recordings, "onnxruntime", version, instruction_set(HERE))
        assert recorded is not None
        assert recorded.tolerance == 0
        assert recorded.other_tolerance > 0
        assert golden.labels is not None
        assert len(golden.inputs) == len(golden.labels) == 32
        session = open_session("onnxruntime", blobs["model"])
        again = [session.run([sample[None]])[0].copy() for sample in golden.inputs]
        np.testing.assert_array_equal(np.concatenate(again), recorded.outputs[0])
        if variant.precision == "float32":
            np.testing.assert_array_equal(golden.outputs[0], recorded.outputs[0])


def test_the_evidence_is_an_artifact_of_its_own_about_the_release(
    converted: ConversionResult,
) -> None:
    records = Layout.open(converted.path).evidence(converted.release)
    assert {r.variant for r in records} == {v.digest for v in converted.variants}
    for record in records:
        assert (record.stage, record.runtime, record.conditions.threads) == (
            "convert", "onnxruntime", 1,
        )  # fmt: skip
        assert record.latency is not None
        assert 0 < record.latency.p50_ms <= record.latency.p95_ms <= record.latency.p99_ms
        assert record.conditions.instruction_set == instruction_set(HERE)
        assert record.load_ms > 0
        assert record.memory_bytes > 0


def test_what_was_found_on_the_way_is_a_document_of_the_evidence(
    converted: ConversionResult,
) -> None:
    found = findings(converted)
    assert found["diagnosis"]["calibration"]["samples"] == 32
    assert found["losses"][0]["kind"] == "pre-processing"
    assert FOREIGN in {skipped["target"] for skipped in found["skipped"]}
    assert converted.calibration is not None


def test_a_static_file_has_its_calibration_warned_about_and_its_nodes_ranked(
    tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", strides=[6, 6]),
        helper.make_node("Flatten", ["c2"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "d"], ["logits"], name="dense"),
    ]
    weights = {
        "w1": np.abs(rng.normal(0.3, 0.1, (8, 1, 3, 3))),
        "w2": np.full((1, 8, 6, 6), 1 / 288),
        "d": np.eye(4),
    }
    model = write_model(tmp_path / "net.onnx", nodes, weights, (1, 12, 12))
    result = run(model, make_quarters(calibration=8), tmp_path / "out")
    found = findings(result)["diagnosis"]
    assert found["move"].startswith("static")
    losses = found["sensitivity"]
    assert {"conv1", "conv2"} <= {loss["name"] for loss in losses}
    assert losses == sorted(losses, key=lambda loss: (loss["sqnr_db"], loss["name"]))
    assert "Calibration: Only 8 different samples set the ranges." in result.warnings
    report = (result.path / "report.html").read_text()
    assert "Only 8 different samples set the ranges." in report
    assert "Sensitive nodes of static" in report


def test_shared_files_are_one_blob(converted: ConversionResult) -> None:
    variants = Layout.open(converted.path).release().variants
    for role in ("recipe", "golden"):
        assert len({variant.file(role).digest for variant in variants}) == 1


def test_the_same_decisions_give_the_same_digest_and_evidence_of_their_own(
    converted: ConversionResult, convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    recipe = converted.variants[0].recipe
    elsewhere = run(convnet, quarters_data, tmp_path / "again", targets=(), recipe=recipe)
    assert elsewhere.release == converted.release
    assert elsewhere.evidence != converted.evidence


def test_converting_into_the_same_folder_adds_evidence_and_changes_nothing_else(
    copied: ConversionResult, convnet: Path, quarters_data: Data
) -> None:
    again = run(convnet, quarters_data, copied.path)
    assert again.release == copied.release
    layout = Layout.open(copied.path)
    assert set(layout.evidence_digests(again.release)) == {copied.evidence, again.evidence}


def test_a_candidate_that_loses_accuracy_is_left_out_and_the_answer_is_float(
    fragile: Path, fragile_data: Data, tmp_path: Path
) -> None:
    result = run(fragile, fragile_data, tmp_path / "out")
    # Halves hold what eight bits cannot: whatever was found keeps the accuracy.
    assert all(v.accuracy.value > 0.98 for v in result.variants)
    made = {v.quantization for v in Layout.open(result.path).release().variants}
    assert not {name for name in made if name.startswith("static")}


def test_a_candidate_that_is_not_fast_enough_is_left_out(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    result = run(convnet, quarters_data, tmp_path / "out", min_speedup=1000.0)
    assert result.exit_code is ExitCode.DONE
    assert {v.precision for v in result.variants} == {"float32"}
    assert "not shown to be faster" in str(result.float_kept_because)


def test_too_few_samples_leave_the_gate_undecided_and_the_exit_code_says_so(
    convnet: Path, tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    data = make_quarters(evaluation=60)
    doubtful = run(convnet, data, tmp_path / "out")
    assert doubtful.exit_code is ExitCode.GATE_UNDECIDED
    assert {v.precision for v in doubtful.variants} == {"float32"}
    gate = doubtful.left_out[0].gates[0]
    assert (gate.result, gate.n) == (Verdict.UNDECIDED, 60)
    assert 290 < (gate.n_needed or 0) < 310
    assert Layout.open(doubtful.path).release().digest == doubtful.release


def test_an_accepted_doubt_is_deployed_recorded_and_replayed(
    convnet: Path, tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    data = make_quarters(evaluation=60)
    accepted = run(convnet, data, tmp_path / "out", accept_undecided="pilot on one line")
    assert accepted.exit_code is ExitCode.DONE
    assert {v.precision for v in accepted.variants} == {"float32", "int8"}
    recipe = accepted.variants[0].recipe
    reasons = {v.accepted for v in parse_recipe(recipe.read_bytes()).variants}
    assert reasons == {"", "pilot on one line"}
    records = Layout.open(accepted.path).evidence(accepted.release)
    assert {r.accepted for r in records} == {"", "pilot on one line"}
    assert "“pilot on one line”" in (accepted.path / "report.html").read_text()
    replayed = run(
        convnet, data, tmp_path / "replayed", targets=(), recipe=recipe, min_speedup=1000.0
    )
    assert replayed.release == accepted.release
    assert replayed.exit_code is ExitCode.DONE


def test_a_replay_takes_speed_from_the_recipe_and_nothing_else(
    converted: ConversionResult, convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    recipe = converted.variants[0].recipe
    with pytest.raises(GateFailed, match="does not pass its gates here") as small:
        run(
            convnet,
            quarters_data,
            tmp_path / "small",
            targets=(),
            recipe=recipe,
            limits=Limits(max_model_bytes=100),
        )
    assert exit_code_of(small.value) is ExitCode.GATE_FAILED
    out = tmp_path / "strict"
    with pytest.raises(GateFailed, match="Its accuracy is undecided") as strict:
        run(convnet, quarters_data, out, targets=(), recipe=recipe, max_drop=0.0001)
    assert exit_code_of(strict.value) is ExitCode.GATE_UNDECIDED
    assert not out.exists()


def test_a_limit_that_only_int8_keeps_leaves_float_out(quarters_data: Data, tmp_path: Path) -> None:
    large = write_convnet(tmp_path / "large.onnx", channels=256)
    whole = large.stat().st_size
    limits = Limits(max_model_bytes=whole - 1, max_memory_bytes=1 << 40)
    result = run(large, quarters_data, tmp_path / "out", limits=limits)
    assert {v.precision for v in result.variants} == {"int8"}
    for variant in result.variants:
        size, memory = [g for g in variant.gates if g.name in {"size", "memory"}]
        assert (size.result, memory.result) == (Verdict.PASS, Verdict.PASS)
        assert (size.baseline, size.value, size.bound) == (whole, variant.bytes, whole - 1)
    assert {c.precision for c in result.left_out} == {"float32"}
    assert "its file is too large" in result.left_out[0].reason
    assert result.exit_code is ExitCode.DONE
    assert result.float_kept_because is None


def test_where_not_even_float_keeps_the_limits_nothing_is_written_and_the_nearest_is_named(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    with pytest.raises(GateFailed, match="not even float32") as caught:
        run(convnet, quarters_data, tmp_path / "out", limits=Limits(max_model_bytes=100))
    assert exit_code_of(caught.value) is ExitCode.GATE_FAILED
    assert "but at most 100 bytes are allowed" in str(caught.value)
    assert "Raise --max-size" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_refused_with_other_data_or_another_model(
    converted: ConversionResult, convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    replay = {"targets": (), "recipe": converted.variants[0].recipe}
    swapped = tmp_path / "other.npz"
    np.savez(swapped, x=np.zeros((3, 1, 12, 12), np.float32))
    with pytest.raises(ModelError, match="recipe is for another calibration"):
        run(convnet, (swapped, quarters_data[1]), tmp_path / "o", **replay)
    smaller = write_convnet(tmp_path / "smaller.onnx", channels=8)
    with pytest.raises(ModelError, match="recipe is for another model"):
        run(smaller, quarters_data, tmp_path / "o", **replay)


def test_with_a_pipeline_golden_inputs_are_region_images(
    convnet: Path, pipeline_file: Path, tmp_path: Path, make_images: Callable[..., Data]
) -> None:
    result = run(convnet, make_images(), tmp_path / "out", pipeline=pipeline_file)
    layout = Layout.open(result.path)
    variant = layout.release().variants[0]
    text = layout.blobs.path(variant.file("pipeline").digest).read_bytes()
    assert text == pipeline_file.read_bytes()
    golden = decode_golden(layout.blobs.path(variant.file("golden").digest).read_bytes())
    assert (golden.inputs.dtype, golden.inputs.shape[1:]) == (np.uint8, (24, 24))
    recorded = decode_recorded(layout.blobs.path(variant.file("recorded").digest).read_bytes())[0]
    session = open_session("onnxruntime", layout.blobs.path(variant.file("model").digest))
    runner = parse(text).runner(session.inputs)
    tensors = runner.prepare(golden.inputs[5])
    assert tensors is not None
    np.testing.assert_array_equal(session.run(tensors)[0][0], recorded.outputs[0][5])


def test_a_pipeline_that_does_not_fit_the_model_is_an_error(
    convnet: Path, pipeline_file: Path, tmp_path: Path, make_images: Callable[..., Data]
) -> None:
    pipeline_file.write_text(pipeline_file.read_text().replace("width = 12", "width = 13"))
    with pytest.raises(ModelError, match="pipeline does not fit the model"):
        run(convnet, make_images(), tmp_path / "out", pipeline=pipeline_file)


def test_labels_out_of_range_are_an_error(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    x = np.load(quarters_data[1])["x"]
    np.savez(quarters_data[1], x=x, y=np.full(len(x), 4))
    with pytest.raises(ModelError, match="out of range"):
        run(convnet, quarters_data, tmp_path / "out")


def test_labels_that_are_not_the_models_own_are_warned_about(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    x = np.load(quarters_data[1])["x"]
    np.savez(quarters_data[1], x=x, y=np.random.default_rng(0).integers(0, 4, len(x)))
    result = run(convnet, quarters_data, tmp_path / "out")
    assert "better than guessing (25.0 %)" in result.warnings[0]


def test_calibration_data_that_overlap_with_evaluation_data_are_refused(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="400 of 400 calibration samples"):
        run(convnet, (quarters_data[1], quarters_data[1]), tmp_path / "out")


def test_a_target_that_cannot_be_executed_here_is_an_error_when_it_is_named(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match=FOREIGN):
        run(convnet, quarters_data, tmp_path / "out", targets=(FOREIGN,))


@pytest.mark.parametrize("kind", ["file", "other content", "other release"])
def test_an_output_folder_that_holds_something_else_is_refused_before_any_work(
    convnet: Path, quarters_data: Data, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "other content":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    else:
        Layout.create(out)
    with pytest.raises(UserError, match=r"not a folder|something else"):
        run(convnet, quarters_data, out)


def test_another_release_of_the_same_name_and_version_is_not_overwritten(
    copied: ConversionResult, convnet: Path, quarters_data: Data
) -> None:
    with pytest.raises(UserError, match=r"holds another toy:1\.0\.0"):
        run(convnet, quarters_data, copied.path, min_speedup=1000.0)
    assert Layout.open(copied.path).release().digest == copied.release


def test_an_empty_output_folder_is_used(convnet: Path, quarters_data: Data, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(convnet, quarters_data, tmp_path / "out").path == tmp_path / "out"


def test_a_conversion_that_fails_leaves_nothing(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    x = np.load(quarters_data[1])["x"]
    np.savez(quarters_data[1], x=x)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match="no labels"):
        run(convnet, quarters_data, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_the_public_name_is_this_function() -> None:
    import converters
    import edgeml

    assert converters.convert is convert
    assert edgeml.convert is convert
