"""The duty cycle of a warm device, from recorded figures and from a kernel's tree."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.heat import MIN_DUTY, Heat, next_duty, read_heat

COOL = Heat(celsius=50.0)
HOT = Heat(celsius=83.0)


def board(root: Path, *, celsius: float, critical: float = 110.0, clock: int = 1800) -> Path:
    """The kernel's files of a board at some temperature."""
    zone = root / "sys/class/thermal/thermal_zone0"
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    for folder in (zone, frequency):
        folder.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{int(celsius * 1000)}\n")
    (zone / "trip_point_0_type").write_text("critical\n")
    (zone / "trip_point_0_temp").write_text(f"{int(critical * 1000)}\n")
    (frequency / "cpuinfo_max_freq").write_text("1800000\n")
    (frequency / "scaling_max_freq").write_text(f"{clock}000\n")
    return root


def test_a_hot_device_works_less_at_every_look_and_never_stops() -> None:
    duty = 1.0
    seen = []
    for _ in range(20):
        duty = next_duty(HOT, duty)
        seen.append(duty)
    assert seen[:3] == [0.8, 0.64, 0.512]
    assert seen[-1] == MIN_DUTY


def test_a_device_that_cooled_down_works_up_again_in_steps() -> None:
    assert next_duty(COOL, 0.5) == 0.6
    assert next_duty(COOL, 0.95) == 1.0
    # Not yet at ease: it stays where it is, and so does not swing.
    assert next_duty(Heat(celsius=78.0), 0.5) == 0.5


def test_a_clock_that_is_held_back_counts_only_where_it_is_warm_too() -> None:
    held = {"clock_share": 0.6, "usual_share": 1.0}
    assert Heat(celsius=75.0, **held).throttles
    assert Heat(**held).throttles  # nothing tells how warm it is
    assert not Heat(celsius=40.0, **held).throttles
    # Someone set this limit; it was there from the start.
    assert not Heat(celsius=75.0, clock_share=0.6, usual_share=0.6).throttles


def test_a_device_that_gives_up_early_is_hot_early() -> None:
    assert Heat(celsius=75.0, critical_c=85.0).throttles
    assert not Heat(celsius=75.0, critical_c=110.0).throttles


@given(
    st.lists(
        st.builds(
            Heat,
            celsius=st.none() | st.floats(-40, 130),
            critical_c=st.none() | st.floats(60, 130),
            clock_share=st.floats(0.1, 1.0),
            usual_share=st.floats(0.1, 1.0),
        ),
        max_size=50,
    )
)
def test_whatever_is_read_the_duty_stays_within_its_bounds(found: list[Heat]) -> None:
    duty = 1.0
    for heat in found:
        duty = next_duty(heat, duty)
        assert MIN_DUTY <= duty <= 1.0


def test_the_kernels_figures_are_read(tmp_path: Path) -> None:
    heat = read_heat(board(tmp_path, celsius=84.5, critical=95.0, clock=1200))
    assert (heat.celsius, heat.critical_c) == (84.5, 95.0)
    assert round(heat.clock_share, 2) == 0.67
    assert heat.throttles


def test_a_kernel_that_tells_nothing_lets_it_work(tmp_path: Path) -> None:
    heat = read_heat(tmp_path)
    assert (heat.celsius, heat.throttles, heat.is_at_ease) == (None, False, True)
