"""Where the time of a training goes: what counts for what, what it changes, and what is told of it."""

import gzip
import json
import time

import lightning.pytorch as pl
import pytest
import torch

import visionforge as vf
from tests.conftest import QUICK, flags
from visionforge.cli.main import main
from visionforge.engine.profiling import StepProfiler
from visionforge.engine.step_profile import STEP_PARTS, Part, StepProfile, advice
from visionforge.errors import RunError, SettingsError


def read(given):
    return {name: json.loads(text) if text in ("true", "false") else text for name, text in given.items()}


def fitted(outputs, **changes):
    profile = changes.pop("profile", True)
    given = {**QUICK, "data.batch_size": 4, "trainer.default_root_dir": str(outputs), **changes}
    return vf.fit(**read(given), profile=profile)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("profiled"))


def test_parts_are_all_of_the_training(run):
    found = run.profile
    assert found.steps == 32
    assert found.measured == 12  # every other one, without three that allocate and five that are traced
    assert sum(part.share for part in found.parts) == pytest.approx(1, abs=0.1)  # another process may come between
    named = {part.name: part for part in found.parts}
    assert {"input", "forward", "backward", "optimiser", "validation", "checkpoints", "set-up"} <= set(named)
    assert all((part.step_ms is None) == (part.name not in STEP_PARTS) for part in found.parts)
    inside = sum(part.step_ms for part in found.parts if part.step_ms is not None)
    assert inside == pytest.approx(found.step_ms, rel=0.5)  # medians do not add up
    assert found.overhead is not None
    assert len(found.advice) == 2


def test_trace_has_the_operators_of_a_few_steps(run):
    with gzip.open(run.workspace.trace) as file:
        events = json.load(file)["traceEvents"]
    assert any("convolution" in str(event.get("name")) for event in events)
    operators = {each.name: each for each in run.profile.operators}
    assert operators["aten::convolution_backward"].calls == 3  # mini_cnn has three
    assert all(each.step_ms > 0 for each in operators.values())


def test_weights_are_those_of_a_training_that_nobody_measures(run, tmp_path):
    plain = fitted(tmp_path, profile=False)
    assert plain.profile is None
    assert plain.hash == run.hash
    for one, two in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert plain.metrics == run.metrics


class Sleeper(pl.Callback):
    """Spends 30 ms of every step, and more on what is no part of the training."""

    def on_train_batch_end(self, *_):
        time.sleep(0.03)

    def on_test_batch_end(self, *_):
        time.sleep(0.2)


@pytest.mark.slow
def test_what_is_slow_is_found(tmp_path):
    found = fitted(tmp_path, **{"trainer.callbacks": [Sleeper()]}).profile
    named = {part.name: part for part in found.parts}
    assert named["callbacks"].step_ms >= 30
    assert 0.03 * 26 <= named["callbacks"].share * found.seconds < 0.03 * 32 + 0.5  # five steps are traced
    assert found.advice[0].startswith("callbacks takes ")
    assert found.advice[1].startswith("Callbacks and loggers are dear")


@pytest.mark.parametrize(
    ("shares", "where", "change"),
    [
        ({"forward": 0.4, "backward": 0.5, "input": 0.1}, "backward takes 50 % of the training, forward 40 %", "limit"),
        ({"input": 0.5, "forward": 0.5}, "input takes 50 %", "data.num_workers"),
        ({"augmentation": 0.3, "forward": 0.3, "backward": 0.4}, "backward takes 40 %", "augmentation.preset"),
        ({"optimiser": 0.3, "forward": 0.3, "backward": 0.4}, "backward takes 40 %", "optimizer.name sgd"),
        ({"loop": 0.5, "forward": 0.25, "backward": 0.25}, "loop takes 50 %", "data.batch_size"),
        ({"set-up": 0.9, "forward": 0.1}, "set-up takes 90 %", "more epochs"),
        ({"checkpoints": 0.2, "forward": 0.8}, "forward takes 80 %", "default_root_dir"),
        ({"transfer": 0.2, "forward": 0.8}, "forward takes 80 %", "data.cache to device"),
        ({"forward": 0.3, "loop": 0.1, "optimiser": 0.1, "input": 0.1}, "forward takes 30 %", "No part stands out"),
        ({}, "No step", "more steps"),
    ],
)
def test_advice(shares, where, change):
    sentences = advice([Part(name=name, share=share) for name, share in shares.items()])
    assert where in sentences[0]
    assert change in sentences[1]


def test_command_prints_the_table(tmp_path, capsys):
    out = ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *flags(data__batch_size=4), "--profile", *out]) == 0
    printed = capsys.readouterr().out
    assert "ms in a step" in printed
    assert "backward" in printed
    assert "Medians of 12 measured steps, which take" in printed
    assert "trace.json.gz" in printed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": 2}, "--profile: is for one training, --seeds are several"),
        ({"folds": 2}, "--profile: is for one training, --folds are several"),
        ({"trainer.profiler": "simple"}, "--profile: trainer.profiler names another"),
    ],
)
def test_wishes_that_cannot_be_met(tmp_path, changes, told):
    with pytest.raises(SettingsError, match=told):
        fitted(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_what_is_no_switch_is_refused(tmp_path, refuse):
    (problem,) = refuse("fit", *flags(), "--profile", "3")
    assert "--profile: 3 is not allowed; allowed: true or false" in problem


@pytest.mark.parametrize("text", ["{}", "[", '{"parts": []}', "9" * 2_000_000])
def test_a_strangers_file_is_checked(run, tmp_path, text):
    path = tmp_path / "step_profile.json"
    path.write_text(text)
    with pytest.raises(RunError, match="is no profile of a training"):
        StepProfile.read(path)
    run.profile.write(path)
    assert StepProfile.read(path) == run.profile


def test_a_run_is_removed_with_its_profile(tmp_path):
    from visionforge.runs.workspace import remove_run

    done = fitted(tmp_path)
    assert remove_run(done.path) == []
    assert not done.path.exists()


def test_a_training_of_few_steps_is_told_as_such(tmp_path):
    found = fitted(tmp_path, **{"trainer.max_steps": 5, "trainer.max_epochs": 1}).profile
    assert found.steps == 5
    assert found.measured == 0
    assert found.overhead is None
    assert found.step_ms is None
    assert next(each for each in found.operators if each.name == "aten::convolution_backward").calls == 3


def test_nothing_is_measured_outside_of_a_training():
    profiler = StepProfiler()
    with profiler.profile("run_training_epoch"):
        pass
    assert profiler.found().steps == 0
    assert profiler.found().parts == ()
