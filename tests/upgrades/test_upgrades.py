"""What every released version has written is read by this one, and says the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import visionforge as vf
from visionforge.cli.main import main
from visionforge.config.loading import read_yaml
from visionforge.data.registry import catalog_folder
from visionforge.data.source import load_split
from visionforge.inference.artifacts import load_predictor

KEPT = sorted(path for path in Path(__file__).parent.iterdir() if (path / "run").is_dir())


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def kept(request, monkeypatch, tmp_path) -> Path:
    """Return a copy of what a version has left, its data set in the catalog."""
    folder = tmp_path / "project"
    shutil.copytree(request.param, folder)
    (folder / "outputs").mkdir()
    (folder / "run").rename(folder / "outputs" / "old")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(folder / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(folder / "archives"))
    return folder


def test_this_version_is_kept():
    assert vf.__version__ in {path.name for path in KEPT}, "run python -m tests.upgrades.make, and add what it wrote"


def test_a_configuration_means_what_it_did(kept):
    stored = read_yaml(kept / "outputs" / "old" / "config.yaml")
    resolved = vf.RunSettings.model_validate(read_yaml(kept / "config.yaml")).model_dump(mode="json")
    for section in ("data", "model"):
        known = {key: value for key, value in stored[section].items() if key != "root"}
        assert {key: resolved[section][key] for key in known} == known
    assert main(["fit", "--config", "config.yaml", "--print_config"]) == 0


def test_a_run_is_listed_shown_and_compared(kept, capsys):
    run = vf.open_run(kept / "outputs" / "old")
    assert run.metrics["accuracy"] == json.loads((run.path / "metrics.json").read_text())["with_tta"]["accuracy"]
    assert list(run.epochs["epoch"]) == [0, 1]
    assert len(run.predictions) == 12
    for arguments in (
        ["list"],
        ["show", "old"],
        ["compare", "old", "old", "--resamples", "20"],
        ["diff", "old", "old"],
    ):
        assert main(["runs", *arguments]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_catalog_entry_and_its_archive_are_read(kept):
    assert catalog_folder() == kept / "catalog"
    info = vf.dataset_info("stripes")
    assert (info.classes, info.columns) == (("lying", "standing"), ("site",))
    assert load_split(info, 12, None, "test").images.shape == (12, 12, 12)
    assert main(["datasets", "check", "stripes", "--resolution", "12"]) == 0


def test_a_checkpoint_predicts_and_is_tested_the_same(kept):
    stored = vf.open_run("old")
    result = vf.evaluate(stored, "test", evaluation={"report": False, "figures": False})
    for name, value in stored.metrics.items():
        assert result.metrics[name] == pytest.approx(value, abs=1e-4), name
    numbers = stored.predictions.select_dtypes("number").columns
    pd.testing.assert_frame_equal(
        result.predictions[numbers], stored.predictions[numbers], atol=1e-4, check_dtype=False
    )


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_an_artifact_says_what_its_run_said(kept, kind):
    images = load_split(vf.dataset_info("stripes"), 12, None, "test").images
    (kept / "photos").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(np.asarray(image)).save(kept / "photos" / f"{number:02d}.png")
    said = vf.predict(kept / kind / f"model.{kind}", kept / "photos", out="said.csv").table
    of_run = vf.predict("old", kept / "photos").table
    numbers = [name for name in of_run.select_dtypes("number") if name in said]
    assert {"probability_lying", "probability_standing"} <= set(numbers)
    pd.testing.assert_frame_equal(said[numbers], of_run[numbers], atol=1e-4)
    assert load_predictor(kept / kind / f"model.{kind}").spec.classes == ("lying", "standing")


def test_a_training_goes_on_from_its_checkpoint(kept):
    """Under new settings, and as the same run with more epochs."""
    on = vf.fit(
        "config.yaml",
        ckpt_path=str(kept / "outputs" / "old" / "checkpoints" / "last.ckpt"),
        trainer={"max_epochs": 3, "default_root_dir": "outputs"},
    )
    assert list(on.epochs["epoch"]) == [2]
    assert on.state == "complete"
