"""QNN's plug-in in a process that opens it more than once, or has it already."""

import subprocess
from pathlib import Path

import pytest

from converters.toolchains.environment import VENV
from tests.converters.locked_tools import prepared

from .test_runtimes_npu import ep_context

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OPEN_TWICE = """
import sys
sys.path.append(sys.argv[1])
if sys.argv[3] == "registered":
    import onnxruntime, onnxruntime_qnn
    path = onnxruntime_qnn.get_library_path()
    onnxruntime.register_execution_provider_library("QNNExecutionProvider", path)
from pathlib import Path
from edgeml.errors import EdgemlError
from hardware.runtimes import open_session
for _ in range(2):
    try:
        open_session("qnn", Path(sys.argv[2]))
    except EdgemlError as error:
        print(error)
"""


@pytest.mark.parametrize("before", ["registered", "not registered"])
def test_the_second_load_says_what_the_first_says(
    kept_toolchains: Path, tmp_path: Path, before: str
) -> None:
    """The plug-in is registered once a process; registering it again would hide the reason."""
    python = prepared("qnn").folder / VENV / "bin" / "python"
    broken, repository = ep_context(tmp_path / "empty.onnx"), Path(__file__).parents[2]
    done = subprocess.run(
        [python, "-I", "-c", OPEN_TWICE, repository, broken, before],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("qnn ")]
    assert len(said) == 2
    assert said[0] == said[1]
    assert said[0].startswith("qnn cannot load empty.onnx.")
