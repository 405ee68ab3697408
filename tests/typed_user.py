"""A user's script, which `mypy --strict` checks and nobody runs."""

from collections.abc import Mapping
from pathlib import Path

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


vf.register_backbone(BackboneEntry("mine", build, "one layer"))
run: vf.Run = vf.fit("quickstart", data={"dataset": "digits"}, trainer={"max_epochs": 1})
several: list[vf.Run] = vf.fit(vf.RunSettings(), seeds=[1, 2])
auc: float | None = run.metrics["auc"]
interval: tuple[float, float] | None = run.intervals["auc"]
epochs: pd.DataFrame = run.epochs
predictions: pd.DataFrame = run.predictions
model: vf.ImageClassifier = run.model
path: Path = run.path

evaluated: vf.EvaluationResult = vf.evaluate(run, split="val")
loss: float | None = evaluated.metrics["log_loss"]
of_split: vf.EvaluationResult = vf.predict(run)
pictures: vf.PicturePredictions = vf.predict(run, ["photos/"], tta=False)
table: pd.DataFrame = pictures.table
explained: vf.Explanations = vf.explain(run, Path("photos"), limit=5)
exported: vf.ExportResult = vf.export(run, "onnx", overwrite=True)
study: vf.Study = vf.tune("quickstart", n_trials=3)
best: vf.RunSettings = study.best_settings
trials: pd.DataFrame = study.trials
vf.fit(best)
compared: vf.Comparison = vf.compare([run, *several])
latest: vf.Run = vf.open_run("latest")
mine: list[vf.Run] = vf.list_runs()
try:
    vf.fit(data={"dataset": "breastmnst"})
except vf.SettingsError as error:
    lines: tuple[str, ...] = error.problems

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
shape: torch.Size = alone.shape

# --- functions

value: Tensor = vf.losses.cross_entropy(torch.zeros(4, 3), labels[:4], label_smoothing=0.1)
weights: Tensor = vf.losses.balanced_weights(torch.tensor([3, 5, 9]))
scores: Mapping[str, float | None] = vf.metrics.classification_metrics(alone.numpy(), labels[:4].numpy(), "multi-class")
augmented: Tensor = vf.augmentations.random_augment(
    images.to(torch.uint8), vf.augmentations.Augmentation(preset="strong"), mean=(0.5,), std=(0.25,)
)
