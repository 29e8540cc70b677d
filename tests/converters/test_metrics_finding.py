"""A metric is found by its name, among ours, plug-ins and the user's own code."""

from pathlib import Path

import numpy as np
import pytest

from converters.metrics import Metric, Reweighted, find_metric
from edgeml.errors import ModelError, UserError

OWN = """
class Brave:
    paired = "mean"
    def __init__(self, least="0.5"):
        self.least = float(least)
    def check(self, dataset, outputs):
        pass
    def outcome(self, outputs, label, reference):
        return float(outputs[0].max() > self.least)
    def score(self, outcomes):
        return sum(outcomes) / len(outcomes)

class Wild(Brave):
    def outcome(self, outputs, label, reference):
        return 1 / 0 if label else 7.0

class Deaf:
    paired = "mean"

class Unpaired(Brave):
    paired = "never"

class Heavy(Brave):
    paired = "set"
    def score(self, outcomes):
        return float("nan")

brave = Brave()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    module = f"own_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.parametrize("name", ["top1", "topk:5", "f1", "auc", "map", "map50", "cosine"])
def test_ours_are_named_as_they_were_asked_for(name: str) -> None:
    metric: Metric = find_metric(name)
    assert metric.name == name
    assert isinstance(metric, Reweighted) == (metric.paired == "set")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("top2", "Known are top1, topk"),
        ("", "Known are"),
        ("topk", "Write topk:5"),
        ("topk:0", "number of classes"),
        ("topk:-1", "number of classes"),
        ("top1:3", "takes no parameter"),
        ("auc:ovo", "no parameter but reconstruction"),
        ("no_such_module:thing", "no module no_such_module"),
        ("json:nothing", "no nothing in the module json"),
        ("json:loads", "cannot be made"),
        ("json:__name__", "has no check"),
    ],
)
def test_a_name_that_means_nothing_is_an_error_that_says_what_does(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_metric(name)


def test_one_of_the_users_own_is_found_in_the_current_folder(own: str) -> None:
    outputs = [np.array([[0.2, 0.6]])]
    for name, outcome in [("Brave", 1.0), ("Brave:0.7", 0.0), ("brave", 1.0)]:
        metric = find_metric(f"{own}:{name}")
        assert metric.name == f"{own}:{name}"
        assert metric.outcome(outputs, 0, []) == outcome
    assert metric.missed(0) == 0.0
    assert (metric.needs_reference, metric.needs_inputs, metric.chance) == (False, False, 0.0)


def test_an_object_takes_no_parameter_and_a_class_may_refuse_one(own: str) -> None:
    with pytest.raises(UserError, match="takes no parameter"):
        find_metric(f"{own}:brave:1")
    with pytest.raises(UserError, match="ValueError: could not convert"):
        find_metric(f"{own}:Brave:much")


@pytest.mark.parametrize(("name", "words"), [("Deaf", "no check"), ("Unpaired", "`paired`")])
def test_what_is_no_metric_is_refused(own: str, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_metric(f"{own}:{name}")


def test_what_a_metric_of_ones_own_does_wrong_is_a_sentence(own: str) -> None:
    wild = find_metric(f"{own}:Wild")
    with pytest.raises(ModelError, match=r"ZeroDivisionError: division by zero \(own_.*line 15\)"):
        wild.outcome([], 1, [])
    with pytest.raises(ModelError, match="It is 7; a mean metric's is between 0 and 1"):
        wild.outcome([], 0, [])
    heavy = find_metric(f"{own}:Heavy")
    with pytest.raises(ModelError, match="no number"):
        heavy.score([1])
    with pytest.raises(ModelError, match="missed"):
        heavy.missed(0)


def test_another_source_makes_another_identity(own: str, tmp_path: Path) -> None:
    before = find_metric(f"{own}:Brave").identity
    with (tmp_path / f"{own}.py").open("a") as stream:
        stream.write("# changed\n")
    assert find_metric(f"{own}:Brave").identity != before


def test_a_module_that_cannot_be_imported_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_metric.py").write_text("def f(:\n")
    with pytest.raises(UserError, match="SyntaxError"):
        find_metric("broken_metric:f")
    (tmp_path / "failing_metric.py").write_text("raise OSError('no disk')\n")
    with pytest.raises(UserError, match="OSError: no disk"):
        find_metric("failing_metric:f")


def test_an_installed_plug_in_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_metric.py").write_text(OWN)
    info = tmp_path / "plugged_metric-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged_metric\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[edgeml.metrics]\nbrave = plugged_metric:Brave\nlost = plugged_metric:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_metric("brave:0.9").outcome([np.array([0.95])], 0, []) == 1.0
    with pytest.raises(UserError, match="lost cannot be loaded"):
        find_metric("lost")
    with pytest.raises(UserError, match="brave, lost, and module:attribute"):
        find_metric("nothing")
