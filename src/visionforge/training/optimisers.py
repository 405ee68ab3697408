"""From the optimiser settings to parameter groups and a torch optimiser."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from visionforge.config.schema import Optimizer
from visionforge.training.muon import Muon


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    head: tuple[str, ...],
    stem: str,
    settings: Optimizer,
    backbone_rate: float = 1.0,
) -> list[dict[str, Any]]:
    """Sort parameters into groups that share a learning rate, a weight decay and a kind of update.

    Norms and biases are the parameters with one dimension. Under Muon, the hidden weights are orthogonalised; the stem,
    the classifier and all vectors, position embeddings and class tokens among them, are left to AdamW.

    Args:
        parameters: (name, parameter) as `named_parameters` gives them.
        head: Prefixes of the classifier's names.
        stem: Name of the first layer's weight.
        settings: The optimiser.
        backbone_rate: Learning rate of everything but the classifier, as a share of the classifier's.

    Returns:
        Groups for a torch optimiser, none of them empty; the first one holds the classifier's weight, whose rate is
        the configured one.
    """
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, p in parameters:
        in_head = name.startswith(head)
        decays = settings.decay_norm_bias or p.ndim > 1
        hidden = p.ndim > 1 and name.endswith("weight") and name != stem and not in_head
        orthogonal = settings.name == "muon" and hidden
        groups.setdefault((not in_head and backbone_rate != 1.0, not decays, orthogonal), []).append(p)
    found = []
    for (scaled, spared, orthogonal), members in sorted(groups.items(), key=lambda item: item[0]):
        group: dict[str, Any] = {"params": members, "lr": settings.learning_rate * (backbone_rate if scaled else 1.0)}
        if spared:
            group["weight_decay"] = 0.0
        if settings.name == "muon":
            group["orthogonal"] = orthogonal
        found.append(group)
    return found


def build_optimizer(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    """Return the configured optimiser for these groups."""
    rate, momentum, decay = settings.learning_rate, settings.momentum, settings.weight_decay
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, settings.beta2), weight_decay=decay)
    if settings.name == "muon":
        return Muon(groups, rate, momentum, settings.nesterov, settings.beta2, decay)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=decay, nesterov=settings.nesterov)
