"""A recipe is data: what it decides, that it survives its own bytes, and what it refuses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.recipe import (
    Inputs,
    Method,
    Parameters,
    Recipe,
    Rule,
    VariantRecipe,
    dynamic,
    float16,
    keep_float,
    method_of,
    parse_recipe,
    read_recipe,
    static_qdq,
    weight_only,
)
from edgeml.errors import EdgemlError, TargetError, UserError

INPUTS = Inputs(model="sha256:aa", calibration="sha256:bb", evaluation="sha256:cc")


def recipe(*variants: VariantRecipe) -> Recipe:
    return Recipe(inputs=INPUTS, variants=variants, tools={"onnx": "1", "numpy": "2"})


def test_the_last_rule_that_matches_decides() -> None:
    rules = (
        Rule(method=Method.STATIC_QDQ),
        Rule(scope="head/.*", method=Method.FLOAT32),
        Rule(scope="head/big", operators=("Conv",), method=Method.STATIC_QDQ),
    )
    assert method_of(rules, name="body/conv", operator="Conv").method is Method.STATIC_QDQ
    assert method_of(rules, name="head/conv", operator="Conv").method is Method.FLOAT32
    assert method_of(rules, name="head/big", operator="Conv").method is Method.STATIC_QDQ
    assert method_of(rules, name="head/big", operator="Add").method is Method.FLOAT32


def test_a_node_that_no_rule_matches_stays_in_float() -> None:
    assert method_of((), name="conv", operator="Conv").method is Method.FLOAT32


def test_the_flavour_without_vnni_keeps_weights_in_seven_bits() -> None:
    assert static_qdq("u8s8-reduced")[1].parameters.reduced_range
    assert not static_qdq("u8s8")[1].parameters.reduced_range


def test_a_flavour_that_is_not_known_is_a_target_error() -> None:
    with pytest.raises(TargetError, match="u8s8-reduced"):
        static_qdq("u4s4")


def test_a_flavour_can_be_changed_in_its_parameters() -> None:
    changed = static_qdq("u8u8", calibration="percentile", percentile=99.9)[1].parameters
    assert changed == Parameters(weight="uint8", calibration="percentile", percentile=99.9)


def test_the_arithmetic_between_layers_can_stay_in_float() -> None:
    for operator, method in [
        ("Conv", Method.STATIC_QDQ),
        ("Relu", Method.STATIC_QDQ),
        ("Mul", Method.FLOAT32),
        ("Add", Method.FLOAT32),
    ]:
        rules = static_qdq("u8s8", layers_only=True)
        assert method_of(rules, name="n", operator=operator).method is method


def test_dynamic_and_weight_only_leave_convolutions_in_float_unless_told() -> None:
    for rules in (dynamic(), weight_only("int4")):
        assert method_of(rules, name="c", operator="Conv").method is Method.FLOAT32
        assert method_of(rules, name="m", operator="MatMul").method is not Method.FLOAT32
    assert method_of(dynamic("Conv"), name="c", operator="Conv").method is Method.DYNAMIC
    assert method_of(float16(), name="c", operator="Conv").method is Method.FLOAT16


def test_names_kept_in_float_are_taken_literally_and_no_names_change_nothing() -> None:
    rules = keep_float(static_qdq("u8s8"), ["/head/conv.1", "/head/conv(2)"])
    for name, method in [
        ("/head/conv.1", Method.FLOAT32),
        ("/head/conv(2)", Method.FLOAT32),
        ("/head/conv11", Method.STATIC_QDQ),
        ("/head/conv.1/more", Method.STATIC_QDQ),
    ]:
        assert method_of(rules, name=name, operator="Conv").method is method
    assert keep_float(static_qdq("u8s8"), []) == static_qdq("u8s8")


names = st.text("abcdefghijklmnop-/", min_size=1, max_size=12)
variants = st.builds(
    VariantRecipe,
    target=names,
    precision=st.sampled_from(["float32", "int8", "float16", "int4"]),
    rank=st.integers(0, 9),
    rules=st.lists(
        st.builds(
            Rule,
            scope=names,
            operators=st.lists(names, max_size=3).map(tuple),
            method=st.sampled_from(Method),
            parameters=st.builds(Parameters, reduced_range=st.booleans()),
        ),
        max_size=3,
    ).map(tuple),
    accepted=st.text(max_size=20),
)


@given(st.lists(variants, min_size=1, max_size=4, unique_by=lambda v: (v.target, v.precision)))
def test_a_recipe_is_read_back_from_its_own_bytes_and_they_never_change(some: list) -> None:
    written = recipe(*some)
    data = written.encode()
    assert parse_recipe(data) == written
    assert parse_recipe(data).encode() == data


def test_a_recipe_can_be_written_by_hand_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        """
        [inputs]
        model = "sha256:aa"
        calibration = "sha256:bb"
        evaluation = "sha256:cc"
        [[variants]]
        target = "cpu-x86-64"
        precision = "int8"
        rank = 0
        [[variants.rules]]
        operators = ["Conv"]
        method = "static-qdq"
        """
    )
    read = read_recipe(path)
    assert read.variants[0].rules[0].method is Method.STATIC_QDQ
    assert read.inputs == INPUTS


EMPTY = b'{"inputs": {"model": "", "calibration": "", "evaluation": ""}, "variants": []'
VARIANT = b'{"target": "t", "precision": "int8", "rank": 0}'
TWICE = EMPTY[:-1] + VARIANT + b"," + VARIANT + b"]}"
BAD_SCOPE = (
    b'{"inputs": {"model": "", "calibration": "", "evaluation": ""}, "variants": [{"target": "t", '
    b'"precision": "int8", "rank": 0, "rules": [{"scope": "(", "method": "float32"}]}]}'
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Input data was truncated"),
        (b"{}", "missing required field `inputs`"),
        (EMPTY + b', "version": 9}', "version 9"),
        (EMPTY + b"}", "no variant"),
        (EMPTY + b', "speed": 1}', "unknown field `speed`"),
        (TWICE, "names a variant twice"),
        (TWICE.replace(b"int8", b"int3"), "int3"),
        (BAD_SCOPE, "no regular expression"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(data, name="r.json")
    assert words in str(caught.value)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_recipe_or_an_error_with_a_sentence(data: bytes, toml: bool) -> None:
    said = "."
    try:
        parse_recipe(data, toml=toml)
    except EdgemlError as error:
        said = error.what
    assert said.endswith(".")


def test_a_recipe_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No recipe"):
        read_recipe(tmp_path / "none.json")
