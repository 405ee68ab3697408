"""Whole batches of uint8 images by index, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from visionforge.config.seeding import derive_seed
from visionforge.data.archive import SplitArrays

Batch = tuple[Tensor, Tensor]


class ArrayDataset(Dataset[Batch]):
    """Images and labels in memory; a list of indices gives one ready batch, with no Python work per image.

    Args:
        arrays: The split, in archive order.
        indices: Keep only these positions; None keeps all.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, or (N, L) uint8 for multi-label data.
    """

    def __init__(self, arrays: SplitArrays, indices: Sequence[int] | None = None) -> None:
        images = torch.from_numpy(arrays.images)
        labels = torch.from_numpy(arrays.labels)
        if indices is not None:
            chosen = torch.as_tensor(indices)
            images, labels = images[chosen], labels[chosen]
        self.images = (images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)).contiguous()
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        """Return one image (C, H, W) uint8 and its label."""
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the batch of the given positions: (B, C, H, W) uint8 and labels (B,) or (B, L)."""
        chosen = torch.tensor(indices)
        return self.images.index_select(0, chosen), self.labels.index_select(0, chosen)


def as_is(batch: Any) -> Any:
    """Collate function of a loader whose data set already returns whole batches."""
    return batch


class EpochSampler(DistributedSampler[int]):
    """Positions for one rank, drawn anew in every epoch from (seed, epoch).

    All ranks draw the same global order and take every `num_replicas`-th position of it, so the union of the ranks is
    the whole epoch. It is a `DistributedSampler` so that the Trainer keeps it and calls `set_epoch`.

    Args:
        size: Number of items.
        seed: Seed of the run.
        shuffle: Draw a new order per epoch; False keeps the order of the data.
        weights: (N,) draw with replacement, proportionally to these; None draws every item once.
        drop_uneven: Leave out the few last positions that would give some ranks one item more than others.
        rank: Number of this process.
        num_replicas: Number of processes.
    """

    def __init__(  # the base class asks for a data set and for initialised processes, neither of which is needed
        self,
        size: int,
        seed: int,
        shuffle: bool = True,
        weights: Tensor | None = None,
        drop_uneven: bool = False,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.weights = None if weights is None else weights.double()
        self.rank = rank
        self.num_replicas = num_replicas
        self.total = size - size % num_replicas if drop_uneven else size
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of positions of this rank."""
        return len(range(self.rank, self.total, self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this rank in the current epoch."""
        return iter(self._order()[self.rank : self.total : self.num_replicas].tolist())

    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "sampler", self.epoch))
        if self.weights is not None:
            return torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        return torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)


def balancing_weights(labels: Tensor) -> Tensor:
    """Return (N,) sampling weights under which every class is drawn equally often.

    A class's images weigh 1 / class count. A multi-label image weighs the mean of 1 / label count over its labels;
    the images without any label are treated as one more label.

    Args:
        labels: (N,) int64 classes, or (N, L) labels of 0 and 1.
    """
    if labels.ndim == 1:
        return (1.0 / torch.bincount(labels).double())[labels]
    present = torch.cat([labels.bool(), ~labels.bool().any(dim=1, keepdim=True)], dim=1).double()
    per_label = 1.0 / present.sum(dim=0).clamp(min=1.0)
    return (present * per_label).sum(dim=1) / present.sum(dim=1)
