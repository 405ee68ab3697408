"""Several networks as one, whose probabilities are averaged (Lakshminarayanan et al., 2017, arXiv:1612.01474)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from visionforge.config.schema import Task
from visionforge.data.info import TaskSpec
from visionforge.data.resizing import Resizing
from visionforge.errors import WeightsError
from visionforge.models.volumes import channels_last
from visionforge.training.criterion import CumulativeLogits, cumulative_probabilities
from visionforge.training.member_inputs import MOST_MEMBERS as MOST_MEMBERS
from visionforge.training.member_inputs import MemberInput as MemberInput

Stored = TypeVar("Stored", bound=BaseModel)


def read_each(given: Any, kind: type[Stored], what: str) -> tuple[Stored | None, ...]:
    """Return what a checkpoint of a stranger says of each of its networks; nothing where it says nothing.

    Args:
        given: A list, with None for a network of which nothing is said.
        kind: What it is a list of.
        what: What it is called.

    Raises:
        WeightsError: If it cannot be used.
    """
    if not given:
        return ()
    if not isinstance(given, list | tuple) or len(given) > MOST_MEMBERS:
        raise WeightsError(f"the checkpoint's {what} are no list of at most {MOST_MEMBERS}")
    try:
        return tuple(None if each is None else kind.model_validate(each) for each in given)
    except ValidationError as error:
        raise WeightsError(
            f"what the checkpoint says of its {what} cannot be used ({error.errors()[0]['msg']})"
        ) from error


class Front(nn.Module):
    """Makes of normalised images what one network of an ensemble reads; nothing is stored of it.

    Args:
        shared: The task of the ensemble, whose constants the images are normalised by.
        own: That of the network.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, shared: TaskSpec, own: TaskSpec) -> None:
        super().__init__()
        centre, spread, mean, std = (
            torch.tensor(each, dtype=torch.float64).view(1, -1, *(1,) * own.spatial_dims)
            for each in (shared.mean, shared.std, own.mean, own.std)
        )
        self._normalises = (shared.mean, shared.std) != (own.mean, own.std)
        self.register_buffer("scale", (spread / std).float(), persistent=False)
        self.register_buffer("shift", ((centre - mean) / std).float(), persistent=False)
        self.resizing = Resizing.of(own)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, T, T) of those (N, C, S, S) that the ensemble is given; likewise volumes."""
        if self._normalises:
            images = images * self.scale + self.shift
        return images if self.resizing is None else self.resizing(images)


class Ensemble(nn.Module):
    """Gives logits of the mean of its members' probabilities.

    Args:
        members: The networks, each with what makes cumulative logits of its score, or None.
        task: What makes probabilities of logits, and logits of probabilities.
        fronts: Of each network, what comes between the images and it; none where all read them as they are.
    """

    def __init__(
        self,
        members: Sequence[tuple[nn.Module, CumulativeLogits | None]],
        task: Task,
        fronts: Sequence[Front] = (),
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(network for network, _ in members)
        self.cumulatives = nn.ModuleDict({str(k): each for k, (_, each) in enumerate(members) if each is not None})
        self.fronts = nn.ModuleList(fronts)
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
        return torch.stack([self._member(k, network(self._seen(k, images))) for k, network in enumerate(self.members)])

    def _seen(self, k: int, images: Tensor) -> Tensor:
        return channels_last(self.fronts[k](images).to(images.dtype)) if len(self.fronts) else images

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
