"""What a cell has cost: the processor's own counters wrap round, and belong to one worker alone."""

import pytest

from visionforge.benchmarking.costs import Meter, counters, energy_wh, peak_bytes


def zone(folder, name, value, largest=10_000_000):
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(str(value))
    (path / "max_energy_range_uj").write_text(str(largest))
    return path


def test_counted_energy_is_the_sum_over_processors_and_survives_a_wrap(tmp_path):
    zone(tmp_path, "intel-rapl:0", 9_999_000)
    zone(tmp_path, "intel-rapl:1", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", 5)  # a part of the first
    assert len(counters(tmp_path)) == 2
    with Meter(alone=True, folder=tmp_path) as meter:
        zone(tmp_path, "intel-rapl:0", 3_599_000)
        zone(tmp_path, "intel-rapl:1", 4_600_000)
    assert meter.found["counted_wh"] == pytest.approx((3.600001 + 3.6) / 3600)


def test_counters_of_a_shared_processor_are_nobodys(tmp_path):
    zone(tmp_path, "intel-rapl:0", 1)
    with Meter(alone=False, folder=tmp_path) as meter:
        zone(tmp_path, "intel-rapl:0", 1_000_000)
    assert meter.found["counted_wh"] is None
    with Meter(alone=True, folder=tmp_path / "nowhere") as meter:
        pass
    assert meter.found["counted_wh"] is None


def test_time_and_memory_are_those_of_the_block():
    with Meter(alone=False) as meter:
        memory = bytearray(64 << 20)
        total = sum(range(8_000_000))  # the kernel counts in steps of ten milliseconds
    assert memory
    assert total
    assert 0 < meter.found["cpu_seconds"] < 30
    assert meter.found["wall_seconds"] > 0
    assert peak_bytes() is None or meter.found["peak_bytes"] > 64 << 20


def test_an_estimate_goes_before_what_was_counted():
    assert energy_wh(3600.0, 5.0, 10.0) == (10.0, "estimated")
    assert energy_wh(None, 5.0, 10.0) == (None, None)
