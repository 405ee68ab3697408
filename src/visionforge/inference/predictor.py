"""Networks that say something of images; `visionforge.inference.artifacts` has what was exported from them."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.config.schema import ModelSettings
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError
from visionforge.inference.predictions import DISAGREEMENT as DISAGREEMENT
from visionforge.inference.predictions import BatchPrediction as BatchPrediction
from visionforge.inference.predictions import Pixels, distance_columns
from visionforge.inference.predictions import Predictor as Predictor
from visionforge.scoring.decisions import predicted_labels
from visionforge.training.ensemble import disagreement
from visionforge.training.task_network import TaskNetwork
from visionforge.training.tta import named_views


class NetworkPredictor:
    """A network with its temperature and thresholds.

    Args:
        model: The network.
        tta: Average over the test-time views; None takes the network's setting.
    """

    def __init__(self, model: TaskNetwork, tta: bool | None = None) -> None:
        assert model.spec is not None
        self.spec = model.spec
        self._model = model
        self._tta = tta

    @property
    def device(self) -> torch.device:
        """Return where the network is."""
        return next(self._model.parameters()).device

    @property
    def farthest(self) -> float | None:
        """Return the `ood_score` above which an image is unlike those of the training; None if there is none."""
        return None if self._model.outliers is None else self._model.outliers.threshold

    def sharing_weights(self) -> "NetworkPredictor":
        """Return a predictor of the same weights, which another thread may ask at the same time."""
        tensors = (*self._model.parameters(), *self._model.buffers())
        return NetworkPredictor(copy.deepcopy(self._model, {id(each): each for each in tensors}), self._tta)

    @torch.inference_mode()
    def __call__(self, images: Pixels | Tensor) -> BatchPrediction:
        """Return what the network says of images (B, C, R, R), uint8 or normalised float.

        Raises:
            RunError: If its outputs are not finite.
        """
        model = self._model
        with model.members_kept() as members:
            logits, averaged, scores = model.evaluated(torch.as_tensor(images).to(self.device), self._tta)
        assert model.criterion is not None
        raw, raw_tta = _plain(model.criterion.probabilities(logits)), None if averaged is None else _plain(averaged)
        given, tta = (raw, False) if raw_tta is None else (raw_tta, True)
        require_finite(given)
        thresholds = thresholds_of(model, tta)
        stated, labels = model.calibrated(given, tta=tta), chosen_labels(given, self.spec, thresholds)
        found = {} if model.calibration is None else model.calibration.columns(stated, torch.from_numpy(labels), tta)
        said = {name: each.numpy() for name, each in found.items()}
        if scores is not None:
            said |= distance_columns(_plain(scores).numpy(), self.farthest)
        return BatchPrediction(
            stated.numpy(),
            labels,
            raw.numpy(),
            None if raw_tta is None else raw_tta.numpy(),
            said | further_columns(members, len(raw), self.spec),
        )


def further_columns(members: Sequence[Tensor], images: int, spec: TaskSpec) -> dict[str, npt.NDArray[Any]]:
    """Return what is said beside probabilities: how far the networks of an ensemble disagree on each image.

    Args:
        members: What `Predicting.members_kept` gave.
        images: Number of images N, which come before their further views.
        spec: The task.
    """
    if not members:
        return {}
    return {DISAGREEMENT: disagreement(_plain(members[0][:, :images]), spec.kind.several).numpy()}


class ViewsPredictor:
    """A network of which only one answer is taken: that of the test-time views together if they are on.

    Args:
        model: The network.
        tta: Ask the test-time views; None takes the network's setting.
    """

    def __init__(self, model: TaskNetwork, tta: bool | None = None) -> None:
        assert model.spec is not None
        self.spec = model.spec
        self._model = model
        self._tta = tta

    @property
    def settings(self) -> ModelSettings:
        """Return the network's settings."""
        return self._model.settings

    @property
    def averages(self) -> bool:
        """Return whether test-time views are asked."""
        views = named_views(self.spec, self._model.settings.tta, self.spec.resolution)
        return self._tta is not False and len(views) > 1

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> Tensor:
        """Return what the criterion makes of the logits of images (B, C, R, R), in float32.

        Raises:
            RunError: If its outputs are not finite.
        """
        device = next(self._model.parameters()).device
        raw, averaged = self._model.predict_probabilities(images.to(device), self._tta)
        given = raw if averaged is None else averaged
        require_finite(given)
        return given.float()


def require_finite(given: Tensor) -> None:
    """Refuse outputs of a network that has diverged.

    Raises:
        RunError: If they are not finite.
    """
    if not bool(torch.isfinite(given).all()):
        raise RunError("the network's outputs are not finite, so its training has diverged; take another checkpoint")


def _plain(probabilities: Tensor) -> Tensor:
    """Return probabilities as NumPy can hold them, whatever precision the network has."""
    return probabilities.detach().to("cpu", torch.float32)


def thresholds_of(model: TaskNetwork, tta: bool) -> Tensor | None:
    """Return (K,) the thresholds of labels, of probabilities before calibration; None is 0.5.

    Args:
        model: The network.
        tta: Whether the probabilities are averaged over the test-time views.
    """
    if tta and model.calibration is not None and model.calibration.thresholds_tta is not None:
        return torch.tensor(model.calibration.thresholds_tta)
    return model.thresholds


def chosen_labels(given: Tensor, spec: TaskSpec, thresholds: Tensor | None) -> npt.NDArray[np.int64]:
    """Return (B,) classes or (B, K) labels.

    Args:
        given: (B, K) probabilities.
        spec: The task.
        thresholds: (K,) of labels, for these probabilities; None is 0.5.
    """
    return predicted_labels(given.numpy(), spec.task, None if thresholds is None else thresholds.numpy())
