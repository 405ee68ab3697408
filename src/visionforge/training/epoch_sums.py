"""Mean loss and hits of a training epoch, summed on the device: logging every step would cost a small one its time."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class EpochSums:
    """Sums over the images of an epoch; a checkpoint keeps those of an unfinished one."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # of loss, hits and images
        self._counted = False  # whether they have the batch of this step

    def add(self, loss: Tensor, hits: Tensor, images: int, batch_idx: int) -> None:
        """Add a batch.

        Args:
            loss: Mean loss, a scalar.
            hits: Share of the targets that was predicted, a scalar; NaN if nobody knows.
            images: Number of images.
            batch_idx: Its position in the epoch; the first begins anew.
        """
        if self._sums is None or batch_idx == 0:  # Lightning starts no epoch that it resumes between two
            self._sums = torch.zeros(3, dtype=torch.float32)  # whatever precision the Trainer makes the default
        self._sums = self._sums.to(loss.device)
        self._sums += torch.stack([loss.float(), hits.float(), torch.ones_like(hits).float()]) * images
        self._counted = True

    def end_step(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the loss that a subclass's own `training_step` returned, whose accuracy nobody knows."""
        counted, self._counted = self._counted, False
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if counted or not isinstance(loss, Tensor):
            return
        first = batch[0] if isinstance(batch, list | tuple) and batch else None
        images = len(first) if isinstance(first, Tensor) and first.ndim else 1
        self.add(loss.detach(), torch.full_like(loss.detach(), torch.nan), images, batch_idx)
        self._counted = False

    def means(self) -> tuple[Tensor, Tensor | None] | None:
        """Return mean loss and share of hits, the latter None if it is not known; None if nothing was counted."""
        if self._sums is None:  # a subclass that optimises by itself may return no loss
            return None
        loss, hits, images = self._sums.unbind()
        return loss / images, None if bool(hits.isnan()) else hits / images

    def stored(self, over_group: Callable[[Tensor], Tensor]) -> list[float] | None:
        """Return what a checkpoint keeps: the sums of all processes.

        Args:
            over_group: Adds a tensor up over the processes that train together.
        """
        return None if self._sums is None else [float(value) for value in over_group(self._sums)]

    def restore(self, stored: list[float] | None, processes: int) -> None:
        """Take the part of each of so many processes of what a checkpoint has kept."""
        self._sums = None if stored is None else torch.tensor(stored) / processes
