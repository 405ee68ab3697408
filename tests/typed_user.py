"""A user's script, which `mypy --strict` checks and nobody runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import visionforge as vf
from visionforge.models import BackboneEntry


def build(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * resolution**2, num_classes))


@vf.register_metric(label="mine", higher_is_better=False)
def mine(truth: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(predicted != truth, weights=weights))


vf.register_metric(vf.Metric(name="other", label="other", compute=mine))
vf.register_backbone(BackboneEntry("mine", build, "one layer"))
run = vf.fit("quickstart", data={"dataset": "digits"}, trainer={"max_epochs": 1})
assert_type(run, vf.Run)
several = vf.fit(seeds=[1, 2])
assert_type(several, list[vf.Run])
auc = run.metrics["auc"]
assert_type(auc, float)
interval = run.intervals["auc"]
assert_type(interval, tuple[float, float])
epochs = run.epochs
assert_type(epochs, pd.DataFrame)
predictions = run.predictions
assert_type(predictions, pd.DataFrame)
model = run.model
assert_type(model, vf.ImageClassifier)
path = run.path
assert_type(path, Path)

evaluated = vf.evaluate(run, split="val")
assert_type(evaluated, vf.EvaluationResult)
loss = evaluated.metrics["log_loss"]
assert_type(loss, float)
of_split = vf.predict(run)
assert_type(of_split, vf.EvaluationResult)
pictures = vf.predict(run, ["photos/"], tta=False)
assert_type(pictures, vf.PicturePredictions)
table = pictures.table
assert_type(table, pd.DataFrame)
explained = vf.explain(run, Path("photos"), limit=5)
assert_type(explained, vf.Explanations)
corrupted = vf.robustness(run, severities=(1, 3, 5), baseline=several[0])
assert_type(corrupted, vf.Robustness)
exported = vf.export(run, "onnx", overwrite=True)
assert_type(exported, vf.ExportResult)
study = vf.tune("quickstart", n_trials=3)
assert_type(study, vf.Study)
best = study.best_settings
assert_type(best, vf.RunSettings)
trials = study.trials
assert_type(trials, pd.DataFrame)
vf.fit(best)
compared = vf.compare([run, *several])
assert_type(compared, vf.Comparison)
latest = vf.open_run("latest")
assert_type(latest, vf.Run)
listed = vf.list_runs()
assert_type(vf.runs_page("outputs", out="runs.html"), Path)
assert_type(listed, list[vf.Run])
try:
    vf.fit(data={"dataset": "breastmnst"})
except vf.SettingsError as error:
    assert_type(error.problems, tuple[str, ...])

# --- Lightning parts

data = vf.ImageDataModule(dataset="synthetic", batch_size=32)
images, labels = torch.zeros(8, 1, 28, 28), torch.arange(8) % 3
loader = DataLoader(TensorDataset(images, labels), batch_size=4)
spec = vf.TaskSpec.of_arrays(images.numpy(), labels.numpy(), classes=("a", "b", "c"))
smallest = vf.TaskSpec(classes=3, channels=1)
named = vf.TaskSpec(classes=["a", "b", "c"], resolution=32)


class Own(vf.ImageClassifier):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        pixels, targets = batch
        loss = vf.losses.focal(self(pixels), targets, gamma=1.0)
        self.log("train/own", loss)
        return loss


own = Own(backbone="mini_cnn", optimizer="adamw", schedule={"name": "constant"}, loss="focal", spec=spec)
callbacks: list[pl.Callback] = [
    vf.RunFolder("outputs", data="mine", config={"rate": 1e-3}),
    vf.SplitReport(spec, loader),
    vf.TemperatureScaling(),
]
trainer = pl.Trainer(max_epochs=1, callbacks=callbacks)
trainer.fit(own, loader, loader)
alone, averaged = own.predict_probabilities(np.zeros((4, 28, 28), np.uint8))
shape = alone.shape
assert_type(shape, torch.Size)

# --- functions

value = vf.losses.cross_entropy(torch.zeros(4, 3), labels[:4], label_smoothing=0.1)
assert_type(value, Tensor)
weights = vf.losses.balanced_weights(torch.tensor([3, 5, 9]))
assert_type(weights, Tensor)
scores = vf.metrics.classification_metrics(alone.numpy(), labels[:4].numpy(), "multi-class")
assert_type(scores, Mapping[str, float | None])
augmented = vf.augmentations.random_augment(images.to(torch.uint8), "strong", mean=(0.5,), std=(0.25,))
assert_type(augmented, Tensor)
moved = vf.augmentations.random_augment(
    images.to(torch.uint8),
    mean=(0.5,),
    std=(0.25,),
    masks=torch.zeros(8, 28, 28, dtype=torch.int64),
    boxes=[torch.zeros(0, 4)] * 8,
    fill=255,
)
assert_type(moved, tuple[Tensor, Tensor, list[Tensor], list[Tensor]])
