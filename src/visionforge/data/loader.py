"""A DataLoader that can continue in the middle of an epoch, and seeds for those who add randomness in Python."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from visionforge.config.seeding import derive_seed
from visionforge.data.batches import ArrayDataset, Batch, EpochSampler, Failure, FixedOrder
from visionforge.data.records import Ahead
from visionforge.errors import DataError


class ResumableLoader(DataLoader[Batch]):
    """Counts the batches of an epoch; a Trainer stores the count in its checkpoints and gives it back.

    Together with a sampler that is a function of (seed, epoch), the rest of an interrupted epoch is the same as if it
    had not been interrupted.
    """

    # A Trainer fetches batches in advance and knows better than the loader; None while it is not training with it
    consumed: Callable[[], int | None] | None = None
    _handed_out = 0
    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator around torch's iterator
        """Yield the batches of the current epoch, after a resume only those that are left."""
        skip, self._skip = self._skip, 0
        if not skip and self.consumed is not None:  # a loader made before a checkpoint was read is told nothing else
            skip = self.consumed() or 0
        self._handed_out = skip
        for batch in self._batches(skip):
            if isinstance(batch, Failure):  # of a loader process
                raise DataError(batch.problems)
            self._handed_out += 1
            yield batch
        self._handed_out = 0

    def _batches(self, skip: int) -> Iterator[Batch]:
        sampler, dataset, size = self.sampler, self.dataset, self.batch_size
        if not isinstance(sampler, EpochSampler | FixedOrder):
            return super().__iter__()
        if isinstance(dataset, ArrayDataset) and dataset.device.type != "cpu" and size is not None:
            return self._on_device(dataset, sampler.positions().to(dataset.device), size, skip)
        sampler.start = skip * (size or 1)
        if not isinstance(dataset, ArrayDataset) or dataset.in_memory:
            return super().__iter__()
        processes = sampler.num_replicas if isinstance(sampler, EpochSampler) else 1
        ahead = dataset.look_ahead(sampler.positions(), processes)
        batches = super().__iter__()  # loader processes are forked here, before there are threads
        return batches if ahead is None else self._got_ahead(batches, ahead, skip)

    def _got_ahead(self, batches: Iterator[Batch], ahead: Ahead, skip: int) -> Iterator[Batch]:
        """Yield batches whose files are got while others are trained on."""
        size = self.batch_size or 1
        try:
            ahead.advance(skip * size)
            for step, batch in enumerate(batches, skip + 1):
                ahead.advance(step * size)
                yield batch
        finally:
            ahead.close()

    def _on_device(self, dataset: ArrayDataset, positions: Tensor, size: int, skip: int) -> Iterator[Batch]:
        """Yield batches of images on a device, which is told the order of the whole epoch at once."""
        for step in range(skip, len(self)):
            yield dataset.at(positions[step * size : (step + 1) * size])

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches of this epoch that were trained on."""
        consumed = None if self.consumed is None else self.consumed()
        return {"batches": self._handed_out if consumed is None else consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out so many batches of the next pass."""
        self._skip = int(state["batches"])


def seed_worker(base: int, worker: int) -> None:
    """Seed Python, NumPy and torch in a loader process, from the seed of the data and the number of the process."""
    seed = derive_seed(base, "worker", worker)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
