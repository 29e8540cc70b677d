"""What a killed conversion leaves is swept by the next one to the same place, and only that."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from converters.workspace import workspace
from edgeml.errors import ExitCode

from .test_cli import IN_A_PROCESS, convert_arguments, start

HOLDS = """
import sys, time
from pathlib import Path
from converters.workspace import workspace
with workspace(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("of a release")
    print(folder, flush=True)
    time.sleep(600)
"""


def holder(out: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that works beside `out`, and where."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    dead, left = holder(out)
    living, kept = holder(out)
    try:
        assert left.is_dir(), "the second one swept the first, which was alive"
        dead.kill()
        dead.communicate()
        with workspace(out) as mine:
            assert {path.name for path in tmp_path.iterdir()} == {mine.name, kept.name}
            assert (kept / "half").read_text() == "of a release"
    finally:
        living.kill()
        living.communicate()
    with workspace(out):
        assert not kept.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_to_another_place_is_left_alone(tmp_path: Path) -> None:
    for name in (".other.abc.partial", ".out.abc", "out.abc.partial"):
        (tmp_path / name).mkdir()
    with workspace(tmp_path / "out"):
        pass
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_is_gone_after_an_error_too(tmp_path: Path) -> None:
    def torn() -> None:
        with workspace(tmp_path / "out") as folder:
            assert folder.is_dir()
            raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        torn()
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_after_a_killed_one_leaves_nothing_but_the_release(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    place = tmp_path / "releases"
    place.mkdir()
    arguments = [*convert_arguments(convnet, quarters_data, place / "out"), "--target", "cpu"]
    arguments += ["--runtime", "onnxruntime", "--min-speedup", "0"]
    child = start(arguments, tmp_path)
    assert child.stderr is not None
    for line in child.stderr:
        if "Trying" in line:
            os.kill(child.pid, signal.SIGKILL)
            break
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    [left] = place.iterdir()
    assert left.name.endswith(".partial")
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, *arguments], check=False)
    assert done.returncode in {ExitCode.DONE, ExitCode.GATE_UNDECIDED}
    assert [path.name for path in place.iterdir()] == ["out"]
