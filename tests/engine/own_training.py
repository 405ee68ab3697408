"""Somebody's own module on somebody's own tensors, with a run folder and a report from callbacks alone."""

import os
import signal
import sys

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import visionforge as vf


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        if os.environ.get("STOP") == f"{self.current_epoch}.{batch_idx}":
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def loader(count, shuffle=False):
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 3
    images = torch.rand((count, 1, 8, 8), generator=generator)
    images[torch.arange(count), 0, labels] += 1.0
    return DataLoader(TensorDataset(images.clamp(0, 1), labels), 32, shuffle=shuffle), images, labels


def main(outputs):
    pl.seed_everything(3)
    (train, images, labels), (val, *_), (test, *_) = loader(192, shuffle=True), loader(64), loader(60)
    spec = vf.TaskSpec.of_arrays(images.clamp(0, 1).numpy(), labels.numpy(), classes=("a", "b", "c"), dataset="rows")
    callbacks = [vf.RunFolder(outputs, data="rows", config={"rate": 0.01}), vf.SplitReport(spec, test)]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks, **quiet).fit(Own(), train, val)


if __name__ == "__main__":
    main(sys.argv[1])
