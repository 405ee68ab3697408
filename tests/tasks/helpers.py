"""Masks that are drawn, and small networks for them; untrained ones are made to say something of each pixel."""

import numpy as np
import torch

from visionforge.config.schema import Backbone, Synthetic
from visionforge.data import MedMNISTDataModule
from visionforge.data.augment import normalise
from visionforge.data.info import DomainFlags, TaskSpec
from visionforge.training.classifier import ImageClassifier

FLAGS = DomainFlags(hflip=True, vflip=True, rotation="any", texture_is_label=True, colour_is_label=True)
NAMES = ("background", "disc", "square")


def mask_spec(classes=NAMES, size=16, channels=3, **changes) -> TaskSpec:
    fields = {"dataset": "made", "mean": (0.5,) * channels, "std": (0.3,) * channels, "flags": FLAGS, **changes}
    return TaskSpec(task="segmentation", classes=classes, channels=channels, resolution=size, **fields)


def noise(count: int, height: int = 16, width: int = 16, channels: int = 3, seed: int = 7) -> torch.Tensor:
    """Return (N, C, H, W) uint8, of which each has a colour of its own."""
    rng = np.random.default_rng(seed)
    tops = rng.integers(1, 256, (count, channels, 1, 1))
    return torch.from_numpy(rng.integers(0, tops, (count, channels, height, width), dtype=np.uint8, endpoint=True))


def mask_model(spec: TaskSpec | None = None, tta="off", seed: int = 1, **settings) -> ImageClassifier:
    """Return an untrained network in evaluation mode, whose classes are about as frequent as each other."""
    spec = spec or mask_spec()
    torch.manual_seed(seed)
    model = ImageClassifier(Backbone(name="mini_cnn", pretrained=False), tta=tta, spec=spec, **settings)
    model.configure_model()
    model.eval()
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    assert last.out_channels == len(spec.classes)
    with torch.no_grad():
        given = normalise(noise(12, spec.resolution, spec.resolution, spec.channels), spec.mean, spec.std)
        logits = model.network(given)
        scale = 3 / logits.std(dim=(0, 2, 3))
        last.weight.mul_(scale.view(-1, 1, 1, 1))
        last.bias.copy_((last.bias - logits.mean(dim=(0, 2, 3))) * scale)
    return model


def drawn_masks(count: int = 6, size: int = 16, classes: int = 3, seed: int = 0, ignored: float = 0.0) -> np.ndarray:
    """Return (N, R, R) uint8 of any class, and a share of 255."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, classes, (count, size, size), dtype=np.uint8)
    masks[rng.random(masks.shape) < ignored] = 255
    return masks


def mask_data(**changes) -> MedMNISTDataModule:
    """Return rendered shapes of three classes, the background included."""
    synthetic = Synthetic(task="segmentation", classes=3, train=40, val=16, test=16)
    settings = {"dataset": "synthetic", "resolution": 16, "batch_size": 8, "synthetic": synthetic}
    return MedMNISTDataModule(**{**settings, **changes})
