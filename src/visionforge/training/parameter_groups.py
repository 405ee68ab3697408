"""Parameters in groups that share a learning rate, a weight decay and a kind of update."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from visionforge.config.schema import Optimizer

FUSED_ON = ("cpu", "cuda")  # devices on which torch updates all weights in one kernel


def fused(groups: Iterable[dict[str, Any]]) -> bool | None:
    """Return whether torch can update these groups in one kernel, several times as fast; None leaves the way to it."""
    parameters = [p for group in groups for p in group["params"]]
    plain = all(type(p.data) is Tensor and p.is_floating_point() and p.device.type in FUSED_ON for p in parameters)
    return True if plain else None


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
        orthogonal = settings.marks_hidden and hidden
        groups.setdefault((not in_head and backbone_rate != 1.0, not decays, orthogonal), []).append(p)
    found = []
    for (scaled, spared, orthogonal), members in sorted(groups.items(), key=lambda item: item[0]):
        group: dict[str, Any] = {"params": members, "lr": settings.learning_rate * (backbone_rate if scaled else 1.0)}
        if spared:
            group["weight_decay"] = 0.0
        if settings.marks_hidden:
            group["orthogonal"] = orthogonal
        found.append(group)
    return found
