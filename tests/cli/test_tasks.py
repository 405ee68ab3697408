"""Every task through every command of a run, and killed in the middle it ends with the same weights."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_interruption import has_ended_like, only_run, settings, trained
from tests.conftest import flags, run_folders
from tests.runs.helpers import wait_for
from visionforge.cli.main import main
from visionforge.config.schema.tasks import task_named

TASKS = ("binary", "multi-class", "multi-label", "ordinal")
pytestmark = pytest.mark.slow


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def probabilities(path):
    return np.array([[float(row[name]) for name in row if name.startswith("probability")] for row in rows(path)])


@pytest.mark.parametrize("task", TASKS)
def test_every_command_of_a_run_takes_the_task(task, tmp_path, capsys):
    given = flags(data__synthetic__task=task, data__synthetic__train=96, evaluation__report="true")
    outputs = tmp_path / "o"
    assert main(["fit", *given, "--trainer.default_root_dir", str(outputs)]) == 0
    (run,) = run_folders(outputs)
    content = json.loads((run / "metrics.json").read_text())
    assert set(task_named(task).headlines) <= set(content["with_tta"])
    assert (run / "report.html").is_file()

    assert main(["test", "--run", str(run)]) == 0
    (again,) = (run / "evaluations").iterdir()
    assert json.loads((again / "metrics.json").read_text())["with_tta"] == content["with_tta"]
    assert (again / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{index}.png")
    said, exported = tmp_path / "said.csv", tmp_path / "exported.csv"
    assert main(["predict", "--run", str(run), "--images", str(pictures), "--out", str(said)]) == 0
    capsys.readouterr()
    assert main(["export", "--run", str(run), "--format", "onnx"]) == 0
    assert "100.00% have the same prediction" in capsys.readouterr().out
    artifact = str(run / "export" / "onnx" / "model.onnx")
    assert main(["predict", "--model", artifact, "--images", str(pictures), "--out", str(exported)]) == 0
    np.testing.assert_allclose(probabilities(exported), probabilities(said), atol=1e-5)
    assert [row["prediction"] for row in rows(exported)] == [row["prediction"] for row in rows(said)]
    explained = ["--images", str(pictures), "--limit", "1", "--out", str(tmp_path / "maps")]
    assert main(["explain", "--run", str(run), *explained]) == 0

    assert main(["reproduce", str(run)]) == 0
    few = [*given, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path / "s")]
    assert main(["fit", *few, "--seeds", "1,2"]) == 0
    capsys.readouterr()
    assert main(["runs", "compare", *map(str, run_folders(tmp_path / "s")), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert {difference["metric"].partition(".")[2] for difference in compared["differences"]} >= {"accuracy", "auc"}
    assert compared["note"] is None
    assert main(["runs", "show", str(run)]) == 0
    search = ("--tune.n_trials", "2")
    assert main(["tune", *given, *search, "--trainer.default_root_dir", str(tmp_path / "t")]) == 0


@pytest.mark.parametrize("task", [task for task in TASKS if task != "multi-class"])  # which is killed elsewhere
def test_killed_it_ends_with_the_same_weights(task, fleet, tmp_path):
    changes = {"data__synthetic__task": task, "trainer__max_epochs": 4}
    if task == "ordinal":
        changes["model__loss__name"] = "ordinal"
    ended = fleet.run("fit", *settings(tmp_path / "whole", **changes))
    assert ended.status == 0, ended.err
    pid = fleet.start("fit", *settings(tmp_path / "killed", **changes))
    wait_for(trained(tmp_path / "killed", 2))
    os.kill(pid, signal.SIGKILL)
    fleet.wait()
    killed = only_run(tmp_path / "killed")
    again = fleet.run("fit", "--resume", killed)
    assert again.status == 0, again.err
    has_ended_like(killed, only_run(tmp_path / "whole"))
