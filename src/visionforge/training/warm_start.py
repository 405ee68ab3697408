"""The last layer of a network before its training: a logistic regression of the features that the network begins with.

A random classifier sends large gradients through a pretrained network, which distort its features before they are used
(Kumar et al., 2022, arXiv:2202.10054: linear probing, then fine-tuning).
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from visionforge.config.schema import ProbeSettings
from visionforge.errors import SettingsError
from visionforge.training.probes.features import Labelled

if TYPE_CHECKING:
    from visionforge.data.datamodule import ImageDataModule
    from visionforge.training.classifier import ImageClassifier
    from visionforge.training.probes.choice import Choice

log = logging.getLogger(__name__)

SETTING = "model.warm_start"


def fit_last_layer(model: "ImageClassifier", data: "ImageDataModule") -> "Choice":
    """Give a network the classifier that fits its features best, as `visionforge probe` finds it.

    C is chosen on the validation split; classes count alike where the training draws or weighs them so.

    Args:
        model: The network, built and on its device; its mode is left as it was.
        data: The images, which are looked at as they are.

    Raises:
        SettingsError: If the network has no linear layer of features that gives a logit for every class.
    """
    from visionforge.training.probes.choice import choose  # scikit-learn takes half a second

    spec, criterion = model.spec, model.criterion
    assert spec is not None
    assert criterion is not None
    if criterion.cumulative:
        raise SettingsError(
            f"{SETTING}: linear_probe needs a logit for every class, the loss {model.settings.loss.name} has one for "
            "all grades; set model.loss.name to cross_entropy, or warm_start to none"
        )
    if not isinstance(model.last_layer, nn.Linear):
        raise SettingsError(
            f"{SETTING}: {model.settings.backbone.name} has no linear classifier of features; set it to none"
        )
    balanced = data.settings.balances or model.settings.loss.class_weights != "none"

    def labelled(batches: Iterable[tuple[Tensor, Tensor]]) -> Labelled:
        values, labels = _features(model, batches)
        return Labelled.of(values.numpy(), labels.numpy(), len(spec.classes), spec.task, balanced, model.seed)

    train = labelled(data.plain_batches(len(data.dataset_for("train")), model.device))
    val = labelled(data.validation_batches(model.device))
    choice = choose(ProbeSettings(), train, val, spec, criterion, model.monitor)
    model.take_head(choice.head)
    found = next(row for row in choice.rows if row["chosen"])
    name = model.monitor.name
    log.info("the training begins with a linear probe: c %g, %s %.4f", choice.values["c"], name, found[name])
    return choice


def _features(model: "ImageClassifier", batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return (N, D) features and labels of images, in evaluation mode."""
    found = [(model.features(images).cpu(), truth.cpu()) for images, truth in batches]
    return torch.cat([values for values, _ in found]), torch.cat([labels for _, labels in found])
