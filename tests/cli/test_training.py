"""Settings of the model from the command line: they reach the training, and what cannot be is one line."""

import csv
import json
import os

import pytest
import torch
import yaml
from torch import nn

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.models import BackboneEntry, register_backbone
from visionforge.models.registry import _ENTRIES


def fit(outputs, *arguments, **changes):
    before = set(run_folders(outputs))
    assert main(["fit", *flags(trainer__default_root_dir=outputs, **changes), *arguments]) == 0
    (run,) = set(run_folders(outputs)) - before
    return run


def state(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def test_weights_of_another_run(quick_run, tmp_path):
    """Another number of classes, channels and epochs; the classifier is frozen out of the comparison."""
    run = fit(
        tmp_path / "outputs",
        model__backbone__pretrained="true",
        model__backbone__weights=quick_run,
        model__finetuning__freeze_epochs=2,
        data__synthetic__classes=3,
    )
    source, found = state(quick_run, "best"), state(run)
    report = json.loads((run / "reports" / "weight_transfer.json").read_text())
    assert report["source"] == str(quick_run)
    assert report["new"] == ["head.1.weight", "head.1.bias"] == report["unused"]
    assert len(report["sha256"]) == 64
    for name in report["loaded"]:
        assert torch.equal(found[f"network.{name}"], source[f"network.{name}"]), name
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["weight_transfer"] == report
    assert "weights of" in (run / "run.log").read_text()


def test_tta_as_a_switch_is_the_same_run(tmp_path):
    names = []
    for value in ("true", "full", "light", "off", "false"):
        run = fit(tmp_path / value, model__tta=value, trainer__max_epochs=1)
        names.append(run.name)
        metrics = json.loads((run / "metrics.json").read_text())
        assert (metrics["with_tta"] is None) == (value in ("off", "false"))
    assert names[0] == names[1] != names[2] != names[3] == names[4]


def test_averaged_weights_are_what_is_tested(tmp_path):
    run = fit(tmp_path / "outputs", model__averaging__name="ema", model__averaging__decay=0.8, trainer__max_epochs=3)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    name = "network.head.1.weight"
    assert not torch.equal(last["state_dict"][name], last["current_model_state"][name])
    validated = json.loads((run / "metrics.json").read_text())
    assert main(["validate", "--run", str(run)]) == 0
    again = json.loads((run / "evaluations" / "validate_best" / "metrics.json").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        rows = {int(row["epoch"]) + 1: row for row in csv.DictReader(file)}
    assert again["without_tta"]["auc"] == pytest.approx(float(rows[validated["epoch"]]["val/auc"]), abs=1e-5)


def test_class_weights_by_name(tmp_path):
    (tmp_path / "weights.yaml").write_text("model: {loss: {class_weights: {class 1: 3.0}}}\n")
    run = fit(tmp_path / "outputs", "--config", "weights.yaml", trainer__max_epochs=1)
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["loss"]["class_weights"] == {"class 1": 3.0}


class Scatter(nn.Module):
    """A network with an operation that has no deterministic form."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, images):
        means = images.mean(dim=(2, 3)).clone()
        return self.linear(means.put_(torch.tensor([0]), torch.tensor([1.0])))


@pytest.fixture
def scatter():
    def build(*, in_channels, num_classes, dropout, resolution, scale):
        return Scatter(in_channels, num_classes)

    register_backbone(BackboneEntry("scatter", build, "scatters"))
    yield
    del _ENTRIES["scatter"]


def test_kernel_without_a_deterministic_form_is_named(scatter, refuse):
    (line,) = refuse(
        "fit", *flags(model__backbone__name="scatter", trainer__deterministic="true"), keeps=("outputs", "torch")
    )
    assert line.startswith("trainer.deterministic: put_ has no deterministic form on this device")
    assert "trainer.deterministic to warn" in line


def test_the_same_kernel_runs_without_strict_mode(scatter, tmp_path):
    fit(tmp_path / "outputs", model__backbone__name="scatter", trainer__max_epochs=1)


def test_strict_mode_sets_what_cuda_needs_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    fit(tmp_path / "standard", trainer__max_epochs=1)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    fit(tmp_path / "strict", trainer__max_epochs=1, trainer__deterministic="true")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model__loss__name": "ordinal"}, "model.loss.name: ordinal does not fit synthetic"),
        ({"model__loss__class_weights": "balanced"}, "model.loss.class_weights: balanced would balance"),
        ({"model__optimizer__name": "adam"}, "model.optimizer.name: 'adam' is not allowed"),
        ({"model__optimizer__beta2": 0.9}, "model.optimizer.beta2: 0.9 would be ignored"),
        ({"model__schedule__warmup_epochs": 2}, "model.schedule.warmup_epochs: 2 is not allowed; at most 1"),
        ({"model__tta": "most"}, "model.tta: 'most' is not allowed"),
        ({"model__finetuning__freeze_epochs": 1}, "model.finetuning.freeze_epochs: freezes a backbone with random"),
        ({"model__backbone__name": "timm/resnet1"}, "model.backbone.name: timm has no classification model"),
        ({"model__backbone__name": "torchvision/resnet"}, "model.backbone.name: torchvision has no classification"),
        (
            {"model__backbone__name": "vit_tiny", "data__resolution": 30},
            "data.resolution: 30 is not allowed for vit_tiny, whose patches have 4 pixels here; a multiple of 4",
        ),
        (
            {"model__backbone__pretrained": "true", "model__backbone__weights": "https://host/a.pth"},
            "model.backbone.weights: https://host/a.pth: an address needs its file's SHA-256",
        ),
        (
            {"model__backbone__pretrained": "true", "model__backbone__weights": "http://host/a.pth#sha256=" + "0" * 64},
            "model.backbone.weights: http://host/a.pth: only HTTPS is downloaded",
        ),
    ],
)
def test_mistakes_are_one_line(refuse, changes, complaint):
    (line,) = refuse("fit", *flags(**changes), keeps=("cache", "visionforge", "weights", "torch"))
    assert line.startswith(complaint)


def test_ordinal_checkpoint_is_not_read_as_another_loss(tmp_path, refuse):
    run = fit(tmp_path / "outputs", data__synthetic__task="ordinal", model__loss__name="ordinal")
    (line,) = refuse("test", "--run", str(run), "--model.loss.name", "cross_entropy")
    assert line == "model.loss.name: cross_entropy asked for, the checkpoint has the outputs of ordinal"
    assert main(["test", "--run", str(run)]) == 0
    found = json.loads((run / "evaluations" / "test_best" / "metrics.json").read_text())
    assert found == json.loads((run / "metrics.json").read_text())
