"""Groups from a CSV file to the report: patients stay together in folds, and intervals and comparisons count them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import visionforge as vf
from tests.conftest import run_folders
from visionforge.cli.main import main

PATIENTS, EACH = 24, 5


def settle(patch, folder):
    """Let catalog, key and archives lie in a folder."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "VISIONFORGE_DATA"):
        patch.setenv(name, str(folder / name.lower()))
    patch.chdir(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs and an ensemble of folds, of pictures of patients."""
    folder = tmp_path_factory.mktemp("groups")
    patch = pytest.MonkeyPatch()
    settle(patch, folder)
    rng = np.random.default_rng(0)
    with (folder / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "patient"])
        for patient in range(PATIENTS):
            shade = rng.integers(0, 60)
            for number in range(EACH):
                label = patient % 2
                pixels = rng.integers(0, 120, (28, 28), np.uint8) + np.uint8(shade)
                pixels[8:20, 8:20] += np.uint8(40 * label)
                Image.fromarray(pixels).save(folder / f"{patient}_{number}.png")
                table.writerow([f"{patient}_{number}.png", ("no", "yes")[label], f"p{patient}"])
    flags = ["--name", "patients", "--groups", "patient", "--fractions", "0.5", "0.2", "0.3"]
    assert main(["datasets", "import", str(folder / "list.csv"), *flags]) == 0
    asked = {
        "data.dataset": "patients",
        "data.batch_size": 16,
        "model.backbone.name": "mini_cnn",
        "model.backbone.pretrained": False,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "evaluation.resamples": 200,
        "evaluation.figures": False,
    }
    one, two = vf.fit(**asked), vf.fit(**asked, seed_everything=7)
    folds = vf.fit(**asked, **{"data.fold_pool": "all"}, folds=3)
    patch.undo()
    return one, two, folds, folder


@pytest.fixture
def runs(made, monkeypatch):
    """The same, where their data is found."""
    settle(monkeypatch, made[3])
    return made[:3]


def test_intervals_count_patients(runs):
    run, _, _ = runs
    content = json.loads((run.path / "metrics.json").read_text())
    groups = {row["group"] for row in csv.DictReader((run.path / "predictions.csv").open(newline=""))}
    assert content["intervals"]["groups"] == len(groups)
    assert "whole groups" in content["intervals"]["method"]
    assert f"by whole groups, of which there are {len(groups)}" in (run.path / "report.html").read_text()
    alone = vf.evaluate(run, **{"data.groups": False})
    assert alone.content["intervals"]["groups"] is None
    assert alone.metrics == run.metrics
    wide, narrow = (np.ptp(each.intervals["accuracy"]) for each in (run, alone))
    assert wide > narrow


def test_no_patient_is_in_two_folds_and_the_out_of_fold_intervals_count_patients(runs):
    _, _, made = runs
    with (made.ensemble.path / "out_of_fold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PATIENTS * EACH
    folds = {}
    for row in rows:
        folds.setdefault(row["group"], set()).add(row["fold"])
    assert len(folds) == PATIENTS
    assert all(len(each) == 1 for each in folds.values())
    content = json.loads((made.ensemble.path / "metrics.json").read_text())
    assert content["intervals"]["groups"] == PATIENTS
    assert content["split"] == "out-of-fold"


def test_comparisons_count_patients(runs):
    one, two, _ = runs
    compared = vf.compare([one, two], resamples=200)
    assert compared.content["tests"] == []
    assert "DeLong" in " ".join(compared.content["left_out"])  # which takes each image for itself
    rows = {row["metric"]: row for row in compared.content["differences"]}
    reading = next(name for name in rows if name.endswith(".accuracy"))
    from visionforge.evaluation.bootstrap import paired_differences
    from visionforge.evaluation.predictions import read_groups, scorer_of
    from visionforge.scoring.clusters import Clusters

    tta = reading.startswith("with_tta")
    scorers = [scorer_of(run.path / "predictions.csv", "binary", tta, 1) for run in (two, one)]
    for scorer in scorers:
        scorer.clusters = Clusters(read_groups(one.path / "predictions.csv"))
    expected = paired_differences(scorers[:1], scorers[1:], 200)["accuracy"]
    assert rows[reading]["value"] == pytest.approx(expected.value)
    assert (rows[reading]["interval"] is None) == (expected.interval is None)


def test_more_folds_than_patients_and_folds_without_patients(runs, made, capsys):
    asked = ["--data.dataset", "patients", "--model.backbone.name", "mini_cnn", "--model.backbone.pretrained", "false"]
    before = run_folders(made[3] / "outputs")
    assert main(["fit", *asked, "--folds", "18", "--data.batch_size", "8"]) == 2
    (problem,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "data.folds: 18 is more than the" in problem
    assert "groups of patients" in problem
    assert run_folders(made[3] / "outputs") == before
