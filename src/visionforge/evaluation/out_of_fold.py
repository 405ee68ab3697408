"""What networks say of the images that they have not learnt: the predictions of all folds as one table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.data.info import Split, TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.evaluation.prediction_table import Filled, headings_of, prediction_columns, rows_of
from visionforge.evaluation.scores import Scorer
from visionforge.evaluation.table_writers import Column, open_table
from visionforge.inference.predictor import BatchPrediction, chosen_labels
from visionforge.training.calibration import negative_log_likelihood
from visionforge.training.predictions import Predictions

NAME = "out-of-fold"  # of such predictions, in place of a split
FILE = "out_of_fold.csv"


@dataclass(frozen=True)
class HeldOut:
    """What one network says of the fold that it was not trained on.

    Attributes:
        run: Name of its run.
        fold: Number of the fold.
        places: (N,) positions of the images in the pool of all folds.
        probabilities: (N, K) of the images alone, before calibration.
        views: (N, K) averaged over the test-time views; None without views.
        labels: (N,), or (N, K) 0/1.
    """

    run: str
    fold: int
    places: npt.NDArray[np.int64]
    probabilities: Tensor
    views: Tensor | None
    labels: Tensor


class OutOfFold:
    """The held-out predictions of all folds; where the images are divided several times, their means.

    Args:
        parts: Those of each fold; together they have every image of the pool, equally often.
        spec: The task.
    """

    def __init__(self, parts: Sequence[HeldOut], spec: TaskSpec) -> None:
        self.parts = parts
        self._spec = spec
        count = 1 + max(int(part.places.max()) for part in parts)
        self.times = np.zeros(count, dtype=np.int64)
        self.folds = np.full(count, -1, dtype=np.int64)
        for part in parts:
            self.times[part.places] += 1
            first = part.places[self.folds[part.places] < 0]
            self.folds[first] = part.fold
        assert self.times.min() == self.times.max() > 0, "every image is held out equally often"

    @property
    def predictions(self) -> Predictions:
        """Return them in the order of the pool, without temperature: each network would have its own."""
        alone = self._mean([part.probabilities for part in self.parts])
        views = None
        if all(part.views is not None for part in self.parts):
            views = self._mean([part.views for part in self.parts if part.views is not None])
        labels = torch.empty((len(self.times), *self.parts[0].labels.shape[1:]), dtype=self.parts[0].labels.dtype)
        for part in self.parts:
            labels[part.places] = part.labels
        loss = negative_log_likelihood(alone, labels)
        return Predictions(NAME, alone, views, labels, loss, folds=torch.from_numpy(self.folds))

    def _mean(self, given: Sequence[Tensor]) -> Tensor:
        found = torch.zeros((len(self.times), given[0].shape[1]), dtype=torch.float64)
        for part, values in zip(self.parts, given, strict=True):
            found[part.places] += values.double()
        return (found / int(self.times[0])).float()

    def by_fold(self) -> dict[str, Any]:
        """Return the metrics of each fold, their mean and sample standard deviation."""
        values: dict[str, list[float | None]] = {}
        for part in self.parts:
            given = part.probabilities if part.views is None else part.views
            scorer = Scorer(given.numpy(), part.labels.numpy(), self._spec.task, None, self._spec.positive_index)
            for name, found in scorer(np.ones((len(part.places), 1))).overall.items():
                values.setdefault(name, []).append(None if np.isnan(found[0]) else float(found[0]))
        return {name: {"values": each, **_spread(each)} for name, each in values.items()}

    def write(self, path: Path, origins: Sequence[tuple[Split, int]], side: SideTable) -> None:
        """Write a row per image: split and index in it, name and group if they are known, fold, and the predictions.

        Args:
            path: The CSV file.
            origins: Split of the archive, and position there, of each image of the pool.
            side: Names and groups of the images of the pool.
        """
        predictions = self.predictions
        given = predictions.probabilities if predictions.probabilities_tta is None else predictions.probabilities_tta
        views = predictions.probabilities_tta
        said = BatchPrediction(
            given.numpy(),
            chosen_labels(given, self._spec, None),
            raw=predictions.probabilities.numpy(),
            raw_tta=None if views is None else views.numpy(),
        )
        keys: list[Filled] = [
            (Column("split"), [split for split, _ in origins]),
            (Column("index", "integer"), [index for _, index in origins]),
        ]
        keys += [(Column(heading), texts) for heading, texts in side.known.items()]
        keys.append((Column("fold", "integer"), self.folds.tolist()))
        columns = prediction_columns(self._spec, said, keys, predictions.labels.numpy())
        with open_table(path, headings_of(columns)) as table:
            table.write(rows_of(columns))


def _spread(values: Sequence[float | None]) -> Mapping[str, float | None]:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return {"mean": None, "sd": None}
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known)}
