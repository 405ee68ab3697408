"""Links in the folders of strangers: whatever a command does there, nothing outside is written, read or removed."""

import json
import os
import shutil
import sqlite3

import numpy as np
import pytest

from tests.conftest import flags
from tests.security.harness import touched
from visionforge.cli.main import main
from visionforge.reading import read_yaml
from visionforge.runs.signature import CONFIGURATION, canonical_content, sign

pytestmark = pytest.mark.slow

SAME = {"trainer__deterministic": "true", "evaluation__figures": "true", "evaluation__report": "true"}  # as quick_run
LINKS = (
    *("config.yaml", "run.json", "metrics.csv", "metrics.json", "predictions.csv", "report.html", "run.log", ".lock"),
    *("checkpoints", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "figures", "reports", "evaluations", "export"),
    *("evaluations/predict_best_images", "evaluations/explain_best", "evaluations/predict_best", "export/safetensors"),
    *("evaluations/robustness_best", "predictions", "exports", ".processes.json", "notes"),
)
PICTURES = ["--images", "pictures.npz", "--accelerator", "cpu"]
COMMANDS = {
    "auto": ["fit", "--resume", "auto"],
    "seeds": ["fit", "--seeds", "1"],
    "resume": ["fit", "--resume", "RUN"],
    "resume with trust": ["fit", "--resume", "RUN", "--trust", "RUN"],
    "reproduce": ["reproduce", "RUN"],
    "reproduce with trust": ["reproduce", "RUN", "--trust", "RUN"],
    "predict": ["predict", "--run", "RUN"],
    "pictures": ["predict", "--run", "RUN", *PICTURES],
    "explain": ["explain", "--run", "RUN", *PICTURES],
    "robustness": ["robustness", "--run", "RUN", "--severities", "1", "--limit", "4", "--accelerator", "cpu"],
    "export": ["export", "--run", "RUN", "--format", "safetensors"],
}


@pytest.fixture
def outside(tmp_path):
    """A folder that no command has anything to do with."""
    folder = tmp_path.with_name(f"{tmp_path.name}-outside")
    folder.mkdir()
    return folder


def arguments(command, run):
    given = [text.replace("RUN", str(run)) for text in COMMANDS[command]]
    if command in ("auto", "seeds"):
        given[1:1] = flags(trainer__default_root_dir=run.parent, **SAME)
    return given


def signature_of(run):
    return sign(canonical_content(read_yaml(run / "config.yaml")), CONFIGURATION)


def move_out(place, outside):
    """Put a link in the place of a file or folder, which then lies outside with all that it held."""
    if os.path.lexists(place):
        shutil.move(place, outside / "mine")
    else:
        (outside / "mine").mkdir()
        (outside / "mine" / "notes.txt").write_text("mine")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside / "mine")


