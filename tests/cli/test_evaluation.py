"""What a fit and later evaluations report: calibration, readings, files, and the settings that change them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from medmnist import Evaluator
from PIL import Image
from sklearn.metrics import average_precision_score, recall_score

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.evaluation.predictions import read_predictions
from visionforge.inference.loading import load_classifier
from visionforge.training.calibration import fit_temperature

ONE = {"trainer__max_epochs": 1}


def fit(outputs, *arguments, **changes):
    assert main(["fit", *flags(trainer__default_root_dir=outputs, **changes), *arguments]) == 0
    (run,) = run_folders(outputs)
    return run


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def own_run(plain_run, tmp_path):
    """A copy of the plain run that a test may change."""
    return shutil.copytree(plain_run, tmp_path / "outputs" / plain_run.name, symlinks=True)


def test_a_fit_leaves_report_spreadsheet_and_figures(quick_run):
    assert (quick_run / "report.html").stat().st_size > 3_000_000  # it brings what it needs
    assert (quick_run / "reports" / "training_summary.xlsx").is_file()
    names = {path.stem for path in (quick_run / "figures").glob("*.png")}
    assert names >= {"training_curves", "confusion_matrix", "roc", "precision_recall", "reliability", "explanations"}


def test_temperature_is_that_of_the_validation_split_and_is_in_the_checkpoint(own_run):
    stored = torch.load(own_run / "checkpoints" / "best.ckpt", weights_only=True)["calibration"]
    assert main(["validate", "--run", str(own_run)]) == 0
    shown, labels = read_predictions(own_run / "evaluations" / "validate_best" / "predictions.csv", tta=False)
    expected = fit_temperature(torch.tensor(shown, dtype=torch.float32), torch.tensor(labels), "multi-class")
    assert stored["images"] == 32
    assert (stored["temperature"] is None) == (expected is None)
    if expected is not None:
        assert stored["temperature"] == pytest.approx(expected, rel=1e-3)
    found = metrics(own_run)["calibration"]
    assert found["temperature"] == stored["temperature"]
    assert found["temperature_tta"] == stored["temperature_tta"]


def test_who_uses_an_interrupted_run_is_told_how_far_it_came(own_run, tmp_path, capsys):
    manifest = json.loads((own_run / "run.json").read_text())
    manifest |= {"state": "interrupted", "progress": {"epochs": 1, "max_epochs": 7}}
    (own_run / "run.json").write_text(json.dumps(manifest))
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    told = f"warning: outputs/{own_run.name} was interrupted after epoch 1 of 7; this is what it had learnt until then"
    capsys.readouterr()
    pictures = ["--images", str(tmp_path / "a.png")]
    for command in (["test"], ["predict", *pictures], ["explain", *pictures], ["export", "--format", "safetensors"]):
        assert main([*command, "--run", str(own_run)]) == 0
        assert capsys.readouterr().err.splitlines().count(told) == 1


def test_later_evaluations_repeat_the_numbers(quick_run, tmp_path):
    run = shutil.copytree(quick_run, tmp_path / "outputs" / quick_run.name, symlinks=True)
    before = metrics(run)
    assert main(["test", "--run", str(run)]) == 0
    again = metrics(run / "evaluations" / "test_best")
    for key in ("without_tta", "with_tta", "intervals", "per_class", "calibration"):
        assert again[key] == before[key], key
    assert (run / "evaluations" / "test_best" / "report.html").is_file()


def test_validation_has_both_readings(own_run):
    assert main(["validate", "--run", str(own_run)]) == 0
    content = metrics(own_run / "evaluations" / "validate_best")
    assert content["split"] == "val"
    assert content["with_tta"]["auc"] is not None
    assert content["images"] == 32


def test_a_checkpoint_without_temperature_gets_one_for_the_report_alone(own_run):
    last = own_run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    assert main(["test", "--run", str(own_run), "--ckpt_path", "last"]) == 0
    assert metrics(own_run / "evaluations" / "test_last")["calibration"]["validation_images"] == 32
    assert last.read_bytes() == before


def test_the_table_of_epochs_holds_the_training_alone(quick_run):
    lines = (quick_run / "metrics.csv").read_text().splitlines()
    assert len(lines) == 3
    best = max(float(line.split(",")[lines[0].split(",").index("val/auc")]) for line in lines[1:])
    assert best <= 1


def test_settings_of_the_evaluation_change_what_is_reported_and_not_the_run(tmp_path):
    plain = fit(tmp_path / "a", **ONE)
    changed = fit(
        tmp_path / "b",
        evaluation__resamples=0,
        evaluation__figures="true",
        evaluation__figure_dpi=60,
        evaluation__report="true",
        evaluation__explanations=0,
        **ONE,
    )
    assert plain.name == changed.name
    assert "intervals" in metrics(plain)
    assert "intervals" not in metrics(changed)
    assert not (plain / "report.html").exists()
    assert not (plain / "figures").exists()
    assert "Where the network looked" not in (changed / "report.html").read_text()
    assert Image.open(changed / "figures" / "training_curves.png").width == 12 * 60
    wide = fit(tmp_path / "c", evaluation__confidence=0.99, **ONE)
    gaps = [np.ptp(metrics(run)["intervals"]["with_tta"]["log_loss"]) for run in (plain, wide)]
    assert gaps[0] < gaps[1]


def test_multi_label_run(tmp_path):
    run = fit(tmp_path / "o", data__synthetic__task="multi-label", evaluation__report="true", **ONE)
    content = metrics(run)
    assert set(content["thresholds"]) == set(content["thresholds_tta"]) == set(content["per_class"]["with_tta"])
    assert {"exact_match", "f1_macro_tuned", "sensitivity_tuned"} <= set(content["with_tta"])
    stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["calibration"]
    assert stored["thresholds_tta"] == pytest.approx(list(content["thresholds_tta"].values()))
    assert "Hits, misses and false alarms" in (run / "report.html").read_text()


def test_ordinal_run(tmp_path):
    run = fit(tmp_path / "o", data__synthetic__task="ordinal", model__loss__name="ordinal", **ONE)
    assert {"kappa_quadratic", "mae", "off_by_one"} <= set(metrics(run)["with_tta"])


@pytest.fixture(scope="module")
def breast_run(archives, tmp_path_factory):
    """A run of real images of two classes, of which the first is the positive one; do not change it."""
    outputs = tmp_path_factory.mktemp("breast") / "o"
    settings = {"data__dataset": "breastmnist", "data__root": archives, "data__batch_size": 64, "model__tta": "false"}
    return fit(outputs, **settings, trainer__max_epochs=4)


def test_sensitivity_is_that_of_the_positive_class(breast_run, capsys):
    content = metrics(breast_run)
    table = pd.read_csv(breast_run / "predictions.csv")
    assert content["positive"] == "malignant"
    found = content["without_tta"]
    assert found["sensitivity"] == recall_score(table["truth"], table["prediction"], pos_label="malignant")
    assert found["average_precision"] == pytest.approx(
        average_precision_score(table["truth"], table["raw_probability_malignant"], pos_label="malignant")
    )


def test_runs_of_earlier_versions_are_compared_about_the_same_class(breast_run, tmp_path, capsys):
    """They have other columns, and took class 1 as positive without saying so."""
    for name in ("new", "old"):
        shutil.copytree(breast_run, tmp_path / "outputs" / name)
    old = tmp_path / "outputs" / "old"
    table = pd.read_csv(old / "predictions.csv")
    classes = ["malignant", "normal, benign"]
    shown = {f"probability_{k}": table[f"raw_probability_{name}"] for k, name in enumerate(classes)}
    label, prediction = (table[column].map(classes.index) for column in ("truth", "prediction"))
    pd.DataFrame({"index": table["index"], "label": label, "prediction": prediction, **shown}).to_csv(
        old / "predictions.csv", index=False
    )
    content = {key: value for key, value in metrics(old).items() if key not in ("positive", "partial")}
    content["without_tta"].update(content["per_class"]["without_tta"][classes[1]])
    (old / "metrics.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["runs", "show", "outputs/new"]) == 0
    assert "    positive  malignant" in capsys.readouterr().out.splitlines()
    command = ["runs", "compare", "outputs/new", "outputs/old"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["positive", "class", "malignant", "normal,", "benign"] for line in lines)
    assert "positive class: malignant" in lines
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["positive"] == classes
    for row in found["differences"]:
        assert abs(row["value"]) < 1e-9, row
        assert row["positive"] == "malignant"


def test_a_checkpoint_of_earlier_versions_has_the_positive_class_of_the_catalog(breast_run, archives, tmp_path):
    """Then it did not say which it is; whatever asks the network answers as its evaluation does."""
    run = tmp_path / "outputs" / "old"
    shutil.copytree(breast_run, run)
    best = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    del checkpoint["hyper_parameters"]["spec"]["positive"]
    torch.save(checkpoint, best)
    content = {key: value for key, value in metrics(run).items() if key != "positive"}
    content["without_tta"].update(content["per_class"]["without_tta"]["normal, benign"])
    (run / "metrics.json").write_text(json.dumps(content))
    assert load_classifier(best).spec.positive_index == 0
    assert main(["test", "--run", "outputs/old"]) == 0
    assert metrics(run / "evaluations" / "test_best")["positive"] == "malignant"
    assert main(["export", "--run", "outputs/old", "--format", "safetensors"]) == 0
    exported = run / "export" / "safetensors"
    assert json.loads((exported / "export.json").read_text())["output"]["positive"] == "malignant"
    assert "sensitivity of normal, benign" in (exported / "model_card.md").read_text().lower()  # as it was measured
    table = {}
    for name, source in (("new", breast_run), ("old", run)):
        picture = ["--images", str(archives / "breastmnist.npz"), "--accelerator", "cpu", "--out", f"{name}.csv"]
        assert main(["predict", "--run", str(source), *picture]) == 0
        table[name] = (tmp_path / f"{name}.csv").read_text()
    assert table["new"] == table["old"]
    assert ",probability_malignant," in table["old"].splitlines()[0]


@pytest.mark.parametrize(
    "change", [{"dataset": "elsewhere"}, {"classes": ["benign", "malignant"]}, {"task": "ordinal"}]
)
def test_the_catalog_says_nothing_of_other_classes(breast_run, tmp_path, change):
    checkpoint = torch.load(breast_run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["spec"] |= {**change, "positive": None}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    assert load_classifier(tmp_path / "x.ckpt").spec.positive is None


def test_medmnists_evaluator_reads_the_file_of_a_run(breast_run, archives, monkeypatch):
    run = breast_run
    (scores,) = (run / "reports").glob("breastmnist_test_*@visionforge.csv")
    monkeypatch.setattr(Evaluator.__init__, "__defaults__", (None, str(archives)))
    theirs = Evaluator.parse_and_evaluate(str(scores))
    ours = metrics(run)["medmnist"]["without_tta"]
    assert pytest.approx(ours["auc"], abs=1e-6) == theirs.AUC
    assert pytest.approx(ours["accuracy"], abs=1e-6) == theirs.ACC


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("resamples", "-1", "evaluation.resamples: -1 is not allowed"),
        ("confidence", "1", "evaluation.confidence: 1 is not allowed"),
        ("figure_dpi", "10", "evaluation.figure_dpi: 10 is not allowed"),
        ("explanations", "65", "evaluation.explanations: 65 is not allowed"),
        ("report", "maybe", "evaluation.report: 'maybe' is not allowed"),
        ("figure", "true", "evaluation.figure: unknown setting"),
    ],
)
def test_mistakes(refuse, tmp_path, flag, value, said):
    lines = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "o"), f"--evaluation.{flag}", value)
    assert any(line.startswith(said) for line in lines), lines
