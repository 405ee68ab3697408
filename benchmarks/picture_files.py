"""Made-up pictures, and the checkpoint of an untrained network that can be asked about them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from visionforge import ImageClassifier
from visionforge.data.info import DomainFlags, TaskSpec

SPEC = TaskSpec(
    dataset="benchmark", task="multi-class", classes=tuple("abcdefgh"), channels=3, resolution=28,
    mean=(0.5,) * 3, std=(0.25,) * 3,
    flags=DomainFlags(hflip=True, vflip=True, rotation="any", texture_is_label=True, colour_is_label=True),
)  # fmt: skip


def make_pictures(folder: Path, count: int) -> None:
    """Write smooth coloured PNG files of 28×28 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        low = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        size = (SPEC.resolution, SPEC.resolution)
        low.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:06d}.png")


def write_checkpoint(path: Path, backbone: str) -> None:
    """Write a network with random weights, without test-time views."""
    torch.manual_seed(0)
    model = ImageClassifier(backbone={"name": backbone, "pretrained": False}, tta=False, spec=SPEC)
    model.configure_model()
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)
