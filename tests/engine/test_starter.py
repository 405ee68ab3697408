"""A starter looks at what is there and gives settings that work, whatever the task, and says why."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import visionforge as vf
from tests.conftest import run_folders
from visionforge import SettingsError, starter
from visionforge.cli.main import main
from visionforge.config.rules import DeviceFacts
from visionforge.config.schema import Synthetic
from visionforge.data.registry import dataset_info
from visionforge.engine.starter_settings import choose
from visionforge.engine.validation import check_settings
from visionforge.errors import DataError

TASKS = ("binary", "multi-class", "multi-label", "ordinal", "segmentation", "detection")
GPU = DeviceFacts("a GPU", float16=True, bfloat16=True, gpu=True, fast_bfloat16=True)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Let archives and entries lie in the test's folder, in which it works."""
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def picture(path, brightness, side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 60, (side, side + 10, 3))
    Image.fromarray((noise + brightness).astype(np.uint8)).save(path)


def photos(folder, count=20, side=40):
    for name, brightness in (("dark", 0), ("light", 150)):
        for i in range(count):
            picture(folder / name / f"{i}.png", brightness, side)
    return folder


def patients(file, columns=("path", "diagnosis", "patient_id")):
    photos(file.parent / "photos")
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        for name in ("dark", "light"):
            writer.writerows([f"photos/{name}/{i}.png", name, f"{name} {i // 2}"] for i in range(20))
    return file


# --- what is chosen


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("gpu", [False, True])
def test_settings_of_every_task_are_valid(task, gpu, monkeypatch):
    info = dataset_info("synthetic", Synthetic(task=task))
    settings, reasons, minutes = choose(info, 10, gpu, 2)
    settings["data"]["synthetic"] = {"task": task}
    checked = check_settings(settings, "fit")
    assert checked.data.dataset == "synthetic"
    assert (minutes is None) == gpu
    found = vf.Starter(info, settings, reasons, minutes, "a test")
    assert yaml.safe_load(found.yaml()) == settings
    keys = [f"{section}.{name}" for section, content in settings.items() for name in content]
    assert sorted(set(keys) - {*reasons, "data.synthetic"}) == [], "every choice has its reason"


@pytest.mark.parametrize("name", [name for name in vf.dataset_names() if name != "synthetic"])
def test_settings_of_every_data_set_of_the_catalog_are_valid(name):
    info = dataset_info(name)
    for gpu in (False, True):
        settings, *_ = choose(info, 10, gpu, 2)
        check_settings(settings, "fit")


def test_more_minutes_are_more_epochs_and_a_gpu_has_all_of_them(monkeypatch):
    epochs = {
        minutes: starter("bloodmnist", minutes=minutes).settings["trainer"]["max_epochs"] for minutes in (1, 10, 600)
    }
    assert 1 <= epochs[1] < epochs[10] < epochs[600] == 30
    found = starter("bloodmnist", minutes=1)
    assert "of 30 that would be better: --minutes 1 allows no more" in found.yaml()
    for place in ("starter", "starter_source"):
        monkeypatch.setattr(f"visionforge.engine.{place}.device_facts", lambda accelerator: GPU)
    on_gpu = starter("bloodmnist", minutes=1)
    assert (on_gpu.settings["trainer"]["max_epochs"], on_gpu.minutes, on_gpu.device) == (30, None, "a GPU")
    assert on_gpu.settings["data"]["resolution"] == 224
    assert found.settings["data"]["resolution"] == 28


# --- what is there


