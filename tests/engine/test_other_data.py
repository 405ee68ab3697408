"""A run whose data set was imported anew is tested with a warning, and not repeated."""

import numpy as np
import pytest
from PIL import Image

import visionforge as vf
from visionforge.engine.reproduce import reproduce
from visionforge.errors import DataError, SettingsError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))

    def imported(count: int) -> None:
        for number in range(count):
            folder = tmp_path / "photos" / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}x.png")
        vf.import_dataset(tmp_path / "photos", "photos", resolution=16, replace=True)

    return imported


@pytest.mark.slow
def test_other_pictures_are_told_before_a_result_is_believed(photos, tmp_path, caplog, capsys):
    photos(30)
    settings = {
        "data": {"dataset": "photos", "resolution": 16, "batch_size": 8},
        "model": {"backbone": {"name": "mini_cnn", "pretrained": False}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(tmp_path)},
        "evaluation": {"resamples": 0, "report": False, "figures": False},
    }
    run = vf.fit(settings)
    capsys.readouterr()
    vf.evaluate(run)
    assert "another one now" not in capsys.readouterr().err
    photos(34)
    (again,) = vf.fit(settings, seeds=1)  # the complete run of the same settings has seen other pictures
    assert again.name != run.name
    assert f"{run.name} is not taken as complete: photos is another one now" in capsys.readouterr().err
    (same,) = vf.fit(settings, seeds=1)
    assert same.name == again.name
    note = vf.compare([run, again], resamples=100).content["note"]
    assert note.startswith("not comparable: ")
    assert "photos has been another data set since (MD5 " in note
    vf.evaluate(run)
    line = "photos is another one now (MD5 "
    assert line in (told := capsys.readouterr().err)
    assert f"than {run.name} was begun with" in told
    space = {"model.backbone.dropout": {"low": 0, "high": 0.5}}
    search = {**settings, "tune": {"study": "s", "preset": "none", "space": space}}
    vf.tune(search, n_trials=1)
    photos(36)
    with pytest.raises(DataError, match=r"tune.study: photos is another one now .*; begin another study with"):
        vf.tune(search, n_trials=2)
    with pytest.raises(DataError, match="reproduce: photos is another one now"):
        reproduce(run)
    assert any(note.startswith("data: photos is another one now") for note in reproduce(run, check=True).notes)


def test_a_path_whose_data_set_is_there_is_answered_with_its_name(photos, tmp_path, monkeypatch):
    photos(30)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="photos/ is a path; the data set that was made of it is called photos"):
        vf.ImageDataModule("photos/")
    (tmp_path / "others").mkdir()
    with pytest.raises(SettingsError, match=r"make a data set of it with .visionforge datasets import others"):
        vf.ImageDataModule("others")
