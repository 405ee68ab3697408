"""Random numbers for tests that draw an augmentation themselves."""

import torch

from visionforge.data.draws import Draws


def draws(count: int, seed: int = 0) -> Draws:
    """Return those of the first `count` images of a stream."""
    return Draws.at(seed, torch.arange(count))
