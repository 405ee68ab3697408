"""Small fits for the tests of training: rendered images, the mini CNN, seconds."""

import lightning.pytorch as pl
import torch

from visionforge.config.schema import Augmentation, Backbone, Synthetic
from visionforge.data import MedMNISTDataModule
from visionforge.training.classifier import ImageClassifier

MINI = Backbone(name="mini_cnn", pretrained=False)
PLAIN = Augmentation(hflip=0, rotation_angle=0, jitter_val=0, min_scale=1)


def data(**changes) -> MedMNISTDataModule:
    settings = {
        "dataset": "synthetic",
        "resolution": 16,
        "batch_size": 16,
        "augmentation": PLAIN,
        "synthetic": Synthetic(train=80, val=32, test=32),
    }
    return MedMNISTDataModule(**{**settings, **changes})


def trainer(epochs: int = 2, **changes) -> pl.Trainer:
    settings = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(**{**settings, **changes})


def fit(module: ImageClassifier, epochs: int = 2, datamodule: MedMNISTDataModule | None = None, **flags) -> pl.Trainer:
    pl.seed_everything(42, verbose=False)
    one = trainer(epochs, **flags)
    one.fit(module, datamodule=datamodule or data())
    return one


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])