def content_of(folder):
    return {path: (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_whatever_reaches_a_folder_is_noticed(tmp_path, outside):
    """Of the measure itself."""
    (outside / "a").write_text("mine")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "file").symlink_to(outside / "a")
    doings = {
        "read": lambda: (tmp_path / "file").read_text(),
        "written": lambda: (tmp_path / "link" / "b").write_text("x"),
        "listed": lambda: list((tmp_path / "link").iterdir()),
        "scanned": lambda: list(os.scandir(tmp_path / "link")),
        "made": lambda: (tmp_path / "link" / "c").mkdir(),
        "renamed": lambda: (tmp_path / "link" / "b").rename(tmp_path / "link" / "d"),
        "removed": lambda: (tmp_path / "link" / "d").unlink(),
        "database": lambda: sqlite3.connect(f"file:{tmp_path}/file?mode=ro", uri=True),
    }
    for name, doing in doings.items():
        with touched(outside) as found:
            doing()
        assert found, name
    with touched(outside) as found:
        (tmp_path / "link").unlink()
    assert found == [], "it is the link that was removed"


@pytest.mark.parametrize("signed", [True, False], ids=["own", "theirs"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_link_of_a_run_is_followed(quick_run, tmp_path, outside, capsys, command, signed):
    np.savez(tmp_path / "pictures.npz", images=np.zeros((3, 28, 28, 3), np.uint8))
    run = tmp_path / "outputs" / quick_run.name
    for link in LINKS:
        for folder in (run.parent, *outside.iterdir()):
            shutil.rmtree(folder, ignore_errors=True) if folder.is_dir() else folder.unlink(missing_ok=True)
        shutil.copytree(quick_run, run)
        manifest = json.loads((run / "run.json").read_text())
        manifest["signature"] = signature_of(run) if signed else None
        manifest["state"] = "interrupted" if command.startswith(("auto", "resume")) else "complete"
        (run / "run.json").write_text(json.dumps(manifest))
        move_out(run / link, outside)
        before = content_of(outside)
        capsys.readouterr()
        with touched(outside) as found:
            status = main(arguments(command, run))
        told = capsys.readouterr().err
        assert found == [], link
        assert content_of(outside) == before, link
        assert "Traceback" not in told
        if (command, link) not in (("seeds", "config.yaml"), ("seeds", "run.json"), ("seeds", "metrics.json")):
            assert status == 2, link
            assert "is a link that leads out of" in told or (command, link) == ("auto", "config.yaml"), (link, told)


def test_links_inside_are_harmless(quick_run, tmp_path, capsys):
    run = shutil.copytree(quick_run, tmp_path / "run")
    (run / "loop").symlink_to("loop")
    (run / "inside").symlink_to("checkpoints")
    capsys.readouterr()
    assert main(["predict", "--run", str(run)]) == 0
    assert "Traceback" not in capsys.readouterr().err


OF_STUDY = (
    *("config.yaml", "tune.log", "trials", "trials/RUN", "trials/RUN/checkpoints", "trials/RUN/config.yaml"),
    *("database", "database/study.STORAGE", "reports", "reports/study_summary.json", "figures", ".ask.lock", "notes"),
)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A study per kind of storage, with a trial; do not change them."""
    made = {}
    for name in ("db", "journal"):
        outputs = tmp_path_factory.mktemp(name) / "outputs"
        assert main(["tune", *search(outputs, name, 1)]) == 0
        made[name] = outputs
    return made


def search(outputs, name, trials):
    settings = {"tune__storage": "journal"} if name == "journal" else {}
    one = {"trainer__max_epochs": 1, "tune__preset": "quick", "tune__study": "s", "tune__target": "null", **settings}
    return flags(trainer__default_root_dir=outputs, tune__n_trials=trials, **one)


@pytest.mark.parametrize("name", ["db", "journal"])
@pytest.mark.parametrize("command", ["tune", "report"])
def test_no_link_of_a_study_is_followed(studies, tmp_path, outside, capsys, name, command):
    outputs = tmp_path / "outputs"
    for link in OF_STUDY:
        for folder in (outputs, *outside.iterdir()):
            shutil.rmtree(folder, ignore_errors=True) if folder.is_dir() else folder.unlink(missing_ok=True)
        shutil.copytree(studies[name], outputs, symlinks=True)
        study = outputs / "studies" / "s"
        (run,) = (path.parent for path in (study / "trials").glob("2*/run.json"))
        move_out(study / link.replace("RUN", run.name).replace("STORAGE", name), outside)
        before = content_of(outside)
        capsys.readouterr()
        with touched(outside) as found:
            status = main(["tune", *(["--report", str(study)] if command == "report" else search(outputs, name, 2))])
        told = capsys.readouterr().err
        assert found == [], link
        assert content_of(outside) == before, link
        assert status == 2, link
        assert "is a link that leads out of" in told, (link, told)


def test_a_refit_of_a_trial_behind_a_link_is_refused(studies, tmp_path, outside, capsys):
    outputs = shutil.copytree(studies["db"], tmp_path / "outputs", symlinks=True)
    (run,) = (path.parent for path in (outputs / "studies" / "s" / "trials").glob("2*/run.json"))
    move_out(run, outside)
    with touched(outside) as found:
        assert main(["tune", *search(outputs, "db", 1), "--tune.refit", "true"]) == 2
    assert found == []
    assert "is a link that leads out of" in capsys.readouterr().err
