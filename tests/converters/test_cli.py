"""The commands as they are typed: output, exit codes, and what an interruption leaves."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import converters.cli
from edgeml.errors import EdgemlError, GateFailed, ModelError, UserError, exit_code_of

Data = tuple[Path, Path]

app = typer.Typer()
app.command("convert")(converters.cli.convert)
app.command("inspect")(converters.cli.inspect)

IN_A_PROCESS = """
import sys, typer, converters.cli
from edgeml.errors import EdgemlError, exit_code_of
app = typer.Typer(pretty_exceptions_enable=False)
app.command("convert")(converters.cli.convert)
app.command("inspect")(converters.cli.inspect)
try:
    app()
except EdgemlError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(exit_code_of(error))
"""


def convert_arguments(model: Path, data: Data, out: Path, *more: str) -> list[str]:
    given = ["convert", str(model), "--calibration", str(data[0]), "--evaluate", str(data[1])]
    return [*given, "--name", "toy", "--version", "1.0.0", "--out", str(out), *more]


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, EdgemlError):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def convert(model: Path, data: Data, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    options = ("--target", "cpu", "--min-speedup", "0", "--json", "--runtime", "onnxruntime", *more)
    code, stdout, _ = invoke(*convert_arguments(model, data, out, *options))
    return code, json.loads(stdout)


def test_json_is_one_object_with_the_deployable_variants_best_first(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    code, body = convert(convnet, quarters_data, tmp_path / "out")
    assert code == 0
    assert body["release"].startswith("sha256:")
    assert body["path"] == str(tmp_path / "out")
    best = {v["precision"] for v in body["variants"] if v["rank"] == 0}
    assert (body["float_kept_because"] is None) == (best == {"int8"})
    first = body["variants"][0]
    assert {"target", "runtime", "file", "format", "precision", "bytes", "verification",
            "recipe", "gates"} <= set(first)  # fmt: skip
    assert first["format"] == "onnx"
    assert Path(first["file"]).stat().st_size == first["bytes"]
    assert Path(first["recipe"]).is_file()
    gate = next(v for v in body["variants"] if v["gates"])["gates"][0]
    assert (gate["name"], gate["result"], gate["baseline"], gate["value"], gate["n"]) == (
        "accuracy", "pass", 1.0, 1.0, 400,
    )  # fmt: skip
    assert {"bound", "n_needed"} <= set(gate)


def test_an_axis_is_fixed_and_the_pipeline_fused_as_asked(
    convnet: Path, pipeline_file: Path, tmp_path: Path, make_images: Callable[..., Data]
) -> None:
    more = ("--pipeline", str(pipeline_file), "--dim", "N=1", "--fuse")
    code, body = convert(convnet, make_images(), tmp_path / "out", *more)
    assert code == 0
    _, text, _ = invoke("inspect", body["variants"][-1]["file"], "--json")
    [frame] = json.loads(text)["inputs"]
    assert "uint8" in str(frame)
    assert "12" in str(frame)


@pytest.mark.parametrize(
    ("option", "words"), [("N", "NAME=VALUE"), ("M=2", r"no free axis M\. Free are: N \(image:0\)")]
)
def test_an_axis_that_cannot_be_fixed_is_a_usage_error(
    convnet: Path, quarters_data: Data, tmp_path: Path, option: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        convert(convnet, quarters_data, tmp_path / "out", "--dim", option)


def test_a_limit_that_nothing_keeps_ends_with_exit_code_3_and_writes_nothing(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    with pytest.raises(GateFailed, match=r"at most 1\.00 kB are allowed") as caught:
        convert(convnet, quarters_data, tmp_path / "out", "--max-size", "1kB")
    assert exit_code_of(caught.value) == 3
    assert not (tmp_path / "out").exists()


def test_limits_that_are_kept_stand_among_the_gates(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    limits = ("--max-size", "1MB", "--max-memory", "4GB", "--max-start", "60s")
    code, body = convert(convnet, quarters_data, tmp_path / "out", *limits, "--max-latency", "9s")
    assert code == 0
    for variant in body["variants"]:
        mine = {g["name"]: g for g in variant["gates"]}
        assert {"size", "memory", "start", "latency"} <= set(mine)
        assert mine["start"]["value"] == pytest.approx(variant["load_ms"])
        assert mine["memory"]["bound"] == 4e9
        for gate in mine.values():
            assert {"result", "baseline", "value", "bound", "n", "n_needed"} <= set(gate)
            assert gate["result"] == "pass"


def test_a_limit_without_its_unit_is_a_usage_error(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="'4' is no size"):
        convert(convnet, quarters_data, tmp_path / "out", "--max-size", "4")


def test_an_undecided_gate_ends_with_exit_code_4_and_still_prints_the_release(
    convnet: Path, tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    code, body = convert(convnet, make_quarters(evaluation=60), tmp_path / "out")
    assert code == 4
    assert {v["precision"] for v in body["variants"]} == {"float32"}
    assert "undecided" in body["float_kept_because"]


def test_an_accepted_doubt_ends_with_exit_code_0(
    convnet: Path, tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    data = make_quarters(evaluation=60)
    code, body = convert(convnet, data, tmp_path / "out", "--accept-undecided", "a pilot")
    assert code == 0
    assert "int8" in {v["precision"] for v in body["variants"]}


def test_float_as_the_answer_ends_with_exit_code_0(
    fragile: Path, fragile_data: Data, tmp_path: Path
) -> None:
    code, body = convert(fragile, fragile_data, tmp_path / "out", "--min-speedup", "1000")
    assert code == 0
    assert {v["precision"] for v in body["variants"]} == {"float32"}
    assert "not shown to be faster" in body["float_kept_because"]


def test_for_people_the_result_is_a_table_and_progress_goes_to_standard_error(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    arguments = convert_arguments(convnet, quarters_data, tmp_path / "out", "--target", "cpu")
    code, stdout, stderr = invoke(*arguments, "--min-speedup", "0")
    assert code == 0
    assert stdout.startswith("toy:1.0.0  sha256:")
    assert "accuracy pass, speedup pass" in stdout
    assert "Calibrating" in stderr
    assert "Calibrating" not in stdout
    assert "is left out, it cannot be executed here" in stderr


def test_inspect_shows_a_release_and_its_evidence(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    _, made = convert(convnet, quarters_data, tmp_path / "out")
    code, stdout, _ = invoke("inspect", made["path"], "--json")
    body = json.loads(stdout)
    assert code == 0
    assert body["releases"][0]["digest"] == made["release"]
    variant = body["releases"][0]["variants"][0]
    assert variant["evidence"][0]["accuracy"]["value"] == 1.0
    assert set(variant["files"]) == {"golden", "model", "recipe", "recorded"}
    assert variant["runtime"] == variant["evidence"][0]["runtime"] == "onnxruntime"
    assert variant["evidence"][0]["precision"] == variant["precision"]
    _, text, _ = invoke("inspect", made["path"])
    assert f"toy:1.0.0  {made['release']}" in text
    assert "accuracy pass: 0 of 400 samples lost" in text
    files = tmp_path / "files"
    code, stdout, _ = invoke("inspect", made["path"], "--files", str(files))
    assert (code, stdout.split()) == (0, [str(path) for path in sorted(files.iterdir())])
    kept = (Path(made["path"]) / "report.html").read_bytes()
    assert (files / "report.html").read_bytes() == kept
    with pytest.raises(UserError, match="has files already"):
        invoke("inspect", made["path"], "--files", str(files))


def test_inspect_shows_a_candidate_that_was_left_out(
    convnet: Path, tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    _, made = convert(convnet, make_quarters(evaluation=60), tmp_path / "out")
    _, text, _ = invoke("inspect", made["path"])
    assert re.search(r"^left out for \S+: int8 .* on onnxruntime$", text, re.MULTILINE)
    assert "  rank 0  float32 on onnxruntime\n" in text
    assert "accuracy undecided" in text


def test_inspect_shows_a_model(convnet: Path) -> None:
    code, stdout, _ = invoke("inspect", str(convnet), "--json")
    body = json.loads(stdout)
    assert (code, body["opset"], body["operators"]["Gemm"]) == (0, 17, 1)
    _, text, _ = invoke("inspect", str(convnet))
    assert "image float32[N, 1, 12, 12]" in text


def test_inspect_refuses_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    for path in (tmp_path / "none", tmp_path / "text.onnx"):
        with pytest.raises(ModelError):
            invoke("inspect", str(path))
    with pytest.raises(EdgemlError, match="no release folder"):
        invoke("inspect", str(tmp_path))


def test_a_target_must_be_named(convnet: Path, quarters_data: Data, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No target was named"):
        invoke(*convert_arguments(convnet, quarters_data, tmp_path / "out"))


def start(arguments: list[str], tmp_path: Path, program: str = IN_A_PROCESS) -> subprocess.Popen:
    (tmp_path / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", program, *arguments],
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("moment", ["Calibrating", "Evaluating", "Trying", "Racing"])
def test_ctrl_c_at_any_moment_leaves_nothing(
    convnet: Path, quarters_data: Data, tmp_path: Path, moment: str
) -> None:
    (tmp_path / "releases").mkdir()
    arguments = convert_arguments(convnet, quarters_data, tmp_path / "releases" / "out")
    child = start([*arguments, "--target", "cpu"], tmp_path)
    assert child.stderr is not None
    for line in child.stderr:
        if moment in line:
            child.send_signal(signal.SIGINT)
            break
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert list((tmp_path / "releases").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


LITTLE_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    (tmp_path / "releases").mkdir()
    arguments = convert_arguments(convnet, quarters_data, tmp_path / "releases" / "out")
    child = start([*arguments, "--target", "cpu"], tmp_path, LITTLE_DISK + IN_A_PROCESS)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 2, stderr
    assert stdout == ""
    assert "could not be written" in stderr
    assert "Traceback" not in stderr
    assert list((tmp_path / "releases").iterdir()) == []


def test_asking_for_help_loads_nothing_heavy() -> None:
    program = IN_A_PROCESS.replace(
        "except EdgemlError",
        "except SystemExit:\n"
        "    print({'onnx', 'onnxruntime', 'scipy', 'numpy', 'cv2', 'rich'} & set(sys.modules)"
        " - {'rich'})\n"
        "except EdgemlError",
    )
    child = subprocess.run(
        [sys.executable, "-c", program, "convert", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert child.stdout.rstrip().endswith("set()")
