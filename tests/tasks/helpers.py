"""Masks and boxes that are drawn, and small networks for them; untrained ones say something of each pixel."""

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


def box_spec(classes=NAMES[1:], size=32, channels=3, **changes) -> TaskSpec:
    fields = {"dataset": "made", "mean": (0.5,) * channels, "std": (0.3,) * channels, "flags": FLAGS, **changes}
    return TaskSpec(task="detection", classes=classes, channels=channels, resolution=size, **fields)


def drawn_boxes(count: int = 6, size: int = 32, classes: int = 2, most: int = 4, seed: int = 0) -> np.ndarray:
    """Return (N, most, 5) float32 rows [class, x1, y1, x2, y2] of whole pixels; the first picture has no box."""
    rng = np.random.default_rng(seed)
    out = np.zeros((count, most, 5), np.float32)
    out[..., 0] = -1
    for picture in range(1, count):
        for row in range(rng.integers(1, most + 1)):
            low = rng.integers(0, size - 8, 2)
            high = np.minimum(low + rng.integers(4, size // 2, 2), size)
            out[picture, row] = [rng.integers(classes), *low, *high]
    return out


def said_boxes(truth: np.ndarray, rows: int = 10, classes: int = 2, seed: int = 1) -> np.ndarray:
    """Return (N, rows, 6) predictions: most true boxes, moved a little, and some that are wrong; by falling score."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(truth), rows, 6), np.float32)
    out[..., 0] = -1
    for picture, boxes in enumerate(truth):
        kept = boxes[(boxes[:, 0] >= 0) & (rng.random(len(boxes)) < 0.8)]
        found = [[kind, rng.uniform(0.3, 1), *(corners + rng.uniform(-1, 1, 4))] for kind, *corners in kept]
        found += [[rng.integers(classes), rng.uniform(0, 0.7), 2, 3, *rng.uniform(8, 20, 2)] for _ in range(2)]
        found = np.array(sorted(found, key=lambda row: -row[1]), np.float32)
        out[picture, : len(found)] = found
    return out


def box_data(**changes) -> MedMNISTDataModule:
    """Return rendered shapes of two classes."""
    synthetic = Synthetic(task="detection", classes=2, train=40, val=16, test=16)
    settings = {"dataset": "synthetic", "resolution": 32, "batch_size": 8, "synthetic": synthetic}
    return MedMNISTDataModule(**{**settings, **changes})
