"""Cross-validation and ensembles: who predicts what, what is trained again, and all networks together."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import visionforge as vf
from tests.conftest import QUICK, flags, run_folders
from visionforge.cli.main import main
from visionforge.data.datamodule import ImageDataModule
from visionforge.engine.worker_processes import threads_for
from visionforge.errors import RunError, SettingsError
from visionforge.inference.loading import load_classifier
from visionforge.training.ensemble import Ensemble, disagreement


def settings(outputs, **changes):
    given = {**QUICK, "trainer.max_epochs": "1", "trainer.default_root_dir": str(outputs), **changes}
    return {
        name: json.loads(text) if text in ("true", "false") or text.isdigit() else text
        for name, text in ((name, str(value)) for name, value in given.items())
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three folds of a data set of three classes, and their ensemble."""
    outputs = tmp_path_factory.mktemp("folds")
    return vf.fit(**settings(outputs, **{"data.synthetic.classes": 3}), folds=3)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_is_predicted_by_the_network_that_has_not_learnt_it(made):
    rows = table(made.ensemble.path / "out_of_fold.csv")
    assert [(row["split"], int(row["index"])) for row in rows] == (
        [("train", k) for k in range(64)] + [("val", k) for k in range(32)]
    )
    for run in made.runs:
        data = ImageDataModule(**{**run.config["data"], "download": False})
        model = load_classifier(run.path / "checkpoints" / "best.ckpt")
        alone, views = model.predict_probabilities(data.dataset_for("val").images)
        held = [row for row in rows if int(row["fold"]) == run.config["data"]["fold"]]
        assert [(row["split"], int(row["index"])) for row in held] == data.source.origins("val")
        for kind, given in (("raw", alone), ("raw_tta", views)):
            written = np.array([[float(row[f"{kind}_probability_class {k}"]) for k in range(3)] for row in held])
            np.testing.assert_allclose(written, given.detach().numpy(), atol=2e-6)
        assert [row["truth"] for row in held] == [f"class {k}" for k in data.dataset_for("val").labels.tolist()]


