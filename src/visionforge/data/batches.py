"""Whole batches of uint8 images by index, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler, get_worker_info

from visionforge.config.seeding import derive_seed
from visionforge.data.archive import SplitArrays, channels_of
from visionforge.data.records import Ahead, Records, is_mapped, records_of
from visionforge.errors import DataError, VisionForgeError

Batch = tuple[Tensor, Tensor]
_NUMBERS_AT_ONCE = 1 << 16  # positions that are Python's numbers together
MOST_CATEGORIES = 1 << 24  # of torch.multinomial
_LABELS_AT_ONCE = 512  # of a map: masks of 256 pixels are then 32 MB
Draw = Callable[[np.random.Generator, int], npt.NDArray[np.integer] | None]


@dataclass(frozen=True)
class Failure:
    """What a loader process returns in the place of a batch, whose error would lose its words on the way.

    Attributes:
        problems: A line for each.
    """

    problems: tuple[str, ...]


class ArrayDataset(Dataset[Batch]):
    """Images and labels of a split; a list of indices gives one ready batch, with no Python work per image.

    Args:
        arrays: The split, in archive order; the images may be a memory map.
        indices: Keep only these positions; None keeps all.
        in_memory: Read the images into memory now; False reads each batch from the map.
    """

    def __init__(self, arrays: SplitArrays, indices: Sequence[int] | None = None, in_memory: bool = True) -> None:
        self._positions = None if indices is None else np.asarray(indices, dtype=np.int64)
        self._count = len(arrays.images) if self._positions is None else len(self._positions)
        self._labels: Tensor | None = None
        self._label_slices: Records | None = None
        if in_memory or not is_mapped(arrays.labels):
            labels = arrays.labels if self._positions is None else arrays.labels[self._positions]
            self._labels = torch.from_numpy(np.array(labels))
        else:
            self._label_slices = records_of(arrays.labels)
        self._tensor: Tensor | None = None
        self._slices: Records | npt.NDArray[np.uint8] | None = None
        if in_memory:
            images = arrays.images if self._positions is None else arrays.images[self._positions]
            self._tensor = _channels_first(images)
        else:
            self._slices = records_of(arrays.images) if is_mapped(arrays.images) else arrays.images

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count

    def __getitem__(self, index: int) -> Batch:
        """Return one image (C, H, W) uint8, or volume (C, D, H, W), and its label."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the batch of the given positions: (B, C[, D], H, W) uint8 and labels (B,), (B, L), masks or boxes.

        In a loader process a `Failure` stands for it where its files cannot be read.
        """
        try:
            return self.at(torch.tensor(indices))
        except (VisionForgeError, OSError) as error:
            if get_worker_info() is None:
                raise
            lines = error.problems if isinstance(error, VisionForgeError) else (str(error),)
            return Failure(lines)  # type: ignore[return-value]

    def at(self, positions: Tensor) -> Batch:
        """Return the batch of the given positions (B,) int64; on a GPU, if they are, without waiting for it."""
        if self._tensor is not None:
            positions = positions.to(self._tensor.device)
            return self._tensor.index_select(0, positions), self._labels_at(positions)
        return self._slice(positions), self._labels_at(positions)

    def _labels_at(self, chosen: Tensor) -> Tensor:
        if self._labels is not None:
            return self._labels.index_select(0, chosen)
        assert self._label_slices is not None
        return torch.from_numpy(self._label_slices[self._places(chosen)])

    @property
    def labels(self) -> Tensor:
        """All labels as their task keeps them: (N,) int64, (N, L) uint8, masks or boxes; a map is read completely."""
        return self._labels if self._labels is not None else self._labels_at(torch.arange(len(self)))

    def label_parts(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all labels in their order: at once, or, where they lie in a map, some hundreds at a time."""
        if self._labels is not None:
            yield self._labels.cpu().numpy()
            return
        for start in range(0, len(self), _LABELS_AT_ONCE):
            yield self._labels_at(torch.arange(start, min(len(self), start + _LABELS_AT_ONCE))).numpy()

    @property
    def device(self) -> torch.device:
        """Where images and labels lie, and batches are gathered."""
        return torch.device("cpu") if self._tensor is None else self._tensor.device

    @property
    def in_memory(self) -> bool:
        """Whether images are read already; else each batch is read from a map."""
        return self._tensor is not None

    @property
    def positions(self) -> npt.NDArray[np.int64] | None:
        """Positions in the split that were kept, (N,) in the order of the images; None if all were."""
        return self._positions

    @property
    def images(self) -> Tensor:
        """All images, (N, C[, D], H, W) uint8; a memory map is read completely."""
        return self._tensor if self._tensor is not None else self._slice(torch.arange(len(self)))

    def to(self, device: torch.device) -> "ArrayDataset":
        """Move images and labels to a device, where batches are then gathered."""
        self._tensor, self._labels = self.images.to(device), self.labels.to(device)
        self._slices = self._label_slices = None
        return self

    def look_ahead(self, order: Tensor, processes: int = 1) -> Ahead | None:
        """Return what gets or reads the files of an epoch ahead of its batches; None if nothing does.

        Args:
            order: (N,) int64 positions of the epoch's images, of this process.
            processes: How many take turns in the whole order.
        """
        records = self._slices
        return records.look_ahead(self._places(order), processes) if isinstance(records, Records) else None

    def _slice(self, chosen: Tensor) -> Tensor:
        assert self._slices is not None
        return _channels_first(self._slices[self._places(chosen)])

    def _places(self, chosen: Tensor) -> npt.NDArray[np.int64]:
        """Return positions in the split."""
        return chosen.numpy() if self._positions is None else self._positions[chosen.numpy()]


