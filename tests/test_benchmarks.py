"""The runner of comparisons: sides in turn, ratios by round, a line per result, and a page of the newest."""

import json
import sys

import pytest
from benchmarks import __main__ as command
from benchmarks import runner, suite
from benchmarks.runner import OURS, Command, Comparison, Options


def test_sides_take_turns_and_the_first_round_warms_up():
    calls = []
    sides = {OURS: lambda: calls.append("a") or 10, "other": lambda: calls.append("b") or 10}
    result = runner.measure(Comparison("x", "About.", lambda _: sides), Options(rounds=3))
    assert "".join(calls) == "ab" * 4
    assert [len(side["values"]) for side in result["sides"].values()] == [3, 3]
    assert json.loads(json.dumps(result)) == result


def test_ratios_are_those_of_each_round():
    sides = {OURS: {"values": [10.0, 30.0]}, "other": {"values": [5.0, 10.0]}}
    assert runner.ratios({"unit": "images/s", "sides": sides}, "other") == [2.0, 3.0]
    assert runner.ratios({"unit": "s", "sides": sides}, "other") == [0.5, pytest.approx(1 / 3)]


def test_a_command_is_timed_with_its_processor_time():
    work = Command([sys.executable, "-c", "sum(range(3_000_000))"], {"SOME": "thing"})
    result = runner.measure(Comparison("x", "About.", lambda _: {OURS: work}, "s"), Options(rounds=1))
    side = result["sides"][OURS]
    assert 0 < side["cpu_s"][0] < 60
    assert side["values"][0] > 0
    with pytest.raises(SystemExit, match="has failed"):
        runner.measure(Comparison("x", "", lambda _: {OURS: Command([sys.executable, "-c", "1/0"])}), Options(rounds=1))


def test_the_page_has_the_newest_of_each(tmp_path, monkeypatch, capsys):
    values = iter(range(1, 100))
    sides = {OURS: lambda: next(values) * 1000, "another way": lambda: 1}
    monkeypatch.setattr(command, "COMPARISONS", (Comparison("mine", "What is done.", lambda _: sides),))
    monkeypatch.setattr(runner.time, "perf_counter", iter(range(1000)).__next__)
    for _ in range(2):
        assert command.main(["mine", "--rounds", "1", "--output", str(tmp_path)]) == 0
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("## mine, ") == 1
    assert "| visionforge | 4,000 (4,000 to 4,000) |" in page
    assert "| another way | 1 (1 to 1) |" in page
    assert "4,000.00 (4,000.00 to 4,000.00)" in page
    assert "mine: What is done." in capsys.readouterr().out


def test_what_runs_on_one_device_is_left_out_on_others(tmp_path, monkeypatch):
    only = Comparison("only", "", lambda _: pytest.fail("was run"), devices=("cuda",))
    monkeypatch.setattr(command, "COMPARISONS", (only,))
    assert command.main(["--output", str(tmp_path)]) == 0
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.slow
def test_every_way_to_train_learns_from_the_same_number_of_images():
    options = Options(scale=0.01)
    sides = suite.training("mini_cnn", 6400, options)
    assert {name: side() for name, side in sides.items()} == dict.fromkeys(sides, 256)
    assert len({each.name for each in suite.COMPARISONS}) == len(suite.COMPARISONS)


@pytest.mark.slow
def test_whole_trainings_are_of_the_same_length():
    sides = suite.whole_training("mini_cnn", 11959, 100, 60, Options(scale=0.03))
    assert {name: side() for name, side in sides.items()} == dict.fromkeys(sides, 2 * 384)
