"""How many bits a layer gets: as few as keep the outputs faithful, and never a pass by luck."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.fpga.search import narrowed, signal_to_noise

names = st.text("abcdef", min_size=1, max_size=3)


@given(sizes=st.dictionaries(names, st.integers(1, 1000), min_size=1, max_size=5), data=st.data())
def test_what_is_chosen_keeps_the_floor_and_no_layer_can_give_up_more(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    weight = {name: data.draw(st.floats(0.5, 8)) for name in sizes}
    floor = data.draw(st.floats(0, 40))

    def fidelity(bits: dict[str, int]) -> float:
        return min(weight[name] * bits[name] for name in bits)

    bits = narrowed(sizes, fidelity, floor)  # type: ignore[arg-type]
    assert set(bits) == set(sizes)
    assert all(2 <= width <= 8 for width in bits.values())
    if fidelity(dict.fromkeys(sizes, 8)) < floor:
        assert set(bits.values()) == {8}
        return
    assert fidelity(bits) >= floor
    for name, width in bits.items():
        assert width == 2 or fidelity(bits | {name: width - 1}) < floor


def test_noise_is_told_in_decibels_and_a_constant_is_no_signal() -> None:
    wanted = np.array([[0.0, 5.0], [2.0, 5.0]])
    assert signal_to_noise(wanted, wanted) == 120
    assert signal_to_noise(wanted, wanted + 0.1) == pytest.approx(10 * np.log10(2 / 0.04))
    assert signal_to_noise(np.ones((3, 2)), np.zeros((3, 2))) < 0
