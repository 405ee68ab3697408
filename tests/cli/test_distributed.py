"""Two real processes: every image is evaluated once, and the numbers are those of one process."""

import json
import subprocess
import sys

import pytest
import torch

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.evaluation.predictions import read_predictions


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_ranks_evaluate_every_image_once(tmp_path):
    settings = flags(data__synthetic__val=33, data__synthetic__test=35, trainer__default_root_dir=tmp_path / "outputs")
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "visionforge", "fit", *settings, *two]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = run_folders(tmp_path / "outputs")
    shown, labels = read_predictions(run / "predictions.csv")
    assert len(shown) == len(labels) == 35
    assert done.stderr.count("epoch 2, loss") == 1
    one = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    assert main(["test", "--run", str(run), *one]) == 0
    again = json.loads((run / "evaluations" / "test_best" / "metrics.json").read_text())
    reported = json.loads((run / "metrics.json").read_text())
    assert again["without_tta"] == pytest.approx(reported["without_tta"], abs=1e-5)
    assert again["with_tta"] == pytest.approx(reported["with_tta"], abs=1e-5)
