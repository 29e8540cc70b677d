"""The order in which quantizations are tried, judged, and given up."""

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.evidence import Verdict
from converters.search import Facts, Kind, Move, Step, Tried, next_step

CONVNET = Facts(
    flavours=("u8s8", "s8s8"), convolutions=20, samples=100_000, max_drop=0.01, confidence=0.95
)


def play(
    facts: Facts,
    judge: dict[str, Verdict],
    fidelity: dict[str, float] | None = None,
    slow: tuple[str, ...] = (),
    speed: dict[str, float] | None = None,
    refused: tuple[str, ...] = (),
) -> tuple[list[str], list[tuple[str, float]]]:
    """All auditions, and all judgements with their confidence, until nothing is left."""
    tried: list[Tried] = []
    while (step := next_step(facts, tried)) is not None:
        name = str(step.move)
        is_refused = any(word in name for word in refused)
        fast = name not in slow and not is_refused
        verdict = judge.get(name, Verdict.FAIL) if step.confidence and fast else None
        tried.append(
            Tried(
                step=step,
                refused=is_refused,
                fast=fast,
                speed=(speed or {}).get(name, 1.0),
                fidelity=(fidelity or {}).get(name, 20.0) if fast else None,
                accuracy=verdict,
            )
        )
    return (
        [str(t.step.move) for t in tried if t.step.confidence is None],
        [(str(t.step.move), t.step.confidence) for t in tried if t.step.confidence is not None],
    )


def test_the_most_faithful_ranges_are_judged_and_a_pass_ends_the_search() -> None:
    auditions, judgements = play(
        CONVNET,
        {"static u8s8 percentile": Verdict.PASS},
        {"static u8s8 percentile": 30.0},
    )
    assert auditions == [
        "static u8s8 minmax",
        "static u8s8 percentile bias-corrected equalised layers only",
        "static u8s8 percentile",
        "static u8s8 percentile bias-corrected equalised",
        "static u8s8 entropy",
    ]
    assert judgements == [("static u8s8 percentile", 0.95)]


def test_what_cannot_be_equalised_says_nothing_against_files_of_the_same_structure() -> None:
    facts = msgspec.structs.replace(CONVNET, has_head=True)
    auditions, judgements = play(
        facts,
        {"static u8s8 minmax head in float": Verdict.PASS},
        {"static u8s8 minmax head in float": 60.0},
        refused=("equalised",),
    )
    assert auditions == [
        "static u8s8 minmax",
        "static u8s8 percentile bias-corrected equalised layers only",
        "static u8s8 percentile bias-corrected layers only",
        "static u8s8 percentile",
        "static u8s8 percentile bias-corrected equalised",
        "static u8s8 percentile bias-corrected",
        "static u8s8 entropy",
        "static u8s8 minmax head in float",
        "static u8s8 percentile bias-corrected equalised head in float",
        "static u8s8 percentile bias-corrected head in float",
    ]
    assert judgements == [("static u8s8 minmax head in float", 0.95)]


def test_the_structure_that_proved_faster_is_judged_first() -> None:
    layers = "static u8s8 percentile bias-corrected equalised layers only"
    _, judgements = play(CONVNET, {layers: Verdict.PASS}, speed={layers: 1.2})
    assert judgements == [(layers, 0.95)]
    _, judgements = play(CONVNET, {}, speed={layers: 1.01})
    assert judgements[0] == ("static u8s8 minmax", 0.95)


def test_float_nodes_come_back_with_the_best_ranges_before_other_integers() -> None:
    layers = "static u8s8 percentile bias-corrected equalised layers only"
    _, judgements = play(CONVNET, {}, {"static u8s8 entropy": 30.0, layers: 40.0})
    names = [name for name, _ in judgements]
    assert names[:4] == [
        "static u8s8 entropy",
        layers,
        "static u8s8 entropy 5 % of the nodes in float",
        "static u8s8 entropy 10 % of the nodes in float",
    ]
    assert names.index("static s8s8 minmax") == 6


def test_each_further_judgement_must_be_twice_as_sure() -> None:
    _, judgements = play(CONVNET, {})
    errors = [1 - confidence for _, confidence in judgements]
    assert errors[0] == 1 - 0.95
    assert all(abs(b - a / 2) < 1e-12 for a, b in itertools.pairwise(errors))
    assert sum(errors) < 2 * errors[0]


def test_data_that_could_not_show_even_no_difference_are_judged_on_once() -> None:
    facts = msgspec.structs.replace(CONVNET, samples=100)
    _, judgements = play(facts, {"static u8s8 minmax": Verdict.UNDECIDED})
    assert len(judgements) == 1
    layers = "static u8s8 minmax layers only"
    assert play(facts, {}, {layers: 40.0})[1][0] == (layers, 0.95)
    some = msgspec.structs.replace(CONVNET, samples=398)  # 0.99 ** 398 is between .05/4 and .05/2
    assert len(play(some, {})[1]) == 2


