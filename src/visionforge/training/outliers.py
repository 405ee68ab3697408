"""How far an image is from those that a network was trained with; the higher the score, the further out.

Four scores of images that may be of no class at all. `energy` (Liu et al., 2020, arXiv:2010.03759) and `max_logit`
(Hendrycks et al., 2022, arXiv:1911.11132) need the logits alone; `mahalanobis` (Lee et al., 2018, arXiv:1807.03888)
and `knn` (Sun et al., 2022, arXiv:2204.06507) compare the features in front of the last layer with those of training
images. Every operation is one that ONNX has.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionforge.errors import RunError

OF_LOGITS, OF_FEATURES = ("energy", "max_logit"), ("mahalanobis", "knn")
INSIDE = 0.95  # share of the validation images that are not beyond the threshold
TRAINING_IMAGES = 2048  # of which features are looked at, evenly drawn
NEIGHBOURS, BANK = 10, 2048  # of `knn`: which neighbour counts, and of how many images
MOST_FEATURES = 4096  # a covariance of more would be larger than most networks


@dataclass(frozen=True, eq=False)
class Outliers:
    """A fitted score.

    Attributes:
        method: Which score.
        tensors: What it compares features with, float32: of `mahalanobis` `centre` (D,), `whitening` (D, D) and
            `means` (C, D) of the whitened classes; of `knn` the `bank` (M, D) of features of length 1.
        threshold: Score that 95 % of the validation images do not exceed; None before they were seen.
        images: Number of validation images.
    """

    method: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    threshold: float | None = None
    images: int = 0

    @property
    def of_features(self) -> bool:
        """Return whether it looks at features."""
        return self.method in OF_FEATURES

    def __call__(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Return (N,) scores of logits (N, K) and features (N, D)."""
        given = features if features is not None else logits
        tensors = {name: each.to(given.device) for name, each in self.tensors.items()}
        with torch.autocast(given.device.type, enabled=False):  # distances are differences of large numbers
            return scores(self.method, tensors, logits, features)

    def fitted(self, validation: Tensor) -> "Outliers":
        """Return the same with the threshold that scores (N,) of validation images ask for."""
        ordered = validation.double().sort().values
        threshold = float(ordered[math.ceil(INSIDE * len(ordered)) - 1])
        return Outliers(self.method, self.tensors, threshold, len(ordered))

    def reported(self) -> dict[str, Any]:
        """Return what `metrics.json` says of it."""
        return {"method": self.method, "threshold": self.threshold, "validation_images": self.images}

    def stored(self) -> dict[str, Any]:
        """Return plain values and tensors for a checkpoint."""
        tensors = {name: each.cpu() for name, each in self.tensors.items()}
        return {"method": self.method, "threshold": self.threshold, "images": self.images, "tensors": tensors}

    @classmethod
    def from_stored(cls, values: Mapping[str, Any], classes: int, features: int | None) -> "Outliers":
        """Return what `stored` has given.

        Args:
            values: From a file, which may be anybody's.
            classes: Number of classes K.
            features: Number of features D of the network; None if it has none to look at.

        Raises:
            ValueError: If it is something else, or of another network.
        """
        method, tensors = str(values["method"]), dict(values["tensors"])
        threshold = None if values["threshold"] is None else float(values["threshold"])
        d = features or 0
        sizes: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {  # smallest and largest of every axis
            "mahalanobis": {"centre": ((d, d),), "whitening": ((d, d), (d, d)), "means": ((1, classes), (d, d))},
            "knn": {"bank": ((1, BANK), (d, d))},
        }
        shapes = sizes.get(method, {})
        fits = method in (*OF_LOGITS, *OF_FEATURES) and tensors.keys() == shapes.keys()
        fits = fits and (threshold is None or math.isfinite(threshold)) and d <= MOST_FEATURES
        for name, axes in shapes.items() if fits else ():
            each = tensors[name]
            fits = fits and isinstance(each, Tensor) and each.dtype == torch.float32 and each.ndim == len(axes)
            fits = fits and all(low <= size <= high for size, (low, high) in zip(each.shape, axes, strict=True))
            fits = fits and bool(torch.isfinite(each).all())
        if not fits:
            raise ValueError("what it says of images that are far out is of another network")
        return cls(method, tensors, threshold, int(values["images"]))


