from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.layers import Kind, Layer, difference, flatten, merge, unflatten


def fleet_layer(**said: Any) -> Layer:
    return Layer(name="fleet", kind=Kind.FLEET, settings=said)


def label(name: str, priority: int = 0, **said: Any) -> Layer:
    return Layer(name=name, kind=Kind.LABEL, priority=priority, settings=said)


def own(**said: Any) -> Layer:
    return Layer(name="device:cam-1", kind=Kind.DEVICE, settings=said)


def test_the_narrower_layer_wins_setting_by_setting() -> None:
    merged = merge(
        [
            own(site={"digits": {"threshold": 0.9}}),
            label("north", 1, telemetry_every_s=5.0, site={"digits": {"threshold": 0.8}}),
            label("lte", 2, telemetry_every_s=60.0, data_budget={"month_bytes": 10}),
            fleet_layer(telemetry_every_s=10.0, mirrors=["https://cache.site"]),
        ]
    )
    assert not merged.conflicts
    assert {".".join(key): (s.value, s.layer) for key, s in merged.settings.items()} == {
        "telemetry_every_s": (60.0, "lte@1"),
        "mirrors": (["https://cache.site"], "fleet@1"),
        "site.digits.threshold": (0.9, "device:cam-1@1"),
        "data_budget.month_bytes": (10, "lte@1"),
    }


def test_windows_are_one_setting_and_a_capture_policy_has_one_for_each_key() -> None:
    night = [{"begins": "22:00", "ends": "05:00"}]
    merged = merge(
        [
            fleet_layer(update_windows=night, capture={"digits": {"keep_mb": 50, "one_in": 9}}),
            label("lab", update_windows=[]),
            own(capture={"digits": {"one_in": 100}}),
        ]
    )
    assert {".".join(key): (s.value, s.layer) for key, s in merged.settings.items()} == {
        "update_windows": ([], "lab@1"),
        "capture.digits.keep_mb": (50, "fleet@1"),
        "capture.digits.one_in": (100, "device:cam-1@1"),
    }
    assert merged.configuration()["capture"] == {"digits": {"keep_mb": 50, "one_in": 100}}


def test_equal_layers_that_agree_are_no_conflict() -> None:
    merged = merge([label("a", telemetry_every_s=5.0), label("b", telemetry_every_s=5.0)])
    assert merged.settings["telemetry_every_s",].layer == "a@1"
    assert not merged.conflicts


def test_of_equal_layers_that_disagree_neither_counts() -> None:
    layers = [
        fleet_layer(telemetry_every_s=1.0),
        label("a", telemetry_every_s=5.0),
        label("b", telemetry_every_s=6.0),
    ]
    merged = merge(layers)
    assert merged.settings["telemetry_every_s",].layer == "fleet@1"
    assert merged.conflicts == {("telemetry_every_s",): ("a@1", "b@1")}


def test_a_narrower_layer_ends_a_conflict() -> None:
    merged = merge(
        [own(telemetry_every_s=2.0), label("a", telemetry_every_s=5.0),
         label("b", telemetry_every_s=6.0)]
    )  # fmt: skip
    assert merged.settings["telemetry_every_s",].value == 2.0
    assert not merged.conflicts


def test_a_source_is_merged_by_its_name_field_by_field() -> None:
    merged = merge(
        [
            fleet_layer(sources=[{"name": "belt", "fps": 5.0}, {"name": "door", "fps": 1.0}]),
            own(sources=[{"name": "belt", "uri": "file:///belt", "model": "digits"}]),
        ]
    )
    assert merged.configuration() == {
        "sources": [{"name": "belt", "fps": 5.0, "uri": "file:///belt", "model": "digits"}]
    }


def test_a_narrower_layer_can_say_that_a_source_is_absent() -> None:
    belt = {"name": "belt", "uri": "file:///belt", "model": "digits"}
    merged = merge([fleet_layer(sources=[belt]), own(sources=[{"name": "belt", "absent": True}])])
    assert merged.configuration() == {"sources": []}


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 3)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "telemetry_every_s": VALUES,
        "mirrors": st.lists(VALUES, max_size=2),
        "site": st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, min_size=1), min_size=1),
        "capture": st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, min_size=1), min_size=1),
        "data_budget": st.dictionaries(st.sampled_from(["month_bytes"]), VALUES, min_size=1),
        "sources": st.lists(
            st.fixed_dictionaries({"name": NAMES, "uri": VALUES, "model": VALUES}),
            unique_by=lambda source: source["name"],
            min_size=1,
        ),
    },
)
LAYERS = st.lists(
    st.builds(
        Layer,
        name=st.text("xyz", min_size=1, max_size=4),
        kind=st.sampled_from(Kind),
        priority=st.integers(0, 2),
        settings=SETTINGS,
    ),
    max_size=5,
    unique_by=lambda layer: layer.name,
)


@given(SETTINGS)
@settings(max_examples=100)
def test_what_is_written_comes_back_from_its_settings(said: dict[str, Any]) -> None:
    assert unflatten(flatten(said)) == said


@given(LAYERS, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_in_which_layers_are_read_does_not_matter(layers: Any, random: Any) -> None:
    shuffled = list(layers)
    random.shuffle(shuffled)
    assert merge(shuffled) == merge(layers)


@given(LAYERS)
@settings(max_examples=60)
def test_a_value_comes_from_the_highest_layer_whose_rank_agrees(layers: Any) -> None:
    merged = merge(layers)
    for key in {key for layer in layers for key in flatten(layer.settings)}:
        said: dict[Any, list[Any]] = {}
        for layer in layers:
            if key in (values := flatten(layer.settings)):
                said.setdefault(layer.rank, []).append(values[key])
        agreed = [r for r, values in said.items() if all(v == values[0] for v in values)]
        if agreed:
            assert merged.settings[key].value == said[max(agreed)][0]
        else:
            assert key not in merged.settings
        assert (key in merged.conflicts) == (max(said) not in agreed)


@given(SETTINGS, SETTINGS)
@settings(max_examples=60)
def test_a_difference_on_top_gives_what_was_wanted(before: Any, wanted: Any) -> None:
    # Only sources can be taken away again; the rest has a value in any whole configuration.
    kept = {key: value for key, value in flatten(before).items() if key[0] == "sources"}
    base = unflatten(flatten(wanted) | kept) | {
        key: value for key, value in before.items() if key in wanted and key != "sources"
    }
    base = {k: v for k, v in base.items() if k not in {"site", "capture", "data_budget"}}
    extra = unflatten(difference(wanted, base), partial=True)
    merged = merge([fleet_layer(**base), own(**extra)])
    assert flatten(merged.configuration()) == flatten(wanted)


@pytest.mark.parametrize("selector", ["site=north", "site in (north,south)", ""])
def test_a_layer_chooses_by_labels(selector: str) -> None:
    layer = Layer(name="n", kind=Kind.LABEL, settings={}, selector=selector)
    assert layer.chooses({"site": "north"})
    assert layer.chooses({}) == (selector == "")
