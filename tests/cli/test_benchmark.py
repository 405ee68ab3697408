"""A benchmark from the command line, on real trainings of a second: shared, killed, gone on with, and no cell twice."""

import contextlib
import json
import os
import signal
import time

import psutil
import pytest
import torch

from tests.conftest import QUICK, run_folders
from visionforge.cli.main import main
from visionforge.config.schema import Backbone
from visionforge.models.build import build_network

MATRIX = {
    "benchmark.datasets": "[synthetic]",
    "benchmark.resolutions": "[8]",
    "benchmark.backbones": "[mini_cnn]",
    "benchmark.seeds": "[1]",
    "evaluation.resamples": 0,
}


def arguments(outputs, **changes):
    left = {key: value for key, value in QUICK.items() if key not in ("data.dataset", "data.resolution")}
    given = {**left, **MATRIX, "trainer.default_root_dir": outputs}
    given |= {key.replace("__", "."): value for key, value in changes.items()}
    return [text for key, value in given.items() for text in (f"--{key}", str(value))]


def leaderboard(outputs, name="benchmark"):
    return json.loads((outputs / "benchmarks" / name / "leaderboard.json").read_text())


@pytest.mark.slow
def test_cells_are_ordinary_runs_that_are_found_again(tmp_path, capsys, refuse):
    assert main(["benchmark", *arguments(tmp_path, benchmark__watts=10)]) == 0
    (run,) = run_folders(tmp_path)
    told = capsys.readouterr()
    assert "1 cells: 0 complete, 1 to do" in told.out
    assert "leaderboard: " in told.out
    assert json.loads((run / "run.json").read_text())["parent"]["reason"] == "benchmark"
    content = leaderboard(tmp_path)
    (row,) = content["tables"][0]["rows"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert (
        row["metrics"]["accuracy"]["mean"]
        == metrics[max(k for k in ("with_tta", "without_tta") if metrics.get(k))]["accuracy"]
    )
    assert row["parameters"] > 10_000
    assert row["multiply_adds"] > 100_000
    assert row["images_per_second"] > 0
    assert row["energy_wh"] == pytest.approx(row["cpu_seconds"] / 360)
    # under another name the run is taken as it is
    assert main(["benchmark", *arguments(tmp_path, benchmark__name="other")]) == 0
    assert run_folders(tmp_path) == [run]
    assert leaderboard(tmp_path, "other")["tables"][0]["rows"][0]["cpu_seconds"] is None
    capsys.readouterr()
    assert main(["benchmark", "--list", *arguments(tmp_path)]) == 0
    assert "complete" in capsys.readouterr().out
    assert main(["benchmark", "--leaderboard-only", *arguments(tmp_path)]) == 0
    (line,) = refuse("benchmark", "--leaderboard-only", *arguments(tmp_path, benchmark__name="nothing"))
    assert "holds no database/study.db" in line
    (line,) = refuse("benchmark", "--suite", "nothing")
    assert line == "benchmark.suite: nothing is not allowed; allowed: medmnist2d, medmnist3d, quick"
    (line,) = refuse("benchmark", "--suite", "quick", "--workers", "0")
    assert line.startswith("benchmark.workers: 0 is not allowed")


@pytest.mark.slow
def test_a_cell_of_a_recipe_may_be_a_probe_that_is_found_again(tmp_path):
    torch.save(build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 8)[0].state_dict(), tmp_path / "w.pth")
    chosen = f"model: {{backbone: {{pretrained: true, weights: {tmp_path / 'w.pth'}}}}}"
    (tmp_path / "frozen.yaml").write_text(f"stage: probe\n{chosen}")
    for name in ("one", "two"):
        given = arguments(tmp_path, benchmark__recipes=f"[{tmp_path / 'frozen.yaml'}]", benchmark__name=name)
        assert main(["benchmark", *given]) == 0
        (run,) = run_folders(tmp_path)
        content = json.loads((run / "run.json").read_text())
        assert content["stage"] == "probe"
        assert content["parent"]["reason"] == "benchmark"
        (row,) = leaderboard(tmp_path, name)["tables"][0]["rows"]
        assert row["recipe"] == "frozen"


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_train_every_cell_once(fleet, tmp_path):
    given = arguments(tmp_path, benchmark__seeds="[1, 2, 3]", benchmark__backbones="[mini_cnn, resnet18]")
    first = fleet.start("benchmark", "--workers", "2", *given)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not run_folders(tmp_path):
        time.sleep(0.05)
    workers = psutil.Process(first).children()
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    time.sleep(3)
    for each in [psutil.Process(first), *psutil.Process(first).children()]:  # and then all of them
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    fleet.wait()
    done = fleet.run("benchmark", "--workers", "2", *given)
    assert done.status == 0, done.err
    content = leaderboard(tmp_path)
    assert content["cells"] == {"all": 6, "complete": 6}
    states = [json.loads((run / "run.json").read_text())["state"] for run in run_folders(tmp_path)]
    assert states == ["complete"] * 6
    assert "0 to do" in fleet.run("benchmark", *given).out
