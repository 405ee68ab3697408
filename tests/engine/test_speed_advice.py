"""What makes a training faster here: figures of real steps, and advice that follows from figures."""

import json

import pytest
import torch

from visionforge.cli.main import main
from visionforge.engine import speed_advice
from visionforge.engine.speed_advice import SpeedAdvice, advise, thread_counts
from visionforge.errors import SettingsError


def told(threads=None, precisions=None, default=2, cores=2, load=0.1):
    """Return the lines of advice."""
    rates = {"32-true": [100.0], "bf16-mixed": [100.0]} if precisions is None else precisions
    found = SpeedAdvice("resnet18", "cpu", threads or {1: [50.0], 2: [100.0]}, rates, default, cores, load).lines()
    return "\n".join(found)


def test_advice_follows_from_the_medians():
    assert "the 2 threads that are used now are right" in told()
    assert "side by side" not in told()
    assert "OMP_NUM_THREADS=1 trains 1.2 times as fast as the 2" in told(
        {1: [120.0, 1.0, 120.0], 2: [100.0, 100.0, 500.0]}
    )
    assert "2 trainings of one thread each, side by side, do up to 1.6 times as much" in told({1: [80.0], 2: [100.0]})
    assert "bfloat16 is not faster here (1.0 times)" in told()
    twice = {"32-true": [100.0], "bf16-mixed": [180.0]}
    assert "--trainer.precision bf16-mixed trains 1.8 times as fast" in told(precisions=twice)


def test_a_busy_machine_gets_no_advice_about_threads():
    lines = told(load=1.5)
    assert "other work kept 1.5 of 2 cores busy" in lines
    assert "threads that are used now" not in lines
    assert "bfloat16" in lines


def test_threads_to_try_end_with_all_cores():
    assert thread_counts(1, 1) == [1]
    assert thread_counts(6, 3) == [1, 2, 3, 4, 6]
    assert thread_counts(2, 8) == [1, 2, 8]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(speed_advice, "BATCH", 8)
    monkeypatch.setattr(speed_advice, "ROUNDS", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_steps_are_measured_and_threads_put_back(quick):
    before = torch.get_num_threads()
    found = advise("mini_cnn")
    assert torch.get_num_threads() == before
    assert before in found.threads
    assert all(len(rates) == 2 and min(rates) > 0 for rates in (*found.threads.values(), *found.precisions.values()))


def test_threads_are_put_back_after_a_failure(quick, monkeypatch):
    def step(bfloat16):
        raise RuntimeError

    monkeypatch.setattr(speed_advice, "_step_of", lambda backbone, device: step)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        advise("mini_cnn")
    assert torch.get_num_threads() == before


def test_unknown_backbone_is_one_line(quick):
    with pytest.raises(SettingsError, match=r"model\.backbone\.name: 'nonet' is unknown"):
        advise("nonet")


@pytest.mark.slow
def test_command_prints_figures_and_json(quick, capsys, tmp_path):
    main(["doctor", "--tune", "mini_cnn", "--outputs", str(tmp_path)])
    assert "training mini_cnn, batches of 8 images" in capsys.readouterr().out
    main(["doctor", "--tune", "mini_cnn", "--json", "--outputs", str(tmp_path)])
    content = json.loads(capsys.readouterr().out)
    assert set(content["speed"]["precisions"]) == {"32-true", "bf16-mixed"}
    main(["doctor", "--json", "--outputs", str(tmp_path)])
    assert "speed" not in json.loads(capsys.readouterr().out)