def scores(method: str, tensors: Mapping[str, Tensor], logits: Tensor, features: Tensor | None) -> Tensor:
    """Return (N,) float32 scores; the higher, the further out.

    - `energy`: -log Σ exp(logit).
    - `max_logit`: the largest logit, negative.
    - `mahalanobis`: squared distance from the nearest class, in units of the covariance that the classes share.
    - `knn`: distance of the features, scaled to length 1, from the tenth nearest of the bank.

    Args:
        method: Which score.
        tensors: Those of `Outliers`, on the device of the features.
        logits: (N, K).
        features: (N, D) in front of the last layer; None where the score needs none.
    """
    if method == "energy":
        return -logits.float().logsumexp(dim=1)
    if method == "max_logit":
        return -logits.float().amax(dim=1)
    assert features is not None
    if method == "mahalanobis":
        white = (features.float() - tensors["centre"]) @ tensors["whitening"]
        means = tensors["means"]
        squares = (white**2).sum(dim=1, keepdim=True) - 2 * white @ means.T + (means**2).sum(dim=1)
        return squares.amin(dim=1).clamp(min=0)
    bank = tensors["bank"]
    cosines = unit(features.float()) @ bank.T
    nearest = cosines.topk(min(NEIGHBOURS, len(bank)), dim=1).values[:, -1]
    return (2 - 2 * nearest).clamp(min=0).sqrt()


def unit(features: Tensor) -> Tensor:
    """Return features (N, D) scaled to length 1; those of length 0 stay."""
    length = (features**2).sum(dim=1, keepdim=True).sqrt()
    return features / length.clamp(min=1e-12)


def fit_outliers(method: str, features: Tensor | None = None, labels: Tensor | None = None) -> Outliers:
    """Return a score, still without its threshold.

    The covariance is that within the classes, shrunk as Ledoit and Wolf (2004) do.

    Args:
        method: Which score.
        features: (N, D) of training images, for scores of features.
        labels: (N,) int64, their classes.

    Raises:
        RunError: If there are more features than are kept.
    """
    if method in OF_LOGITS:
        return Outliers(method)
    assert features is not None
    assert labels is not None
    if features.shape[1] > MOST_FEATURES:
        raise RunError(f"evaluation.ood: {method} keeps at most {MOST_FEATURES:,} features; choose energy")
    given, labels = features.detach().double().cpu(), labels.cpu()
    if method == "knn":
        chosen = torch.linspace(0, len(given) - 1, min(BANK, len(given))).round().long()
        return Outliers(method, {"bank": unit(given[chosen]).float()})
    from sklearn.covariance import ledoit_wolf  # half a second

    centre = given.mean(dim=0)
    classes = torch.from_numpy(np.unique(labels.numpy()))
    means = torch.stack([given[labels == k].mean(dim=0) for k in classes])
    within = given - means[torch.searchsorted(classes, labels)]
    covariance = torch.from_numpy(ledoit_wolf(within.numpy(), assume_centered=True)[0])
    values, vectors = torch.linalg.eigh(covariance)
    least = max(float(values.max()) * 1e-9, 1e-12)  # features that never change have no variance
    whitening = vectors / values.clamp(min=least).sqrt()
    tensors = {"centre": centre, "whitening": whitening, "means": (means - centre) @ whitening}
    return Outliers(method, {name: each.float().contiguous() for name, each in tensors.items()})


# --- features


@contextmanager
def watching(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """Keep what a layer is given (N, D), call by call, for a while; nothing is kept of no layer."""
    kept: list[Tensor] = []
    if layer is None:
        yield kept
        return
    handle = layer.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach().flatten(1)))
    try:
        yield kept
    finally:
        handle.remove()