def _channels_first(images: npt.NDArray[np.uint8]) -> Tensor:
    """Return (N[, D], H, W[, 3]) images as a contiguous tensor (N, C[, D], H, W)."""
    tensor = torch.from_numpy(np.array(images) if is_mapped(images) else images)
    return (tensor.movedim(-1, 1) if channels_of(images.shape) == 3 else tensor.unsqueeze(1)).contiguous()


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
        draw: From a generator and a number of draws to the positions of an epoch; None, or where it gives None, leaves
            them to the weights.
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
        draw: Draw | None = None,
        drop_uneven: bool = False,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.weights = None if weights is None else weights.double()
        self.draw = draw
        self.rank = rank
        self.num_replicas = num_replicas
        self.total = size - size % num_replicas if drop_uneven else size
        self.epoch = 0
        self.start = 0  # positions that the next pass leaves out, because they were trained on before a resume

    def __len__(self) -> int:
        """Return the number of positions of this rank."""
        return len(range(self.rank, self.total, self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this rank in the current epoch."""
        start, self.start = self.start, 0
        parts = torch.split(self.positions()[start:], _NUMBERS_AT_ONCE)  # a list takes five times the memory
        return (position for part in parts for position in part.tolist())

    def positions(self) -> Tensor:
        """Return (M,) int64, all positions of this rank in the current epoch."""
        return self._order()[self.rank : self.total : self.num_replicas]

    def _order(self) -> Tensor:
        seed = derive_seed(self.seed, "sampler", self.epoch)
        drawn = None if self.draw is None else self.draw(np.random.default_rng(seed), self.size)
        if drawn is not None:
            return _positions(drawn, self.size)
        generator = torch.Generator().manual_seed(seed)
        if self.weights is not None:
            return drawn_by_weight(self.weights, self.size, generator)
        return torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)


def drawn_by_weight(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return (draws,) int64 positions drawn with replacement, proportionally to weights.

    Args:
        weights: (N,) float64.
        draws: Number of positions.
        generator: All randomness.
    """
    if len(weights) <= MOST_CATEGORIES:
        return torch.multinomial(weights, draws, replacement=True, generator=generator)
    bounds = weights.cumsum(0)
    at = torch.rand(draws, dtype=torch.float64, generator=generator) * bounds[-1]
    return torch.searchsorted(bounds, at, right=True).clamp(max=len(weights) - 1)


def _positions(drawn: npt.NDArray[np.integer], size: int) -> Tensor:
    """Return positions that a sampler has drawn, (size,) int64.

    Raises:
        DataError: If they are not as many, no integers, or beyond the images.
    """
    found = np.asarray(drawn)
    if found.shape != (size,) or not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"data.sampler: {found.shape} of {found.dtype} drawn; allowed: ({size},) of integers")
    if found.min() < 0 or found.max() >= size:
        raise DataError(f"data.sampler: positions from {found.min()} to {found.max()} drawn; allowed: 0 to {size - 1}")
    return torch.from_numpy(found.astype(np.int64))


class FixedOrder(SequentialSampler):
    """The positions in their order, the same in every epoch; for a Trainer that is to overfit the first batches.

    It is a `SequentialSampler`, which such a Trainer leaves alone.

    Args:
        size: Number of items.
    """

    def __init__(self, size: int) -> None:
        super().__init__(range(size))
        self.start = 0  # see EpochSampler

    def __iter__(self) -> Iterator[int]:
        """Yield the positions."""
        start, self.start = self.start, 0
        return iter(range(start, len(self)))

    def positions(self) -> Tensor:
        """Return (M,) int64, all positions."""
        return torch.arange(len(self))

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: every epoch is the same."""


def balancing_weights(labels: Tensor) -> Tensor:
    """Return (N,) sampling weights under which every class is drawn equally often.

    A class's images weigh 1 / class count. An image with several labels weighs the mean of 1 / label count over them;
    the images without any label are treated as one more label.

    Args:
        labels: (N,) int64 classes, or (N, L) labels of 0 and 1.
    """
    if labels.ndim == 1:
        return (1.0 / torch.bincount(labels).double())[labels]
    present = torch.cat([labels.bool(), ~labels.bool().any(dim=1, keepdim=True)], dim=1).double()
    per_label = 1.0 / present.sum(dim=0).clamp(min=1.0)
    return (present * per_label).sum(dim=1) / present.sum(dim=1)