def test_a_folder_of_classes_becomes_a_data_set_and_a_file(own_folders, capsys):
    photos(own_folders / "My photos")
    assert main(["init", "My photos"]) == 0
    told = capsys.readouterr().out
    assert "next     visionforge fit --config my_photos.yaml     (about " in told
    text = (own_folders / "my_photos.yaml").read_text()
    assert "#     visionforge fit --config my_photos.yaml" in text
    assert check_settings(yaml.safe_load(text), "fit").data.dataset == "my_photos"
    assert main(["init", "My photos"]) == 2
    assert "--output: my_photos.yaml is there already; name another, or give --overwrite" in capsys.readouterr().err
    assert main(["init", "My photos", "--overwrite", "--json", "--minutes", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "my_photos.yaml"


def test_it_finds_the_only_source_in_a_folder(own_folders):
    photos(own_folders / "photos")
    (own_folders / "notes").mkdir()
    assert starter().info.name == "photos"
    photos(own_folders / "others")
    with pytest.raises(DataError, match=r"there are 2 of them: others, photos; name one"):
        starter()
    assert starter("others").info.splits.train > 0


def test_patients_of_a_table_stay_together(own_folders):
    found = starter(patients(own_folders / "patients.csv"))
    assert "pictures of the same patient_id are in the same split" in found.imported.notes
    tables = [
        vf.ImageDataModule("patients", resolution=found.info.resolutions[0]).side_table(s) for s in ("train", "test")
    ]
    one, other = (set(table.groups) for table in tables)
    assert one
    assert other
    assert not one & other


@pytest.mark.parametrize(("side", "resolution"), [(30, 28), (90, 64), (300, 64)])
def test_pictures_are_stored_as_large_as_a_cpu_can_train(own_folders, side, resolution):
    photos(own_folders / "photos", 8, side)
    assert starter("photos").info.resolutions == (resolution,)


def test_pictures_with_masks_get_a_decoder(own_folders):
    for i in range(12):
        picture(own_folders / "cells" / "images" / f"{i}.png", 10, 64)
        mask = np.zeros((64, 74), np.uint8)
        mask[10:30, 20:40] = 255
        (own_folders / "cells" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(own_folders / "cells" / "masks" / f"{i}.png")
    found = starter("cells")
    assert found.info.task == "segmentation"
    assert found.settings["model"]["decoder"] == {"name": "unet"}
    check_settings(found.settings, "fit")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nothing/", "nothing/: does not exist"),
        ("bloodmnst", "bloodmnst: there is no folder, table or data set of this name here; nearest: bloodmnist"),
        ("emty", "emty: there is no folder, table or data set of this name here; nearest: empty"),
        ("empty", "empty: looked for a folder of class folders"),
        ("file.txt", "file.txt: is no table"),
    ],
)
def test_what_cannot_be_a_source_is_one_line(own_folders, capsys, source, line):
    (own_folders / "empty").mkdir()
    (own_folders / "file.txt").touch()
    for command in ("init", "fit"):
        assert main([command, source]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("error: ") == 1


def test_the_same_source_again_is_taken_as_it_is_and_another_is_refused(own_folders, capsys):
    photos(own_folders / "one" / "photos")
    photos(own_folders / "two" / "photos", count=12)
    assert starter("one/photos").imported is not None
    again = starter("one/photos")
    assert again.imported is None
    assert "photos was made of it before" in again.note
    assert main(["init", "one/photos"]) == 0
    assert "! photos was made of it before" in capsys.readouterr().out
    with pytest.raises(SettingsError, match=r"there is another data set 'photos'; make this one with"):
        starter("two/photos")
    assert starter("two/photos", name="photos_2").info.splits.train < again.info.splits.train
    photos(own_folders / "digits")
    with pytest.raises(SettingsError, match=r"there is another data set 'digits'"):
        starter("digits/")
    for given in ({"name": "mine"}, {"task": "ordinal"}):
        with pytest.raises(SettingsError, match=r"is for pictures, and bloodmnist is a data set of the catalog"):
            starter("bloodmnist", **given)
    with pytest.raises(SettingsError, match=r"task: photos was made as binary"):
        starter("one/photos", task="multi-class")


def typed(text):
    """Return the arguments of the first command that a message names."""
    return shlex.split(re.findall("`visionforge ([^`]+)`", text)[0])


def test_a_name_that_is_a_folder_here_and_another_in_the_catalog_is_asked_for(own_folders, capsys):
    photos(own_folders / "one" / "photos")
    assert starter("one/photos").imported is not None
    photos(own_folders / "photos", count=12)
    for command in ("init", "fit"):
        assert main([command, "photos"]) == 2
        error = capsys.readouterr().err
        assert "photos: is a folder here, and a data set of the catalog that was made of another, " in error
        assert (
            "type `visionforge fit photos/` for the folder, `visionforge fit photos --data.dataset photos` for" in error
        )
    assert main(["fit", "photos", "--data.dataset", "photos", "--print_config"]) == 0
    assert "fastnet" in capsys.readouterr().out
    assert main(["fit", "photos/"]) == 2
    (command, _) = re.findall("`visionforge ([^`]+)`", capsys.readouterr().err)
    assert command == "init photos/ --name photos_2"
    assert main(command.split()) == 0
    assert dataset_info("photos_2").made_from == str(own_folders / "photos")
    photos(own_folders / "photos_2")
    assert starter(Path("photos_2"), name="third").imported is not None


def test_what_has_changed_since_is_told_with_the_command_that_reads_it_again(own_folders, capsys, caplog):
    photos(own_folders / "My photos", side=90)
    assert starter("My photos").note is None
    picture(own_folders / "My photos" / "dark" / "more.png", 0)
    again = starter("My photos")
    assert "my_photos was made of it before, and it has 1 picture more than were taken then; `visionforge" in again.note
    assert again.note in caplog.text
    command = typed(again.note)
    assert command == ["datasets", "import", "My photos", "--name", "my_photos", "--resolution", "64", "--replace"]
    assert main(command) == 0
    assert sum(dataset_info("my_photos").splits.model_dump().values()) == 41
    assert starter("My photos").note.startswith("my_photos was made of it before; `visionforge")
    assert main(["init", "my_photos"]) == 0, "no folder is called so"
    assert "was made of it" not in capsys.readouterr().out
    patients(own_folders / "patients.csv", ("path", "diagnosis", "age"))
    before = starter("patients.csv", columns=("age",), positive="dark", rotation="any", resolution=32).info
    assert main(typed(starter("patients.csv").note)) == 0
    assert dataset_info("patients") == before, "the settings are those that it was made with"
    starter(patients(own_folders / "grouped.csv"))
    assert typed(starter("grouped.csv").note)[-3:] == ["--group-column", "patient_id", "--replace"]


# --- further settings of the import


def test_init_takes_what_an_import_takes(own_folders, capsys):
    photos(own_folders / "photos")
    assert main(["init", "photos", "--resolution", "32", "--positive", "light", "--no_hflip"]) == 0
    info = dataset_info("photos")
    assert (info.resolutions, info.positive, info.flags.hflip) == ((32,), "light", False)
    assert main(["init", "photos", "--positive", "dark", "--overwrite"]) == 2
    assert "--positive: photos was made of it before; add --replace to make it anew" in capsys.readouterr().err
    assert main(["init", "photos", "--positive", "dark", "--overwrite", "--replace"]) == 0
    assert dataset_info("photos").positive == "dark"
    patients(own_folders / "patients.csv", ("path", "diagnosis", "age"))
    found = starter("patients.csv", columns=("age",), fractions=[0.5, 0.25, 0.25])
    assert (found.info.columns, found.info.splits.test) == (("age",), 10)
    assert found.command == "visionforge init patients.csv --fractions 0.5 0.25 0.25 --columns age"
    with pytest.raises(SettingsError, match="columns: is for pictures, and bloodmnist is a data set of the catalog"):
        starter("bloodmnist", columns="age")


def test_a_column_for_results_of_subgroups_is_told_with_what_keeps_it(own_folders, capsys):
    patients(own_folders / "patients.csv", ("path", "diagnosis", "patient sex"))
    assert main(["init", "patients.csv"]) == 0
    told = capsys.readouterr().out
    assert "! `--columns 'patient sex'` keeps it for results by patient sex (`visionforge init patients.csv " in told
    assert main(typed(told)) == 0
    assert dataset_info("patients").columns == ("patient sex",)
    assert "keeps it for" not in capsys.readouterr().out


def test_what_an_import_tells_is_told_with_the_command_that_changes_it(own_folders, capsys):
    photos(own_folders / "photos")
    assert main(["init", "photos/"]) == 0
    command = typed(capsys.readouterr().out)
    assert command == ["init", "photos/", "--positive", "CLASS", "--replace", "--overwrite"]
    assert main([*command[:3], "light", *command[4:]]) == 0
    for i in range(12):
        picture(own_folders / "cells" / "images" / f"{i}.png", 10, 64)
        (own_folders / "cells" / "masks").mkdir(exist_ok=True)
        mask = np.full((64, 74), 255, np.uint8)
        mask[10:30, 20:40] = 0
        mask[:3] = 7
        Image.fromarray(mask).save(own_folders / "cells" / "masks" / f"{i}.png")
    assert main(["fit", "cells", "--print_config"]) == 2
    error = capsys.readouterr().err
    assert main(typed(error)) == 0


def test_a_table_that_names_no_pictures_is_none(own_folders):
    photos(own_folders / "photos")
    (own_folders / "photos" / "log.csv").touch()
    (own_folders / "photos" / "runs.csv").write_text("run,class\n1,2\n")
    assert starter("photos").info.name == "photos"


def test_a_wrong_name_of_the_file_is_told_before_pictures_are_read(own_folders, capsys):
    photos(own_folders / "photos")
    assert main(["init", "photos", "--output", "x.txt"]) == 2
    assert "--output: x.txt is not allowed" in capsys.readouterr().err
    assert "photos" not in vf.dataset_names()


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        (["--model.schedule.name", "cosine"], "model.schedule.name", "cosine"),
        (["--data.augmentation.preset", "none"], "data.augmentation.preset", "none"),
        (["--model.backbone.name", "mini_cnn"], "model.backbone.name", "mini_cnn"),
        (
            ["--model.optimizer.name", "adamw", "--model.optimizer.learning_rate", "0.001"],
            "model.optimizer.name",
            "adamw",
        ),
        (["--model.schedule.rise_fraction", "0.4"], "model.schedule.rise_fraction", 0.4),
    ],
)
def test_a_part_that_is_named_takes_the_place_of_the_starters(capsys, given, path, value):
    assert main(["fit", "digits", *given, "--print_config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    for part in path.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), 1e9, "x", True])
def test_minutes_have_a_range(minutes):
    with pytest.raises(SettingsError, match=r"minutes: .* is not allowed; allowed: a number, above 0 to 10080"):
        starter("digits", minutes=minutes)


# --- a fit of a source


def test_fit_takes_a_folder(own_folders, capsys):
    photos(own_folders / "photos")
    quick = ["--trainer.max_epochs", "1", "--evaluation.figures", "false", "--evaluation.report", "false"]
    assert main(["fit", "photos/", "--minutes", "1", *quick, "--model.backbone.name", "mini_cnn"]) == 0
    said = capsys.readouterr()
    assert "✓ photos: binary, 2 classes" in said.out
    chosen = "  chosen   mini_cnn, 28 pixels, 1 epoch, batches of 4 (`visionforge init photos/` explains them)"
    assert chosen in said.out.splitlines(), "what was given takes the place of what was chosen"
    (run,) = run_folders(own_folders / "outputs")
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert (stored["data"]["dataset"], stored["trainer"]["max_epochs"]) == ("photos", 1)
    assert stored["model"]["schedule"]["name"] == "one_cycle"
    assert main(["fit", "photos", *quick, "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["backbone"]["name"] == "fastnet"
    assert main(["fit", "photos", "--name", "mine", *quick, "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["dataset"] == "mine"


def test_a_source_leaves_out_what_would_contradict_it(own_folders, capsys):
    for arguments, line in (
        (["digits", "--data.dataset", "bloodmnist"], "data.dataset: bloodmnist given beside digits"),
        (["--minutes", "3"], "--minutes: is for `visionforge fit SOURCE`"),
        (["digits", "--minutes", "soon"], "--minutes: soon is not allowed"),
        (
            ["photos.csv", "--groups", "smear_id", "--columns", "age,sex"],
            "--groups, --columns: for the import; type: visionforge init photos.csv --groups smear_id --columns "
            "age,sex, then visionforge fit --config photos.yaml",
        ),
        (["--name", "mine"], "--name: is for `visionforge fit SOURCE`"),
        (["digits", "--name", "mine"], "name: is for pictures, and digits is a data set of the catalog"),
    ):
        assert main(["fit", *arguments]) == 2
        assert line in capsys.readouterr().err
