"""Two real processes: every image is evaluated once, and the numbers are those of one process."""

import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch

from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.runs.helpers import wait_for
from visionforge.cli.main import main
from visionforge.evaluation.predictions import read_predictions


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_ranks_evaluate_every_image_once(tmp_path):
    settings = flags(data__synthetic__val=33, data__synthetic__test=35, trainer__default_root_dir=tmp_path / "outputs")
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    (tmp_path / "mine.yaml").write_text("model: {loss: {label_smoothing: 0.125}}\n")
    command = shlex.join([sys.executable, "-m", "visionforge", "fit", *settings, *two])
    piped = ["bash", "-c", f"{command} --config <(cat mine.yaml)"]  # which only the first can read
    done = subprocess.run(piped, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = run_folders(tmp_path / "outputs")
    assert "label_smoothing: 0.125" in (run / "config.yaml").read_text()
    shown, labels = read_predictions(run / "predictions.csv")
    assert len(shown) == len(labels) == 35
    assert done.stderr.count("epoch 2, loss") == 1
    one = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    assert main(["test", "--run", str(run), *one]) == 0
    again = json.loads((run / "evaluations" / "test_best" / "metrics.json").read_text())
    reported = json.loads((run / "metrics.json").read_text())
    assert again["without_tta"] == pytest.approx(reported["without_tta"], abs=1e-5)
    assert again["with_tta"] == pytest.approx(reported["with_tta"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_a_split_with_fewer_images_than_ranks_is_one_line(tmp_path):
    settings = flags(data__synthetic__val=1, trainer__default_root_dir=tmp_path)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1"]
    command = [sys.executable, "-m", "visionforge", "fit", *settings, *two]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "its val split has 1 images for 2 processes, each of which needs one; set trainer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_ranks_find_the_same_boxes(tmp_path):
    """Also where they have unequal shares of a split, and batches other than those of one process."""
    boxes = {"task": "detection", "classes": 2, "train": 400, "val": 33, "test": 35}
    settings = flags(
        **{f"data__synthetic__{name}": value for name, value in boxes.items()},
        data__resolution=32,
        data__batch_size=16,
        model__detector__name="faster_rcnn",  # of which a part is drawn at random
        model__detector__width=32,
        model__optimizer__name="adamw",
        model__optimizer__learning_rate=0.003,
        trainer__max_epochs=3,
        trainer__default_root_dir=tmp_path / "outputs",
    )
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    program = [sys.executable, "-m", "visionforge"]
    done = subprocess.run([*program, "fit", *settings, *two], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = run_folders(tmp_path / "outputs")
    reported = json.loads((run / "metrics.json").read_text())
    assert reported["images"] == 35
    assert reported["without_tta"]["map_50"] > 0
    assert main(["test", "--run", str(run), "--trainer.devices", "1", "--trainer.strategy", "auto"]) == 0
    (alone,) = (run / "evaluations").iterdir()
    again = json.loads((alone / "metrics.json").read_text())
    for reading in ("without_tta", "with_tta"):
        assert again[reading] == pytest.approx(reported[reading], abs=1e-5)
    one, other = (json.loads((folder / "predictions.json").read_text()) for folder in (alone, run))
    assert [(box["image_id"], box["category_id"]) for box in one] == [
        (box["image_id"], box["category_id"]) for box in other
    ]
    np.testing.assert_allclose([box["bbox"] for box in one], [box["bbox"] for box in other], atol=2e-3)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
@pytest.mark.parametrize("whom", [*(pytest.param(who, marks=EXHAUSTIVE) for who in ("first", "second")), "all"])
def test_two_ranks_stop_after_the_same_step_and_go_on(tmp_path, whom):
    outputs = tmp_path / "outputs"
    settings = flags(data__synthetic__train=320, trainer__max_epochs=8, trainer__deterministic="true")
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    begin = [sys.executable, "-m", "visionforge", "fit", *settings, *two, "--trainer.default_root_dir", str(outputs)]
    process = subprocess.Popen(begin, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: any(progress(run) >= 1 for run in run_folders(outputs)), 120)
    (run,) = run_folders(outputs)
    if whom == "all":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        (second,) = [each for each in psutil.Process(process.pid).children() if each.environ().get("LOCAL_RANK") == "1"]
        os.kill(process.pid if whom == "first" else second.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said[-3000:]
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    resume = [sys.executable, "-m", "visionforge", "fit", "--resume", str(run), *two]
    done = subprocess.run(resume, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    stored = json.loads((run / "run.json").read_text())
    assert (stored["state"], stored["progress"]["epochs"]) == ("complete", 8)
    assert stored["sessions"][1]["hardware"]["processes"] == 2
    log = (run / "run.log").read_text()
    assert [log.count(f"epoch {epoch}, loss") for epoch in range(1, 9)] == [1] * 8
    assert "ERROR" not in log + (run / "run.rank1.log").read_text()


def progress(run):
    return json.loads((run / "run.json").read_text())["progress"].get("epochs", 0)
