"""Features of some images of a split, kept while a network goes through it."""

from typing import Any

import torch
from torch import Tensor


class KeptFeatures:
    """What the last layer of a network is given for some images of a split.

    Args:
        wanted: (N,) booleans, which images of the split.
    """

    def __init__(self, wanted: Tensor) -> None:
        self._wanted = wanted
        self._seen = 0  # images of this process
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, rank: int = 0, ranks: int = 1) -> None:
        """Keep those of a batch that are wanted.

        Args:
            features: (B, D) of the next images of this process.
            rank: Number of the process, which has the images rank, rank + ranks, and so on.
            ranks: Number of processes.
        """
        positions = rank + ranks * torch.arange(self._seen, self._seen + len(features))
        self._seen += len(features)
        chosen = self._wanted[positions.clamp(max=len(self._wanted) - 1)] & (positions < len(self._wanted))
        self._parts.append((positions[chosen], features[chosen.to(features.device)].float().cpu()))

    def gather(self, ranks: int = 1) -> tuple[Tensor, Tensor]:
        """Return positions (M,) and features (M, D) of all processes, in the order of the split."""
        parts = self._parts
        if ranks > 1:
            every: list[Any] = [None] * ranks
            torch.distributed.all_gather_object(every, parts)
            parts = [part for each in every for part in each]
        positions, features = (torch.cat(each) for each in zip(*parts, strict=True))
        order = positions.argsort()
        return positions[order], features[order]
