"""Several networks as one, whose probabilities are averaged (Lakshminarayanan et al., 2017, arXiv:1612.01474)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from visionforge.config.schema import Task
from visionforge.training.criterion import CumulativeLogits, cumulative_probabilities

MOST_MEMBERS = 100


class Ensemble(nn.Module):
    """Gives logits of the mean of its members' probabilities.

    Args:
        members: The networks, each with what makes cumulative logits of its score, or None.
        task: What makes probabilities of logits, and logits of probabilities.
    """

    def __init__(self, members: Sequence[tuple[nn.Module, CumulativeLogits | None]], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(network for network, _ in members)
        self.cumulatives = nn.ModuleDict({str(k): each for k, (_, each) in enumerate(members) if each is not None})
        self._task = task
        self._kept: list[Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self.members)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K, …) logits of normalised images."""
        each = self.probabilities(images)
        if self._kept is not None:
            self._kept.append(each)
        return self._task.logits(each.mean(dim=0))

    def probabilities(self, images: Tensor) -> Tensor:
        """Return (M, N, K, …) probabilities of each member."""
        return torch.stack([self._member(k, network(images)) for k, network in enumerate(self.members)])

    def _member(self, k: int, outputs: Tensor) -> Tensor:
        if str(k) in self.cumulatives:
            return cumulative_probabilities(self.cumulatives[str(k)](outputs))
        return self._task.probabilities(outputs)

    @contextmanager
    def keeping(self) -> Iterator[list[Tensor]]:
        """Give the members' probabilities (M, N, K, …) of each call within."""
        self._kept = []
        try:
            yield self._kept
        finally:
            self._kept = None


def disagreement(each: Tensor, several: bool = False) -> Tensor:
    """Return (N,) by how much members differ: the mutual information of prediction and member, in nats.

    The entropy of the mean less the mean entropy, 0 where all say the same, at most ln M (Houlsby et al., 2011,
    arXiv:1112.5745); of labels that do not exclude each other the mean over them.

    Args:
        each: (M, N, K) probabilities of the members.
        several: They are of labels that do not exclude each other.

    >>> import torch
    >>> disagreement(torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])).round(decimals=3).tolist()
    [0.693, 0.0]
    """
    return (_entropy(each.mean(dim=0), several) - _entropy(each, several).mean(dim=0)).clamp(min=0)


def _entropy(given: Tensor, several: bool) -> Tensor:
    """Return (…,) the entropies of probabilities (…, K), in operations that ONNX has."""
    own = _plogp(given)
    return (own + _plogp(1 - given)).mean(dim=-1) if several else own.sum(dim=-1)


def _plogp(given: Tensor) -> Tensor:
    return -given * given.clamp(min=torch.finfo(given.dtype).tiny).log()