def test_metrics_are_those_of_all_folds_and_of_each(made):
    content = json.loads((made.ensemble.path / "metrics.json").read_text())
    folds = content["folds"]
    assert folds["folds"] == 3
    assert folds["runs"] == [run.name for run in made.runs]
    assert content["members"] == folds["runs"]
    rows = table(made.ensemble.path / "out_of_fold.csv")
    right = np.mean([row["truth"] == row["prediction"] for row in rows])
    reading = "with_tta" if folds["out_of_fold"]["with_tta"] else "without_tta"
    assert folds["out_of_fold"][reading]["accuracy"] == pytest.approx(right)
    each = [
        np.mean([row["truth"] == row["prediction"] for row in rows if int(row["fold"]) == fold]) for fold in range(3)
    ]
    assert folds["metrics"]["accuracy"]["values"] == pytest.approx(each)
    assert folds["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(each))
    assert folds["metrics"]["accuracy"]["sd"] == pytest.approx(np.std(each, ddof=1))
    assert (made.ensemble.path / "evaluations" / "out_of_fold" / "metrics.json").is_file()
    assert content["calibration"] is None  # no image is left that no network has learnt


def test_probabilities_of_the_ensemble_are_the_means_of_its_networks(made):
    images = torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8)
    model = made.ensemble.model
    assert isinstance(model.network, Ensemble)
    assert len(model.network) == 3
    each = [load_classifier(run.path / "checkpoints" / "best.ckpt") for run in made.runs]
    alone = torch.stack([one.predict_probabilities(images, tta=False)[0] for one in each])
    views = torch.stack([one.predict_probabilities(images)[1] for one in each])
    found, averaged = model.predict_probabilities(images)
    torch.testing.assert_close(found, alone.mean(dim=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(averaged, views.mean(dim=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.alone(1).predict_probabilities(images, tta=False)[0], alone[1], atol=1e-6, rtol=0)


def test_the_ensemble_is_used_like_any_run(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = made.ensemble
    again = vf.evaluate(run, **{"evaluation.resamples": 0})
    assert again.metrics["accuracy"] == run.metrics["accuracy"]
    tested = [float(row["disagreement"]) for row in table(run.path / "predictions.csv")]
    data = ImageDataModule(**{**run.config["data"], "download": False})
    members = [run.model.alone(k).predict_probabilities(data.dataset_for("test").images, tta=False) for k in range(3)]
    apart = disagreement(torch.stack([alone for alone, _ in members]).detach())
    np.testing.assert_allclose(tested, apart.numpy(), atol=1e-5)
    np.savez(tmp_path / "some.npz", test_images=np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8))
    said = vf.predict(run, tmp_path / "some.npz", out=tmp_path / "said.csv")
    found = table(said.path)
    model, images = run.model, np.load(tmp_path / "some.npz")["test_images"]
    pixels = torch.from_numpy(images).movedim(-1, 1)
    each = torch.stack([model.alone(k).predict_probabilities(pixels, tta=False)[0] for k in range(3)])
    np.testing.assert_allclose(
        [float(row["disagreement"]) for row in found], disagreement(each).detach().numpy(), atol=1e-5
    )
    shown = vf.explain(run, tmp_path / "some.npz", out=tmp_path / "maps")
    assert shown.images == 4
    exported = vf.export(run, "safetensors", out=tmp_path / "export")
    same = table(vf.predict(exported.artifacts[0], tmp_path / "some.npz", out=tmp_path / "same.csv").path)
    for row, other in zip(found, same, strict=True):
        assert float(row["probability_class 0"]) == pytest.approx(float(other["probability_class 0"]), abs=1e-5)


def test_ensemble_in_one_onnx_graph(made, tmp_path):
    pytest.importorskip("onnxruntime")
    exported = vf.export(made.ensemble, "onnx", out=tmp_path / "onnx")
    assert exported.artifacts[0].stat().st_size > 3 * 93_000 * 4
    images = np.random.default_rng(1).integers(0, 256, (4, 28, 28, 3), np.uint8)
    np.savez(tmp_path / "some.npz", test_images=images)
    same, said = (
        table(vf.predict(who, tmp_path / "some.npz", out=tmp_path / f"{name}.csv").path)
        for name, who in (("run", made.ensemble), ("graph", exported.artifacts[0]))
    )
    for row, other in zip(same, said, strict=True):
        assert float(row["probability_class 1"]) == pytest.approx(float(other["probability_class 1"]), abs=1e-5)
        assert float(row["disagreement"]) == pytest.approx(float(other["disagreement"]), abs=1e-5)
    (artifact,) = exported.content["artifacts"]
    assert artifact["parity"]["largest_disagreement_deviation"] < 1e-5


def test_explanation_of_an_ensemble_is_the_mean_of_those_of_its_networks(made):
    from visionforge.evaluation.explain import explain

    images = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8)
    targets = torch.tensor([0, 2])
    model = made.ensemble.model
    mean = torch.stack([explain(model.alone(k), images, targets) for k in range(3)]).mean(dim=0)
    expected = mean / mean.flatten(1).amax(dim=1)[:, None, None].clamp(min=1e-30)
    torch.testing.assert_close(explain(model, images, targets), expected)


def test_what_is_complete_is_not_trained_again(made, tmp_path):
    outputs = tmp_path / "copy"
    shutil.copytree(made.ensemble.path.parent, outputs, symlinks=True)
    before = {path.name: (path / "run.json").stat().st_mtime_ns for path in run_folders(outputs)}
    shutil.rmtree(outputs / made.runs[1].name)
    found = vf.fit(**settings(outputs, **{"data.synthetic.classes": 3}), folds=3)
    after = {path.name: (path / "run.json").stat().st_mtime_ns for path in run_folders(outputs)}
    kept = [made.runs[0].name, made.runs[2].name, made.ensemble.name]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert found.ensemble.name != made.ensemble.name  # one of its networks is another
    again = vf.fit(**settings(outputs, **{"data.synthetic.classes": 3}), folds=3)
    assert again.ensemble.name == found.ensemble.name


@pytest.mark.slow
def test_workers_share_the_folds(tmp_path):
    longer = {"data.synthetic.train": 1000, "trainer.max_epochs": 6}
    found = vf.fit(**settings(tmp_path, **longer), folds=4, workers=2)
    assert [run.config["data"]["fold"] for run in found.runs] == [0, 1, 2, 3]
    assert len({run.stored.manifest.sessions[0].process["pid"] for run in found.runs}) == 2
    assert len(run_folders(tmp_path)) == 5
    assert threads_for(10_000) == 1


def test_of_all_images_the_out_of_fold_predictions_are_the_result(tmp_path, refuse):
    found = vf.fit(**settings(tmp_path, **{"data.fold_pool": "all"}), folds=3)
    content = json.loads((found.ensemble.path / "metrics.json").read_text())
    assert (content["split"], content["images"]) == ("out-of-fold", 128)
    rows = table(found.ensemble.path / "out_of_fold.csv")
    for run in found.runs:  # they are what the fits have tested
        tested = table(run.path / "predictions.csv")
        held = [row for row in rows if int(row["fold"]) == run.config["data"]["fold"]]
        written = [[float(row["raw_probability_class 0"]) for row in rows] for rows in (held, tested)]
        np.testing.assert_allclose(*written, atol=1e-6)
    (problem,) = refuse("test", "--run", str(found.ensemble.path))
    assert "have learnt the images of the test split" in problem
    (problem,) = refuse("fit", "--resume", str(found.ensemble.path))
    assert "is an ensemble" in problem


@pytest.mark.parametrize(
    ("changes", "several"),
    [
        ({"data.synthetic.task": "multi-label"}, True),
        ({"data.synthetic.task": "ordinal", "model.loss.name": "ordinal"}, False),
        ({"data.synthetic.task": "segmentation", "model.decoder.width": 16}, False),
    ],
)
def test_folds_of_other_tasks(tmp_path, changes, several):
    found = vf.fit(**settings(tmp_path, **changes), folds=2)
    images = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)
    each = [load_classifier(run.path / "checkpoints" / "best.ckpt") for run in found.runs]
    mean = torch.stack([one.predict_probabilities(images, tta=False)[0] for one in each]).mean(dim=0)
    torch.testing.assert_close(
        found.ensemble.model.predict_probabilities(images, tta=False)[0], mean, atol=1e-5, rtol=0
    )
    if several:
        thresholds = torch.stack([one.thresholds for one in each]).double().mean(dim=0).float()
        torch.testing.assert_close(found.ensemble.model.thresholds, thresholds)


def test_networks_that_find_boxes_are_trained_and_not_joined(tmp_path):
    found = vf.fit(**settings(tmp_path, **{"data.synthetic.task": "detection", "model.detector.width": 32}), folds=2)
    assert found.ensemble is None
    assert len(found.runs) == 2
    with pytest.raises(SettingsError, match="not averaged"):
        vf.ensemble(found.runs)


@pytest.mark.slow
def test_seeds_and_other_backbones_as_one_network(tmp_path):
    one, two = vf.fit(**settings(tmp_path), seeds=2)
    other = vf.fit(**settings(tmp_path, **{"model.backbone.name": "resnet18", "model.tta": "off"}))
    joined = vf.ensemble([one, two, other.path])
    assert joined.path.parent == tmp_path
    assert not (joined.path / "out_of_fold.csv").exists()
    calibrated = json.loads((joined.path / "metrics.json").read_text())["calibration"]
    assert calibrated["validation_images"] == 32
    images = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)
    mean = torch.stack([run.model.predict_probabilities(images, tta=False)[0] for run in (one, two, other)]).mean(dim=0)
    model = joined.model
    torch.testing.assert_close(model.predict_probabilities(images, tta=False)[0], mean, atol=1e-6, rtol=0)
    assert model.calibration.temperature == calibrated["temperature"]
    assert vf.ensemble([other, two, one]).name == joined.name  # the same networks
    assert vf.ensemble([one, two, other], overwrite=True).name != joined.name
    with pytest.raises(RunError, match=r"no fit \(ensemble\)"):
        vf.ensemble([joined, one])
    for runs, told in (([one], "1 run given"), ([one, one], "named twice")):
        with pytest.raises(SettingsError, match=told):
            vf.ensemble(runs)
    elsewhere = vf.fit(**settings(tmp_path, **{"data.synthetic.classes": 3}))
    with pytest.raises(SettingsError, match=r"data\.synthetic"):
        vf.ensemble([one, elsewhere])


