"""What is said of targets for which no quantized file was judged."""

from collections.abc import Mapping
from pathlib import Path

from converters.artifact import FLOAT_RULES, Made, write_artifact
from converters.candidates import float_candidates
from converters.contest import Attempt, Contest
from converters.evaluation import Judged
from converters.lanes import Lane, Timing
from converters.left_out import left_out_of
from converters.plan import flavours_of
from converters.result import LeftOut
from hardware.capabilities import RuntimeInfo
from hardware.profiles import select

INFO = RuntimeInfo(name="onnxruntime", version="1")
TARGET = select(["cpu-arm64"])[0]
TRIED = Attempt(move="static u8s8 minmax", speedups={"onnxruntime": 1.02, "litert": 3.0})
REFUSED = Attempt(move="dynamic", refused="It has no weights. Nothing to do.")
MISSING = Attempt(move="static", refused="No tool.", missing_tool="install it: edgeml …")


def left_out(folder: Path, *attempts: Attempt, is_foreign: bool = False) -> LeftOut:
    lane = Lane(write_artifact(Made(b"model"), FLOAT_RULES, folder), "onnxruntime")
    floats = float_candidates(
        TARGET,
        [lane],
        {lane.key: Timing((1.0,), (1.0,), (1,), {}, INFO)},
        {lane.key: Judged((True,), (True,))},
        {},
    )
    contest = Contest(contenders=(), attempts=attempts, timings={})
    contests: Mapping[tuple[str, ...], Contest] = {flavours_of(TARGET): contest}
    mine = left_out_of(floats, contests, {TARGET.name} if is_foreign else ())
    return mine[-1]


def test_the_speed_of_a_runtime_that_the_target_has_not_says_nothing_of_it(tmp_path: Path) -> None:
    found = left_out(tmp_path, REFUSED, TRIED)
    assert found.reason == (
        "quantization is not shown to be faster: the best of 1 files, static u8s8 minmax, runs at "
        "1.02 x the speed of float32."
    )
    assert not found.undecided


def test_the_speed_of_this_machine_does_not_decide_for_a_processor_that_is_not_here(
    tmp_path: Path,
) -> None:
    found = left_out(tmp_path, TRIED, is_foreign=True)
    assert found.undecided
    assert found.reason.startswith("on this machine quantization is not shown to be faster: ")
    assert found.reason.endswith(", and no such processor is here to tell.")
    assert found.remedy == "Convert on such a machine."


def test_what_cannot_be_quantized_is_decided_for_every_processor(tmp_path: Path) -> None:
    found = left_out(tmp_path, REFUSED, REFUSED, is_foreign=True)
    assert not found.undecided
    assert found.reason == (
        "the model cannot be quantized: dynamic: It has no weights, Nothing to do, and 1 other "
        "way was refused too."
    )


def test_a_toolchain_that_is_missing_is_no_doubt(tmp_path: Path) -> None:
    found = left_out(tmp_path, MISSING)
    assert (found.needs_tool, found.undecided) == (True, False)
    assert found.reason == "install it: edgeml …"


def test_a_replay_says_that_the_recipe_decided(tmp_path: Path) -> None:
    lane = Lane(write_artifact(Made(b"model"), FLOAT_RULES, tmp_path), "onnxruntime")
    times = {lane.key: Timing((1.0,), (1.0,), (1,), {}, INFO)}
    floats = float_candidates(TARGET, [lane], times, {lane.key: Judged((True,), (True,))}, {})
    found = left_out_of(floats, {}, is_replayed=True)[-1]
    assert found.reason == "the recipe says so."
