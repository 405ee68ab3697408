"""What a network said of a split, batch by batch, until the split is over."""

import torch
from torch import Tensor

from visionforge.training.gather import gather_rows


class SplitOutputs:
    """Logits (N, K), labels, and mean probabilities over the views or None, of the batches of this process."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, logits: Tensor, labels: Tensor, averaged: Tensor | None) -> None:
        """Keep a batch."""
        self._batches.append((logits, labels, averaged))

    def gather(self, ranks: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return those of all processes in the order of the split, and forget them.

        Args:
            ranks: Number of processes.
        """
        logits, labels, averaged = zip(*self._batches, strict=True)
        self._batches.clear()
        views = None if averaged[0] is None else gather_rows(torch.cat(averaged), ranks)
        return gather_rows(torch.cat(logits), ranks), gather_rows(torch.cat(labels), ranks), views
