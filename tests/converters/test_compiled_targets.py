"""Targets that a backend serves: judged, told when they fail, and replayed bit for bit."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from msgspec.structs import replace

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout
from converters import loading
from converters.backends.interface import Job, Offer
from converters.cache import Cache
from converters.conversion import convert
from converters.conversion import run as convert_request
from converters.request import Request
from converters.result import ConversionResult
from converters.show import conversion_text, describe, description_text
from edgeml.errors import EdgemlError, ExitCode, GateFailed, ModelError, UserError
from hardware.probes import probe
from hardware.profiles import profiles
from tests import needs
from tests.hardware.plugins import install

from .notes import Notes
from .own_backend import Own

PLUGIN = "from tests.converters.own_backend import make"
BACKEND = "from tests.converters.own_backend import Own as make"


@pytest.fixture(autouse=True)
def own_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    install(folder, "edgeml.targets", "owntargets", PLUGIN)
    install(folder, "edgeml.backends", "own", BACKEND)
    profiles.cache_clear()
    yield
    profiles.cache_clear()


def run(
    model: Path, data: tuple[Path, Path], out: Path, *kinds: str, **more: object
) -> ConversionResult:
    options = {
        "targets": tuple(f"npu-own-{kind}" for kind in kinds),
        "max_drop": 0.05,
        "name": "quarters",
        "version": "1",
    } | more
    return convert(
        model,
        calibration=data[0],
        evaluation=data[1],
        out=out,
        **options,  # type: ignore[arg-type]
    )


def test_a_target_that_fails_leaves_the_others_standing(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    notes = Notes()
    kinds = ("good", "refused", "cpu", "broken")
    result = run(convnet, quarters_data, tmp_path / "out", *kinds, progress=notes)

    assert [(v.target, v.runtime) for v in result.variants] == [("npu-own-good", "own")]
    assert result.exit_code == ExitCode.PARTLY_DONE
    assert result.summary()["exit_code"] == 10
    failed = {failure.target: failure for failure in result.failed}
    assert failed["npu-own-refused"].what == "It cannot be compiled."
    assert failed["npu-own-refused"].exit_code == ExitCode.BAD_MODEL_OR_DATA
    assert failed["npu-own-broken"].exit_code == ExitCode.TOOLCHAIN_MISSING
    assert failed["npu-own-broken"].what == "The backend own failed for npu-own-broken."
    assert failed["npu-own-broken"].why == "KeyError: 'shape'."
    assert failed["npu-own-cpu"].exit_code == ExitCode.GATE_FAILED
    assert "5 of 6 operators" in failed["npu-own-cpu"].why
    assert "pool (AveragePool): Nothing is averaged. It has a window of (6, 6)" in (
        failed["npu-own-cpu"].why
    )
    # Said in the model's own names before anything was compiled.
    expected = "Not expected to run on npu-own-cpu: pool (AveragePool): Nothing is averaged."
    assert expected in "".join(notes.told)
    [variant] = result.summary()["variants"]
    assert (variant["latency"], variant["memory_bytes"], variant["load_ms"]) == (None, None, None)
    text = conversion_text(result)
    assert "not measured" in text
    assert text.count("5 of 6 operators") == 1  # why a gate fails is said once
    assert "graph-simulated" in text
    assert "failed: npu-own-refused: It cannot be compiled. So says its compiler." in text
    report = (tmp_path / "out" / "report.html").read_text()
    assert "npu-own-refused has no variant" in report
    assert "the graph was simulated before it was written to this file" in report


@pytest.mark.skipif(
    (os.cpu_count() or 1) < 2, reason="targets are made as cores allow: here is one"
)
def test_two_targets_are_worked_on_at_once(
    convnet: Path,
    quarters_data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, offer = Barrier(2), Own.offer

    def offer_together(backend: Own, job: Job) -> Iterator[Offer]:
        both.wait(timeout=60)  # broken, which is a failure, where one target waits for the other
        return offer(backend, job)

    monkeypatch.setattr(Own, "offer", offer_together)
    result = run(convnet, quarters_data, tmp_path / "out", "good", "second")
    assert result.failed == ()
    assert {v.target for v in result.variants} == {"npu-own-good", "npu-own-second"}


def test_the_level_of_verification_and_the_placement_are_in_the_evidence(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    run(convnet, quarters_data, tmp_path / "out", "good")
    layout = Layout.open(tmp_path / "out")
    [release] = layout.releases()
    [record] = layout.evidence(release.digest)
    assert record.verification is Verification.GRAPH_SIMULATED
    assert (record.latency, record.memory_bytes, record.load_ms) == (None, None, None)
    # onnxruntime answered in its place: that is said, and no version of `own` is claimed.
    assert (record.runtime, record.runtime_version) == ("own", "")
    assert "onnxruntime" in record.conditions.software
    assert record.placement == {"accelerator": 6}
    assert record.compiled is not None
    assert record.compiled.compiler == "own 1"
    assert [gate.name for gate in record.gates] == ["accuracy", "placement"]
    assert release.variants[0].verification == "graph-simulated"
    assert "graph-simulated" in description_text(describe(tmp_path / "out"))


def test_the_next_offer_is_asked_for_where_the_first_loses_too_much(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(convnet, quarters_data, tmp_path / "out", "second")
    assert result.exit_code == ExitCode.DONE
    [variant] = result.variants
    assert variant.why.startswith("copied:")
    [left_out] = result.left_out
    assert "quantization loses too much accuracy" in left_out.reason
    assert {variant.gates[0].confidence, left_out.gates[0].confidence} == {0.95, 0.975}


def test_a_recipe_replays_a_compiled_target_bit_for_bit(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    first = run(convnet, quarters_data, tmp_path / "one", "second", "good")
    again = run(
        convnet,
        quarters_data,
        tmp_path / "two",
        targets=(),
        recipe=first.variants[0].recipe,
    )
    assert again.release == first.release
    assert len(again.variants) == 2


def test_all_that_fail_are_an_error_and_nothing_is_written(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="It cannot be compiled"):
        run(convnet, quarters_data, tmp_path / "out", "refused")
    with pytest.raises(GateFailed, match="lower --min-offload"):
        run(convnet, quarters_data, tmp_path / "out", "cpu")
    with pytest.raises(EdgemlError, match="Nothing could be made for npu-own-"):
        run(convnet, quarters_data, tmp_path / "out", "refused", "cpu")
    assert not (tmp_path / "out").exists()


def test_a_lower_bound_on_the_placement_lets_it_in(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(convnet, quarters_data, tmp_path / "out", "cpu", min_offload=0.8)
    assert result.exit_code == ExitCode.DONE
    assert "on the CPU: pool (AveragePool)" in conversion_text(result)


def test_a_group_leaves_out_what_has_no_toolchain_here(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(convnet, quarters_data, tmp_path / "out", targets=("npu",))
    skipped = {target.target: target.reason for target in result.skipped}
    assert "edgeml toolchain install" in skipped["npu-ethos-u55-128"]
    assert {variant.target for variant in result.variants} >= {"npu-own-good", "npu-own-second"}
    assert "npu-own-refused" in {failure.target for failure in result.failed}


def test_a_group_says_once_what_is_left_out_and_why(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    notes = Notes()
    result = run(convnet, quarters_data, tmp_path / "out", targets=("npu",), progress=notes)
    told = [line for line in notes.told if "left out for want of their toolchains" in line]
    assert len(told) == 1
    text = conversion_text(result)
    assert text.count("edgeml toolchain install onnx2tf ai-edge-quantizer ethos-u-vela") == 1


def test_an_option_that_no_target_has_is_refused_before_anything_is_made(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no option colour") as refused:
        run(
            convnet,
            quarters_data,
            tmp_path / "out",
            targets=("npu-ethos-u55-32", "npu-qualcomm-htp-v73"),
            options={"colour": "red"},
        )
    assert "npu-ethos-u55-32 has system-config, memory-mode" in refused.value.why


def test_each_target_is_told_its_own_options_alone(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    targets = ("npu-own-good", "fpga-ecp5-25k")
    options = {"paint": "red", "until": "silicon"}
    result = run(convnet, quarters_data, tmp_path / "out", targets=targets, options=options)
    [variant] = result.variants
    assert variant.compiled is not None
    assert variant.compiled.settings == {"paint": "red"}
    [failed] = result.failed
    assert failed.target == "fpga-ecp5-25k"
    needs.program("verilator", "verilator")  # without it, that is why
    assert failed.what == "The option until=silicon cannot be used."


def test_an_option_that_no_target_of_several_kinds_has_is_refused(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    targets = ("npu-own-good", "fpga-ecp5-25k", "npu-esp32-s3")
    with pytest.raises(UserError, match="no option colour") as refused:
        run(convnet, quarters_data, tmp_path / "out", targets=targets, options={"colour": "red"})
    assert "npu-own-good has paint; fpga-ecp5-25k has architecture, until" in refused.value.why


def test_a_model_of_a_format_that_a_target_does_not_take_is_refused_before_it_is_evaluated(
    convnet: Path,
    quarters_data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Own, "formats", ("tflite",))
    notes = Notes()
    with pytest.raises(ModelError, match="npu-own-good takes tflite models") as refused:
        run(convnet, quarters_data, tmp_path / "out", "good", progress=notes)
    assert "Export the model" in refused.value.fix
    assert notes.steps == ["Reading the model and the data"]


class Judgements(Cache):
    """Counts what is judged anew."""

    anew = 0

    def put(self, kind: str, parts: Any, body: bytes) -> None:
        self.anew += kind == "compiled"
        super().put(kind, parts, body)


def test_a_judgement_beside_the_float_model_is_made_anew_where_that_runs_in_another_version(
    convnet: Path,
    quarters_data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = Judgements(tmp_path / "cache")

    def judged(out: str) -> int:
        request = Request(
            model=convnet,
            calibration=str(quarters_data[0]),
            evaluation=str(quarters_data[1]),
            name="quarters",
            version="1",
            out=tmp_path / out,
            targets=("npu-own-good",),
            metric="cosine",
        )
        before = cache.anew
        convert_request(request, Notes(), cache)
        return cache.anew - before

    assert (judged("first"), judged("again")) == (1, 0)
    host = probe()
    newer = tuple(replace(known, version=f"{known.version}.1") for known in host.runtimes)
    monkeypatch.setattr(loading, "probe", lambda: replace(host, runtimes=newer))
    assert judged("newer") == 1


def test_cpu_targets_and_compiled_ones_are_one_release(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    targets = ("cpu", "npu-own-good")
    result = run(
        convnet, quarters_data, tmp_path / "out", targets=targets, runtimes=("onnxruntime",)
    )
    made = {variant.target for variant in result.variants}
    assert "npu-own-good" in made
    assert any(name.startswith("cpu-") for name in made)
