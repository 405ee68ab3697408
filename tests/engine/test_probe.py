"""Probes: what scikit-learn says of features is what the run says of images, and a probe is a run like any other."""

import csv
import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import visionforge as vf
from tests.conftest import QUICK, flags, run_folders
from visionforge.cli.main import main
from visionforge.data.datamodule import ImageDataModule
from visionforge.engine.reproduce import reproduce
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.explain import explain
from visionforge.inference.loading import load_classifier
from visionforge.models.feature_heads import NeighbourHead, TreeHead

FEW = {  # small grids
    "c": [0.001, 1.0],
    "neighbours": [3, 9],
    "shrinkage": ["auto", 0.5],
    "leaves": [4],
    "learning_rate": [0.1],
    "iterations": [3, 6],
}
SYNTHETIC = {"train": 64, "val": 32, "test": 32, "classes": 3}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A quick fit on three classes, whose features are probed."""
    settings = {name: value for name, value in QUICK.items() if not name.startswith("data.synthetic")}
    settings = {**settings, "model.backbone.pretrained": False, "evaluation.figures": False, "evaluation.report": False}
    outputs = tmp_path_factory.mktemp("network")
    quick = {"data.synthetic": {**SYNTHETIC}, "trainer.max_epochs": 1, "trainer.default_root_dir": str(outputs)}
    return vf.fit(**{**settings, **quick})


def probe(network, outputs, **changes):
    data = changes.pop("data", {})
    model = changes.pop("model", {})
    given = {"trainer": {"default_root_dir": str(outputs), "accelerator": "cpu"}, "log_level": "error"}
    more = {"evaluation": {"resamples": 50, "figures": False, "report": False}}
    settings = {"seeds": changes.pop("seeds", None), "folds": changes.pop("folds", None)}
    return vf.probe(run=network, probe={**FEW, **changes}, data=data, model=model, **given, **more, **settings)


@pytest.fixture(scope="module")
def usual(network, tmp_path_factory):
    """Return the probe of a classifier with few candidates, made once."""

    @cache
    def made(classifier="logistic_regression"):
        return probe(network, tmp_path_factory.mktemp(classifier), classifier=classifier)

    return made


def tensors(run):
    heads = run.model.heads
    counted = {"neighbours": torch.tensor(heads[0].neighbours)} if heads else {}
    return {**run.model.last_layer.state_dict(), **counted}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and torch.allclose(one[name], other[name], atol=1e-5) for name in one
    )


def raw(run, kind="raw"):
    frame = run.predictions
    return frame[[name for name in frame if name.startswith(f"{kind}_probability")]].to_numpy()


def features(network, split):
    model = load_classifier(network.path / "checkpoints" / "best.ckpt")
    data = ImageDataModule(**{**network.config["data"], "download": False})
    found = data.dataset_for(split)
    return model.features(found.images).numpy(), found.labels.numpy()


@pytest.mark.parametrize("classifier", ["logistic_regression", "knn", "lda", "gradient_boosting"])
def test_every_classifier_is_tested_and_predicts_as_it_was_tested(usual, classifier):
    run = usual(classifier)
    assert run.state == "complete"
    assert run.result.content["probe"]["classifier"] == classifier
    model = run.model
    kinds = {"knn": NeighbourHead, "gradient_boosting": TreeHead}
    assert isinstance(model.last_layer, kinds.get(classifier, torch.nn.Linear))
    data = ImageDataModule(**{**run.config["data"], "download": False})
    alone, _ = model.predict_probabilities(data.dataset_for("test").images)
    np.testing.assert_allclose(raw(run), alone.detach().numpy(), atol=2e-6)
    assert model.calibration is not None
    rows = list(csv.DictReader(run.workspace.candidates.open(newline="")))
    assert [row["chosen"] for row in rows].count("True") == 1
    assert len(rows) == 2


def test_a_logistic_regression_says_what_that_of_scikit_learn_says(network, usual):
    run = usual()
    c = run.result.content["probe"]["c"]
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=5000, tol=1e-5)
    model = make_pipeline(StandardScaler(), model).fit(*features(network, "train"))
    np.testing.assert_allclose(raw(run), model.predict_proba(features(network, "test")[0]), atol=1e-4)
    rows = list(csv.DictReader(run.workspace.candidates.open(newline="")))
    best = max(rows, key=lambda row: float(row["val/auc"]))
    assert float(best["c"]) == c


def test_the_network_is_that_of_the_run(network, usual):
    run = usual()
    one, other = (load_classifier(each.path / "checkpoints" / "best.ckpt") for each in (network, run))
    head = f"network.{one.last_layer_name}."
    theirs = other.state_dict()
    for name, tensor in one.state_dict().items():
        assert name.startswith(head) or torch.equal(tensor, theirs[name])
    assert run.stored.manifest.parent == {"run": network.name, "reason": "features"}


@pytest.mark.parametrize(
    "changes",
    [
        {"c": [1e-5]},
        {"classifier": "knn", "neighbours": [50]},
        {"classifier": "lda", "shrinkage": [0.99]},
        {"classifier": "gradient_boosting", "leaves": [2]},
        {"classifier": "gradient_boosting", "learning_rate": [0.9]},
        {"classifier": "gradient_boosting", "iterations": [1]},
        {"augmented_views": 2},
        {"refit": True},
    ],
    ids=str,
)
def test_every_setting_changes_the_classifier(network, usual, tmp_path, changes):
    before = usual(changes.get("classifier", "logistic_regression"))
    after = probe(network, tmp_path, **changes)
    assert not same(tensors(before), tensors(after))
    assert before.hash != after.hash


def test_the_classifier_is_a_setting(usual):
    kinds = ("logistic_regression", "knn", "lda", "gradient_boosting")
    assert len({usual(kind).hash for kind in kinds}) == 4


@pytest.mark.slow
def test_class_weights_follow_the_sampling_of_the_training(network, tmp_path):
    few = {"max_samples": 50}  # of which the classes are not equally many
    runs = {
        (weights, balanced): raw(
            probe(
                network,
                tmp_path / f"{weights}-{balanced}",
                class_weights=weights,
                c=[0.1],
                data={**few, "balanced_sampling": balanced},
            )
        )
        for weights, balanced in (("auto", True), ("auto", False), ("none", True), ("balanced", False))
    }
    assert np.array_equal(runs["auto", True], runs["balanced", False])
    assert np.array_equal(runs["auto", False], runs["none", True])
    assert not np.array_equal(runs["none", True], runs["balanced", False])


def test_a_refitted_classifier_has_learnt_the_validation_split_and_is_not_calibrated_on_it(network, tmp_path):
    run = probe(network, tmp_path, refit=True, c=[0.1])
    values, labels = (
        np.concatenate(each) for each in zip(features(network, "train"), features(network, "val"), strict=True)
    )
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000, tol=1e-5)
    model = make_pipeline(StandardScaler(), model).fit(values, labels)
    np.testing.assert_allclose(raw(run), model.predict_proba(features(network, "test")[0]), atol=1e-4)
    assert run.model.calibration is None


def test_candidates_are_compared_by_the_monitor(network, tmp_path):
    run = probe(network, tmp_path, model={"monitor": "val/loss"})
    rows = list(csv.DictReader(run.workspace.candidates.open(newline="")))
    assert min(rows, key=lambda row: float(row["val/loss"]))["chosen"] == "True"
    assert run.result.content["chosen_by"] == "val/loss"


def test_a_monitor_that_the_split_does_not_define_is_refused(network, tmp_path):
    with pytest.raises(SettingsError, match=r"model.monitor"):
        probe(network, tmp_path, model={"monitor": "val/no_such"})


@pytest.mark.slow
def test_what_only_a_training_reads_makes_no_other_probe(network, tmp_path):
    one, other = (
        probe(network, tmp_path, model={"optimizer": {"name": "sgd", "learning_rate": rate}}) for rate in (0.1, 0.2)
    )
    assert one.hash == other.hash
    assert probe(network, tmp_path, c=[2.0]).hash != one.hash


@pytest.mark.slow
def test_seeds_and_folds_are_made_once(network, tmp_path):
    first, again = (probe(network, tmp_path, seeds=2) for _ in range(2))
    assert [run.path for run in first] == [run.path for run in again]
    folds, once_more = (probe(network, tmp_path, folds=3, classifier="knn") for _ in range(2))
    assert [run.path for run in folds.runs] == [run.path for run in once_more.runs]
    assert folds.ensemble.path == once_more.ensemble.path
    rows = list(csv.DictReader((folds.ensemble.path / "out_of_fold.csv").open(newline="")))
    assert len(rows) == 96


@pytest.mark.slow
def test_several_probes_are_an_ensemble(usual, tmp_path):
    runs = [usual(name) for name in ("logistic_regression", "knn", "gradient_boosting")]
    joined = vf.ensemble(runs, outputs=tmp_path)
    np.testing.assert_allclose(raw(joined), np.mean([raw(run) for run in runs], axis=0), atol=2e-6)


def test_a_probe_is_reproduced(network, tmp_path):
    again = reproduce(probe(network, tmp_path, classifier="knn"), outputs=tmp_path / "again")
    assert again.difference is None
    assert "2 candidates" in again.lines()[0]


def test_another_data_set_is_probed_with_the_features_of_a_run(network, tmp_path):
    run = probe(network, tmp_path, data={"synthetic": {**SYNTHETIC, "classes": 2}})
    assert run.model.last_layer.out_features == 2


@pytest.mark.parametrize("classifier", ["logistic_regression", "knn", "gradient_boosting"])
def test_labels_that_do_not_exclude_each_other_are_probed(network, tmp_path, classifier):
    data = {"synthetic": {"train": 64, "val": 32, "test": 32, "task": "multi-label"}}
    run = probe(network, tmp_path, classifier=classifier, data=data)
    assert run.model.thresholds is not None
    assert run.result.content["task"] == "multi-label"


def test_grades_are_probed_by_a_probability_for_each(network, tmp_path):
    data = {"synthetic": {**SYNTHETIC, "task": "ordinal"}}
    run = probe(network, tmp_path, data=data, model={"loss": {"name": "ordinal"}})
    assert run.config["model"]["loss"]["name"] == "auto"
    np.testing.assert_allclose(raw(run).sum(axis=1), 1, atol=1e-5)


# --- from strangers


def _damaged(run, tmp_path, change):
    path = tmp_path / "damaged" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    content = torch.load(run.path / "checkpoints" / "best.ckpt", weights_only=True)
    layer = next(name.removesuffix("mean") for name in content["state_dict"] if name.endswith(".mean"))
    change(content, layer)
    torch.save(content, path)
    return path


def _of_no_memory(content, layer):
    state = content["state_dict"]
    for name in ("bank", "votes"):
        state[layer + name] = torch.zeros(1, 1).expand(10**9, state[layer + name].shape[1])


def _of_other_features(content, layer):
    content["state_dict"][layer + "bank"] = torch.zeros(5, 3)


def _too_many_neighbours(content, layer):
    content["hyper_parameters"]["heads"][0]["neighbours"] = 5000


def _no_kind(content, layer):
    content["hyper_parameters"]["heads"] = [{"kind": "pickle"}]


@pytest.mark.parametrize("change", [_of_no_memory, _of_other_features, _too_many_neighbours, _no_kind])
def test_a_checkpoint_whose_neighbours_cannot_be_is_refused(usual, tmp_path, change):
    path = _damaged(usual("knn"), tmp_path, change)
    with pytest.raises(RunError, match=r"classifier|heads|fewer values") as told:
        load_classifier(path)
    assert len(str(told.value).splitlines()) == 1


def _out_of_the_tree(content, layer):
    content["state_dict"][layer + "left"][0, 0] = 10**6


def _of_a_feature_that_is_not_there(content, layer):
    content["state_dict"][layer + "feature"][0, 0] = -1


def _endless(content, layer):
    content["hyper_parameters"]["heads"][0]["depth"] = 10**9


@pytest.mark.parametrize("change", [_out_of_the_tree, _of_a_feature_that_is_not_there, _endless])
def test_a_checkpoint_whose_trees_lead_nowhere_is_refused(usual, tmp_path, change):
    path = _damaged(usual("gradient_boosting"), tmp_path, change)
    with pytest.raises(RunError, match=r"trees|heads") as told:
        load_classifier(path)
    assert len(str(told.value).splitlines()) == 1


# --- the command


def test_the_command_makes_the_run_that_the_function_makes(network, usual, tmp_path, capsys):
    outputs = tmp_path / "outputs"
    grids = [f"--probe.{name}={json.dumps(value)}" for name, value in FEW.items()]
    shown = [
        "--evaluation.report",
        "true",
        "--evaluation.resamples",
        "50",
        "--evaluation.figures",
        "false",
        "--log_level",
        "error",
    ]
    given = ["--run", str(network.path), "--trainer.default_root_dir", str(outputs), "--trainer.accelerator", "cpu"]
    assert main(["probe", *given, *grids, *shown]) == 0
    assert "best.ckpt" in capsys.readouterr().out
    (path,) = run_folders(outputs)
    function = usual()
    assert yaml.safe_load((path / "config.yaml").read_text())["probe"] == function.config["probe"]
    np.testing.assert_array_equal(raw(vf.open_run(path)), raw(function))
    page = (path / "report.html").read_text()
    assert "Candidates of the classifier" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--probe.classifier", "svm"], "probe.classifier: "),
        (["--probe.c", "[0]"], "probe.c"),
        (["--probe.c", "[1, 1]"], "candidates must differ"),
        (["--model.backbone.pretrained", "false"], "model.backbone.pretrained: false leaves random weights"),
        (["--run", "nothing"], "probe.network: nothing does not exist"),
        (["--resume", "outputs/x"], "a probe is made in one go"),
        (["--trainer.precision", "64-true"], "trainer.precision: '64-true': a probe computes features in 32-true"),
        (["--data.synthetic.task", "segmentation"], "a probe takes those of whole images"),
        (["--seeds", "2", "--folds", "3"], "--seeds: is not for --folds"),
    ],
)
def test_mistakes_are_told_in_a_line(refuse, arguments, told):
    given = flags(model__backbone__pretrained="true", model__backbone__name="resnet18")
    assert any(told in line for line in refuse("probe", *given, *arguments))


def test_a_probe_is_not_resumed(usual):
    run = usual()
    with pytest.raises(RunError, match="is a probe, which is made in one go"):
        vf.fit(resume=run)


def test_nothing_is_left_of_a_probe_that_fails(network, tmp_path, monkeypatch):
    def fails(*_):
        raise SettingsError("probe: no")

    monkeypatch.setattr("visionforge.engine.probing.choose", fails)
    with pytest.raises(SettingsError, match="probe: no"):
        probe(network, tmp_path / "outputs")
    assert not run_folders(tmp_path / "outputs")


def test_a_network_that_is_gone_is_told(network, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(network.path, copy)
    run = probe(copy, tmp_path / "outputs")
    shutil.rmtree(copy)
    with pytest.raises(RunError, match=r"probe.network: .*does not exist"):
        reproduce(run)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["logistic_regression", "knn", "lda", "gradient_boosting"])
def test_a_probe_is_exported(usual, tmp_path, classifier):
    for format, file in (("onnx", "model.onnx"), ("safetensors", "model.safetensors")):
        vf.export(usual(classifier), format=format, out=tmp_path / format)
        told = json.loads((tmp_path / format / "export.json").read_text())
        (artifact,) = (each for each in told["artifacts"] if each["file"] == file)
        assert artifact["parity"]["largest_deviation"] < 1e-5


@pytest.mark.slow
def test_where_neighbours_look_is_shown_and_where_trees_look_is_not(usual):
    images = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    assert explain(usual("knn").model, images).shape == (1, 28, 28)
    with pytest.raises(RunError, match="trees have no gradient"):
        explain(usual("gradient_boosting").model, images)
