"""Nearest neighbours by cosine, of standardised features."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionforge.config.schema.probing import ProbeSettings
from visionforge.models.feature_heads import NeighbourHead, unit
from visionforge.training.probes.features import Array, Labelled, Scale, single

log = logging.getLogger(__name__)

MOST_IMAGES = 100_000  # of a bank, which a checkpoint holds; more are thinned out evenly


def neighbour_candidates(settings: ProbeSettings) -> list[dict[str, Any]]:
    """Return the values to try, from the most neighbours on: their votes are the smoothest."""
    return [{"neighbours": count} for count in sorted(settings.neighbours, reverse=True)]


def fit_neighbours(data: Labelled, candidates: Sequence[Mapping[str, Any]]) -> Iterator[nn.Module]:
    """Yield a head for each candidate; all of them share one bank."""
    kept = np.arange(len(data.values))
    if len(kept) > MOST_IMAGES:
        log.info("probe: of %s images, %s are kept as neighbours, evenly drawn", f"{len(kept):,}", f"{MOST_IMAGES:,}")
        kept = np.linspace(0, len(kept) - 1, MOST_IMAGES).round().astype(np.int64)
    scale = Scale.of(data.values)
    mean, factor = single(scale.mean), single(scale.factor)
    bank = unit(torch.from_numpy(scale(data.values[kept]))).float()
    votes, against = _votes(data.labels[kept], data)
    for values in candidates:
        yield NeighbourHead(mean, factor, bank, votes, against, min(int(values["neighbours"]), len(bank)))


def _votes(labels: Array, data: Labelled) -> tuple[Tensor, Tensor | None]:
    """Return (M, K) what images say for each class, and of labels what they say against them."""
    if data.several:
        yes = labels.astype(np.float64)
        no = 1 - yes
        if data.balanced:  # as N / (2·n) of each side, of which the factor N/2 is the same for both
            yes, no = (side / np.maximum(side.sum(axis=0), 1) * len(labels) / 2 for side in (yes, no))
        return single(yes), single(no)
    votes = np.eye(data.classes)[labels]
    if data.balanced:
        votes = votes / np.maximum(votes.sum(axis=0), 1) * len(labels) / data.classes
    return single(votes), None