def test_some_folds_are_no_ensemble(made):
    with pytest.raises(SettingsError, match="each of the 3 folds is needed once, missing: 1"):
        vf.ensemble([made.runs[0], made.runs[2]])


def test_disagreement_is_the_mutual_information_of_prediction_and_network():
    rng = np.random.default_rng(0)
    each = rng.dirichlet([1, 1, 1], size=(4, 6))
    mean = each.mean(axis=0)
    expected = -(mean * np.log(mean)).sum(-1) + (each * np.log(each)).sum(-1).mean(0)
    np.testing.assert_allclose(disagreement(torch.from_numpy(each)).numpy(), expected, atol=1e-9)
    assert disagreement(torch.ones(3, 2, 1), several=True).tolist() == [0.0, 0.0]
    apart = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])
    assert disagreement(apart, several=True).item() == pytest.approx(np.log(2) / 2)


def test_a_strangers_members_are_bounded(made, tmp_path):
    content = torch.load(made.ensemble.path / "checkpoints" / "best.ckpt", weights_only=True)
    for members, told in (
        ("x", "no list"),
        ([{}] * 101, "at most 100"),
        ([3], "cannot be used"),
        (content["hyper_parameters"]["members"] * 30, "its tensors are not those"),
    ):
        content["hyper_parameters"]["members"] = members
        torch.save(content, tmp_path / "bad.ckpt")
        with pytest.raises((RunError, SettingsError), match=told):
            load_classifier(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folds", "1"], "--folds: 1 is not allowed; allowed: a whole number, 2 to 100"),
        (["--folds", "two"], "--folds: two is not allowed"),
        (["--workers", "2"], "--workers: is for --folds"),
        (["--folds", "3", "--workers", "0"], "--workers: 0 is not allowed"),
        (["--folds", "3", "--seeds", "2"], "--seeds: is not for --folds"),
        (["--folds", "3", "--data.fold", "1"], "data.fold: 1 is one fold"),
        (["--folds", "3", "--data.folds", "4"], "data.folds: 4 and --folds 3 differ"),
        (["--folds", "3", "--resume", "latest"], "--resume: latest is one run"),
        (["--folds", "40"], "data.folds: 40 is more than the"),
        (["--folds", "2", "--data.fold_pool", "all"], "at least 3"),
        (["--data.folds", "3"], "train all with `visionforge fit --folds 3`"),
    ],
)
def test_wishes_that_cannot_be_met(arguments, told, refuse, tmp_path):
    problems = refuse("fit", *flags(), *arguments, "--trainer.default_root_dir", str(tmp_path / "outputs"))
    assert any(told in problem for problem in problems)
    assert not run_folders(tmp_path / "outputs")


def test_command_prints_the_folds_together(tmp_path, capsys):
    out = ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *flags(trainer__max_epochs=1), "--folds", "2", *out]) == 0
    printed = capsys.readouterr().out
    assert "fold 0 (0 to 1)" in printed
    assert "mean of folds" in printed
    runs = [str(path) for path in run_folders(tmp_path)]
    fits = [run for run in runs if json.loads((Path(run) / "run.json").read_text())["stage"] == "fit"]
    assert main(["ensemble", *fits]) == 0
    assert "mean of folds" in capsys.readouterr().out
    assert len(run_folders(tmp_path)) == 3  # it was there already


@pytest.mark.parametrize("command", ["fit", "tune"])
def test_configuration_of_all_folds_names_none(command, capsys):
    more = ["--workers", "2"] if command == "fit" else []
    assert main([command, *flags(), "--folds", "4", *more, "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["data"]["folds"], shown["data"]["fold"]) == (4, None)
    assert shown.get("tune", {"cross_validate": True})["cross_validate"]
