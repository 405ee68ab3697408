"""`--config NAME` is a configuration that comes with the package, for our own reader and for LightningCLI alike."""

import shutil
import tomllib

import pytest
import yaml

from tests.conftest import REPOSITORY, flags
from visionforge.cli.main import main
from visionforge.config import shipped
from visionforge.config.loading import read_arguments
from visionforge.config.shipped import find_config, require_config, shipped_files, shipped_folder
from visionforge.errors import SettingsError


@pytest.fixture
def tiny(tmp_path_factory, monkeypatch):
    """Two shipped configurations of our own: `tiny`, which no data set can contradict, and `bad`."""
    folder = tmp_path_factory.mktemp("shipped").resolve()
    (folder / "tiny.yaml").write_text("evaluation: {resamples: 60, confidence: 0.8}\nlog_level: warning\n")
    (folder / "bad.yaml").write_text("data: {batchsize: 3}\n")
    monkeypatch.setattr(shipped, "shipped_folder", lambda: folder)
    return folder


def test_every_file_of_the_folder_is_shipped():
    files = [path for path in (REPOSITORY / "configs").rglob("*") if path.is_file()]
    assert sorted(shipped_files().values()) == sorted(files)
    assert list(shipped_files()) == sorted(path.stem for path in files)
    assert {path.parent.name for path in files} <= {"configs", "recipes"}


def test_a_recipe_is_found_by_its_name(tiny):
    (tiny / "recipes").mkdir()
    (tiny / "recipes" / "mine.yaml").write_text("data: {batch_size: 5}\n")
    for name in ("mine", "mine.yaml"):
        assert read_arguments(["--config", name]).values == {"data": {"batch_size": 5}}
    assert read_arguments(["--config", "mine"]).sources["data"] == "in the shipped mine.yaml"


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml"])
def test_name_and_file_name_mean_the_shipped_file(name):
    assert find_config(name) == str(shipped_folder() / "quickstart.yaml")
    assert require_config(name).is_file()


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml"])
def test_file_in_the_working_folder_comes_first(tmp_path, name):
    (tmp_path / name).write_text("data: {batch_size: 3}\n")
    assert read_arguments(["--config", name]).values == {"data": {"batch_size": 3}}


def test_folder_of_that_name_is_no_configuration(tmp_path):
    (tmp_path / "quickstart").mkdir()
    assert find_config("quickstart") == str(shipped_folder() / "quickstart.yaml")


@pytest.mark.parametrize("text", ["./quickstart", "configs/quickstart.yaml", "a/../quickstart", "quickstart.yml.yaml"])
def test_path_is_never_a_shipped_name(text):
    assert find_config(text) == text


def test_all_spellings_are_rewritten_and_nothing_else():
    whole = read_arguments(["--config", str(shipped_folder() / "quickstart.yaml")])
    for given in (["--config", "quickstart"], ["--config=quickstart"], ["-c", "quickstart"]):
        read = read_arguments([*given, "--run", "quickstart", "--a=quickstart"])
        assert read.values == {**whole.values, "run": "quickstart", "a": "quickstart"}
        assert read.sources["data"] == whole.sources["data"] == "in the shipped quickstart.yaml"


def test_several_names_merge_in_order():
    given = ["--config", "tune_resnet18_28", "--config=quickstart", "-c", "chestmnist"]
    values = read_arguments(given).values
    assert values["tune"]["n_trials"] == 50  # of the first alone
    assert values["model"]["optimizer"]["learning_rate"] == 1e-3  # of the last
    assert values["data"]["dataset"] == "chestmnist"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("quikstart", "nearest: quickstart"),
        ("resnet18", "nearest: resnet18_28, resnet18_64"),
        ("quickstrat.yaml", "nearest: quickstart"),
        ("mine", "nearest: mine.yaml"),
        ("zzz", "shipped are: chestmnist, "),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict", "tune"])
def test_unknown_name_is_one_line_with_the_nearest(refuse, tmp_path, stage, text, hint):
    (tmp_path / "mine.yaml").write_text("")
    (line,) = refuse(stage, "--config", text)
    assert line.startswith(f"{text}: no such configuration file")
    assert hint in line


def test_unknown_name_is_told_with_all_other_mistakes():
    with pytest.raises(SettingsError) as caught:
        read_arguments(["--config", "quikstart", "stray", "--config", "also/missing.yaml"])
    assert [line.split(":")[0] for line in caught.value.problems] == ["stray", "quikstart", "also/missing.yaml"]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("stage", ["fit", "tune"])
def test_mistake_in_a_shipped_file_is_told_with_its_name(refuse, stage):
    (line,) = refuse(stage, "--config", "bad", *flags())
    assert line.startswith("data.batchsize: unknown setting (in the shipped bad.yaml)")


@pytest.mark.usefixtures("tiny")
def test_fit_reads_it_twice(capsys):
    assert main(["fit", "--config", "tiny", *flags(), "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["evaluation"]["confidence"] == 0.8
    assert printed["log_level"] == "warning"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_reads_it_twice(stage, plain_run, tmp_path):
    run = tmp_path / "outputs" / plain_run.name
    shutil.copytree(plain_run, run)
    assert main([stage, "--run", str(run), "--config", "tiny.yaml"]) == 0
    (folder,) = (run / "evaluations").iterdir()
    assert folder.name.startswith(f"{stage}_best")


def test_list_of_packages_is_that_of_the_folders():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    source = REPOSITORY / "src"
    folders = {path.parent for path in (source / "visionforge").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    found = {".".join(folder.relative_to(source).parts) for folder in folders}
    assert sorted(listed) == sorted({*found, "visionforge.configs", "visionforge.configs.recipes"})