def test_a_structure_that_is_slow_is_made_once() -> None:
    slow = ("static u8s8 minmax", "static s8s8 minmax")
    layers = tuple(f"static {f} percentile bias-corrected equalised layers only" for f in
                   ("u8s8", "s8s8"))  # fmt: skip
    auditions, judgements = play(CONVNET, {}, slow=slow + layers)
    assert auditions == [slow[0], layers[0], slow[1], layers[1]]
    assert [name for name, _ in judgements] == ["float16"]


def test_a_detectors_head_in_float_is_auditioned_with_the_rest() -> None:
    facts = msgspec.structs.replace(CONVNET, has_head=True)
    name = "static u8s8 minmax head in float"
    auditions, judgements = play(facts, {name: Verdict.PASS}, {name: 40.0})
    assert name in auditions
    assert judgements == [(name, 0.95)]


def test_recurrent_nets_get_dynamic_quantization_and_no_static_one() -> None:
    facts = msgspec.structs.replace(CONVNET, recurrent=True, convolutions=0)
    auditions, judgements = play(facts, {})
    assert judgements[0] == ("dynamic", 0.95)
    assert not any(name.startswith("static") for name in auditions)


def test_nets_of_matrix_products_get_weight_only_too() -> None:
    facts = msgspec.structs.replace(CONVNET, matrix_share=0.9)
    names = {name for name, _ in play(facts, {})[1]}
    assert {"dynamic", "weight-only int8", "weight-only int4"} <= names


_verdicts = st.sampled_from([Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED])
_facts = st.builds(
    Facts,
    family=st.sampled_from(["onnx", "tflite"]),
    judged=st.integers(0, 5),
    flavours=st.sampled_from([("u8s8",), ("u8s8", "s8s8"), ("u8s8-reduced", "u8u8"), ()]),
    recurrent=st.booleans(),
    convolutions=st.integers(0, 3),
    depthwise=st.booleans(),
    matrix_share=st.floats(0, 1),
    has_head=st.booleans(),
    samples=st.integers(1, 10_000),
    max_drop=st.floats(0.001, 0.5),
    confidence=st.floats(0.5, 0.999),
)
_answers = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.floats(-20, 80), _verdicts), min_size=40, max_size=40
)


@given(_facts, _answers)
def test_every_search_ends_and_judges_nothing_twice(
    facts: Facts, answers: list[tuple[bool, bool, float, Verdict]]
) -> None:
    tried: list[Tried] = []
    steps: set[Step] = set()
    while (step := next_step(facts, tried)) is not None:
        assert step.move not in {s.move for s in steps if s.confidence is not None}
        steps.add(step)
        refused, fast, fidelity, verdict = answers[len(tried)]
        if refused and step.confidence is not None:  # it ran, but could not be judged
            tried.append(Tried(step=step, refused=True, fast=fast, fidelity=fidelity))
        elif refused or not fast:
            tried.append(Tried(step=step, refused=refused))
        else:
            judged = verdict if step.confidence is not None else None
            tried.append(Tried(step=step, fast=True, fidelity=fidelity, accuracy=judged))
    assert len(tried) < len(answers)


LITERT = msgspec.structs.replace(CONVNET, family="tflite", flavours=("s8s8",))


def test_litert_is_searched_with_the_moves_that_it_has() -> None:
    auditions, judgements = play(LITERT, {}, {"static s8s8 average": 30.0})
    ways = ["static s8s8 minmax", "static s8s8 average"]
    layers = [f"{way} layers only" for way in ways]
    assert auditions == [ways[0], layers[0], ways[1], layers[1]]
    assert [name for name, _ in judgements] == [
        "static s8s8 average",
        "static s8s8 minmax layers only",
        "dynamic",
        "weight-only int8",
        "float16",
    ]
    recurrent = msgspec.structs.replace(LITERT, recurrent=True)
    assert play(recurrent, {})[1][0] == ("dynamic", 0.95)


def test_what_another_family_judged_on_the_same_data_counts() -> None:
    after_two = msgspec.structs.replace(LITERT, judged=2)
    errors = [1 - confidence for _, confidence in play(after_two, {})[1]]
    assert abs(errors[0] - (1 - 0.95) / 4) < 1e-12
    few = msgspec.structs.replace(after_two, samples=100)
    assert len(play(few, {})[1]) == 1  # for a person to see, though it cannot pass


def test_moves_are_named_by_what_tells_them_apart() -> None:
    moves = {
        Move(kind=Kind.STATIC, flavour="u8s8", equalize=True, bias_correction=True),
        Move(kind=Kind.STATIC, flavour="u8s8"),
        Move(kind=Kind.STATIC, flavour="u8s8", layers=True),
        Move(kind=Kind.WEIGHT_ONLY, bits=4),
        Move(kind=Kind.WEIGHT_ONLY, bits=8),
    }
    assert len({str(move) for move in moves}) == len(moves)
