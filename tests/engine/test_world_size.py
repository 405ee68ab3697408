"""Several processes that train together end with the weights of one, whatever changes their images."""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import EXHAUSTIVE

SCRIPT = '''
import sys
import lightning.pytorch as pl
import torch
from torch import nn
from torchvision.ops import StochasticDepth
from visionforge import ImageClassifier, ImageDataModule
from visionforge.models import BackboneEntry, register_backbone


class Plain(nn.Module):
    """Without batch normalisation, whose statistics are those of a process's own images."""

    def __init__(self, in_channels, num_classes, dropout):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU())
        self.third = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.Dropout2d(dropout), nn.Tanh())
        self.branch = StochasticDepth(0.3, "row")
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(32, num_classes))

    def forward(self, images):
        maps = self.second(torch.tanh(self.norm(self.stem(images))))
        return self.head((maps + self.branch(self.third(maps))).mean(dim=(2, 3)))


def build_plain(*, in_channels, num_classes, dropout, resolution, scale):
    """Three convolutions."""
    return Plain(in_channels, num_classes, dropout)


if __name__ == "__main__":
    devices, out = int(sys.argv[1]), sys.argv[2]
    register_backbone(BackboneEntry(name="plain", builder=build_plain, stem="stem.weight", head="head.1.",
                                    description="Three convolutions", stages=("second", "third")))
    states = {}
    for name, rate in (("sgd", 0.02), ("adamw", 0.002), ("muon", 0.002)):
        pl.seed_everything(7)
        data = ImageDataModule("synthetic", synthetic={"train": 200, "val": 16, "test": 16}, batch_size=64 // devices,
                               augmentation={"preset": "strong", "operations": ["gaussian_noise", "random_erasing"]},
                               sampler="uniform")
        data.augmentation = data.settings.augmentation.resolved()  # also what gratings would not allow
        model = ImageClassifier(backbone={"name": "plain", "pretrained": False, "dropout": 0.3},
                                optimizer={"name": name, "learning_rate": rate},
                                loss={"class_weights": {"class 0": 3.0}, "label_smoothing": 0.1},
                                mixup={"alpha": 0.4, "cutmix_alpha": 1.0, "per_image": True})
        trainer = pl.Trainer(max_epochs=3, accelerator="cpu", devices=devices, logger=False, limit_val_batches=0,
                             strategy="ddp" if devices > 1 else "auto", deterministic=True,
                             enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(model, datamodule=data)
        states |= {f"{name} {key}": value for key, value in model.state_dict().items()}
    if trainer.is_global_zero:
        torch.save(states, out)
'''


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
@pytest.mark.parametrize("more", [(2,), pytest.param((4,), marks=EXHAUSTIVE)])
def test_two_and_four_processes_learn_what_one_learns(tmp_path, more):
    (tmp_path / "train.py").write_text(SCRIPT)
    states = {}
    for devices in (1, *more):
        out = tmp_path / f"{devices}.pt"
        command = [sys.executable, "train.py", str(devices), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        states[devices] = torch.load(out, weights_only=True)
    for devices in more:
        for name, value in states[1].items():
            allowed = 1e-6 if name.startswith("sgd") else 5e-6  # the others make more of a last digit
            torch.testing.assert_close(states[devices][name], value, rtol=0, atol=allowed)
