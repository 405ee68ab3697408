"""A student of a run: what it is tested with, what becomes of it without its teacher, and `fit --folds K --distill`."""

import json
import shutil

import pytest
import yaml

import visionforge as vf
from tests.conftest import flags, run_folders
from tests.engine.test_folds import settings
from visionforge.cli.main import main
from visionforge.config.untrusted import for_evaluation, for_training
from visionforge.errors import RunError, SettingsError
from visionforge.runs.config_hash import digest, with_portable_paths

TEACHER = "model.distillation.teacher"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two folds of a data set of three classes, their ensemble, and its student."""
    outputs = tmp_path_factory.mktemp("distilled")
    return vf.fit(**wanted(outputs), folds=2, distill=True)


def wanted(outputs, **changes):
    return settings(outputs, **{"data.synthetic.classes": 3, "model.distillation.temperature": 2, **changes})


def test_student_of_the_folds_is_one_network_on_the_splits_of_the_data(made):
    config = made.student.config
    assert config["model"]["distillation"] == {
        "teacher": with_portable_paths({"model": {"distillation": {"teacher": str(made.ensemble.path)}}})["model"][
            "distillation"
        ]["teacher"],
        "weight": 1.0,
        "temperature": 2.0,
    }
    assert config["data"]["folds"] is None
    assert made.student.result.content["images"] == 32
    assert made.student.model.ensemble is None
    manifest = made.student.stored.manifest
    assert manifest.parent == {"run": made.ensemble.name, "reason": "teacher"}
    assert len(manifest.teacher["sha256"]) == 64
    for run in made.runs:  # they have no teacher
        assert run.config["model"]["distillation"] == {"teacher": None, "weight": 1.0, "temperature": 1.0}
        assert run.stored.manifest.teacher is None


def test_what_is_complete_is_taken_as_it_is(made):
    again = vf.fit(**wanted(made.student.path.parent), folds=2, distill=True)
    assert again.student.name == made.student.name
    assert len(run_folders(made.student.path.parent)) == 4
    plain = vf.fit(**settings(made.student.path.parent, **{"data.synthetic.classes": 3}), folds=2)
    assert plain.student is None
    assert [run.name for run in plain.runs] == [run.name for run in made.runs]


@pytest.mark.slow
def test_student_needs_no_teacher_once_it_is_trained(made, tmp_path, capsys):
    outputs = tmp_path / "copy"
    shutil.copytree(made.student.path, outputs / made.student.name)
    config = yaml.safe_load((outputs / made.student.name / "config.yaml").read_text())
    config["model"]["distillation"]["teacher"] = str(tmp_path / "gone")
    (outputs / made.student.name / "config.yaml").write_text(yaml.safe_dump(config))
    found = vf.evaluate(outputs / made.student.name, **{"evaluation.resamples": 0})
    assert found.metrics["accuracy"] == made.student.metrics["accuracy"]
    lone = tmp_path / "lone.ckpt"
    shutil.copy(made.student.path / "checkpoints" / "best.ckpt", lone)
    more = [text for name in ("train", "val", "test") for text in (f"--data.synthetic.{name}", "32")]
    more += ["--data.synthetic.classes", "3", "--evaluation.resamples", "0"]
    assert main(["test", "--ckpt_path", str(lone), *more, "--trainer.default_root_dir", str(tmp_path / "out")]) == 0
    (run,) = run_folders(tmp_path / "out")
    assert json.loads((run / "run.json").read_text())["parent"] is None
    capsys.readouterr()


def test_a_strangers_teacher_is_not_read(made, tmp_path, capsys):
    config = {"model": {"distillation": {"teacher": "outputs"}}}
    assert for_training(config)[1] == [f"{TEACHER}: outputs"]
    assert for_training({"model": {"distillation": {"teacher": None}}})[1] == []
    assert for_evaluation(config) == {"model": {}}
    shutil.copytree(made.student.path, tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "seed_everything": 7}))
    for command in (["fit", "--resume", "theirs"], ["reproduce", "theirs"]):
        assert main(command) == 2
        (line,) = [
            text for text in capsys.readouterr().err.splitlines() if TEACHER in text and not text.startswith("help: ")
        ]
        assert "is not taken" in line


def test_resumed_run_learns_from_the_same_file(made, tmp_path, capsys):
    teacher = tmp_path / "teacher.ckpt"
    shutil.copy(made.runs[0].path / "checkpoints" / "best.ckpt", teacher)
    given = settings(tmp_path / "o", **{"data.synthetic.classes": 3, TEACHER: str(teacher), "trainer.max_epochs": 3})
    whole = vf.fit(**given)
    begun = vf.fit(**{**given, "trainer.default_root_dir": str(tmp_path / "p")})
    path = begun.path / "run.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "state": "interrupted"}))
    kept = sorted(begun.path.glob("checkpoints/*.ckpt"))
    assert kept
    shutil.copy(made.runs[1].path / "checkpoints" / "best.ckpt", teacher)
    with pytest.raises(RunError, match="the run was begun with"):
        vf.fit(resume=begun.path)
    teacher.unlink()
    with pytest.raises(RunError, match=f"{TEACHER}: .* does not exist"):
        vf.fit(resume=begun.path)
    assert whole.stored.manifest.teacher["sha256"] == manifest["teacher"]["sha256"]


def test_teacher_that_has_learnt_the_images_of_the_test_is_refused(tmp_path):
    pooled = vf.fit(**settings(tmp_path, **{"data.fold_pool": "all"}), folds=3)
    for data in ({}, {"data.folds": 3, "data.fold": 1, "data.fold_pool": "all"}):
        with pytest.raises(SettingsError, match="has learnt images on which this fit is tested"):
            vf.fit(**settings(tmp_path, **data, **{TEACHER: str(pooled.ensemble.path)}))
    same = {"data.folds": 3, "data.fold": 1, "data.fold_pool": "all"}
    taught = vf.fit(**settings(tmp_path, **same, **{TEACHER: str(pooled.runs[1].path)}))
    assert taught.result.content["images"] > 0


def test_teacher_by_its_name_and_by_its_path(made, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_OUTPUTS", str(made.student.path.parent))
    given = {"data.synthetic.classes": 3, TEACHER: made.runs[0].name}
    run = vf.fit(**settings(tmp_path, **given))
    assert run.config["model"]["distillation"]["teacher"] == made.runs[0].name
    assert run.stored.manifest.parent == {"run": made.runs[0].name, "reason": "teacher"}
    path = {"model": {"distillation": {"teacher": str(made.runs[0].path)}}}
    portable = with_portable_paths(path)
    assert portable["model"]["distillation"]["teacher"] == f"outputs://{made.runs[0].name}"
    assert digest(path) == digest(portable)


def test_command_prints_the_student_beside_the_ensemble(made, capsys):
    given = flags(trainer__max_epochs=1, data__synthetic__classes=3, model__distillation__temperature=2)
    out = ["--trainer.default_root_dir", str(made.student.path.parent)]
    assert main(["fit", *given, "--folds", "2", "--distill", *out]) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if text.strip().startswith("student")]
    assert "(ensemble " in line
    assert made.student.name in line
    assert len(run_folders(made.student.path.parent)) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--distill"], "--distill: is for --folds; a network learns from any other run by model.distillation.teacher"),
        (["--folds", "3", "--distill", "maybe"], "--distill: maybe is not allowed; allowed: true or false"),
        (["--folds", "3", "--distill", "--data.fold_pool", "all"], "leaves no split to test the student on"),
        (["--folds", "3", "--distill", f"--{TEACHER}", "x"], f"{TEACHER}: x is given, with --distill it is"),
        (["--folds", "3", "--distill", "--data.synthetic.task", "segmentation"], "no probabilities are learnt"),
        (["--folds", "3", "--distill", "--model.distillation.weight", "2"], "model.distillation.weight: 2"),
        ([f"--{TEACHER}", "nothing"], f"{TEACHER}: nothing does not exist"),
        ([f"--{TEACHER}", "https://host/a.ckpt"], "no such anchor"),
        (["--model.distillation.weight", "0.5"], f"weight: 0.5 would be ignored, because {TEACHER} is null"),
        (["--model.distillation.temperature", "2"], "temperature: 2 would be ignored"),
        ([f"--{TEACHER}", "x", "--data.synthetic.task", "detection"], "of which no probabilities are learnt"),
    ],
)
def test_wishes_that_cannot_be_met(arguments, told, refuse, tmp_path):
    out = ["--trainer.default_root_dir", str(tmp_path / "outputs")]
    problems = refuse("fit", *flags(), *arguments, *out, keeps=("matplotlib",))
    assert any(told in problem for problem in problems), problems


def test_a_search_over_the_weight_needs_a_teacher(refuse, tmp_path):
    space = ["--tune.space", "{model.distillation.weight: {low: 0.2, high: 1.0}}", "--tune.preset", "none"]
    search = [*flags(data__synthetic__classes=3), "--tune.n_trials", "1", "--tune.epochs", "1", *space]
    search += ["--trainer.default_root_dir", str(tmp_path / "outputs")]
    (line,) = refuse("tune", *search, f"--{TEACHER}", "gone", keeps=("matplotlib",))
    assert line.startswith(f"{TEACHER}: gone does not exist")
    lines = refuse("tune", *search, keeps=("matplotlib",))
    assert any("model.distillation.weight" in line and TEACHER in line for line in lines), lines
