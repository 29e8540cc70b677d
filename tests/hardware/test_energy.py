from collections.abc import Callable
from pathlib import Path

import pytest

from hardware.probes import EnergyMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, object], None]:
    def write(name: str, value: object) -> None:
        path = tmp_path / "sys/class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")

    return write


def test_processor_packages_are_added_up_without_their_parts(
    tmp_path: Path, put: Callable[..., None]
) -> None:
    for zone in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0"):
        put(f"powercap/{zone}/energy_uj", 1_000_000)
        put(f"powercap/{zone}/name", "package-0")
    meter = EnergyMeter(tmp_path)
    assert (meter.source, meter.joules()) == ("rapl", 0.0)
    for zone in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0"):
        put(f"powercap/{zone}/energy_uj", 3_500_000)
    assert meter.joules() == pytest.approx(5.0)


def test_the_counter_of_the_whole_platform_counts_alone(
    tmp_path: Path, put: Callable[..., None]
) -> None:
    for number, name in enumerate(("package-0", "psys")):
        put(f"powercap/intel-rapl:{number}/energy_uj", 0)
        put(f"powercap/intel-rapl:{number}/name", name)
    meter = EnergyMeter(tmp_path)
    put("powercap/intel-rapl:0/energy_uj", 1_000_000)
    put("powercap/intel-rapl:1/energy_uj", 7_000_000)
    assert meter.joules() == pytest.approx(7.0)


def test_a_counter_that_begins_again_loses_nothing(
    tmp_path: Path, put: Callable[..., None]
) -> None:
    put("powercap/intel-rapl:0/max_energy_range_uj", 10_000_000)
    put("powercap/intel-rapl:0/energy_uj", 9_000_000)
    meter = EnergyMeter(tmp_path)
    put("powercap/intel-rapl:0/energy_uj", 2_000_000)
    assert meter.joules() == pytest.approx(3.0)


def test_power_counts_for_the_time_between_readings(
    tmp_path: Path, put: Callable[..., None]
) -> None:
    put("hwmon/hwmon3/power1_input", 5_000_000)
    clock = Clock()
    meter = EnergyMeter(tmp_path, clock)
    clock.now += 2.0
    put("hwmon/hwmon3/power1_input", 7_000_000)
    assert meter.source == "hwmon-power"
    assert meter.joules() == pytest.approx(12.0)


def test_of_several_supplies_the_one_that_is_the_whole_counts(
    tmp_path: Path, put: Callable[..., None]
) -> None:
    for number, rail in enumerate(("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), 1):
        put(f"hwmon/hwmon1/power{number}_input", number * 1_000_000)
        put(f"hwmon/hwmon1/power{number}_label", rail)
    clock = Clock()
    meter = EnergyMeter(tmp_path, clock)
    clock.now += 3.0
    assert meter.joules() == pytest.approx(3.0)


def test_an_energy_counter_of_a_sensor_is_better_than_its_power(
    tmp_path: Path, put: Callable[..., None]
) -> None:
    put("hwmon/hwmon0/energy1_input", 100)
    put("hwmon/hwmon0/power1_input", 100)
    meter = EnergyMeter(tmp_path)
    put("hwmon/hwmon0/energy1_input", 2_000_100)
    assert meter.source == "hwmon-energy"
    assert meter.joules() == pytest.approx(2.0)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"powercap/intel-rapl:0/energy_uj": ""},
        {"hwmon/hwmon0/power1_input": "5", "hwmon/hwmon1/power1_input": "5"},
        {"hwmon/hwmon0/temp1_input": "41000"},
    ],
)
def test_where_nobody_can_tell_there_is_no_figure(
    tmp_path: Path, put: Callable[..., None], files: dict[str, str]
) -> None:
    for name, value in files.items():
        put(name, value)
    meter = EnergyMeter(tmp_path)
    assert (meter.source, meter.joules()) == ("", None)
