"""Which labels of a data set are likely to be wrong: what an audit finds, and the table in which it is corrected."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.task import Task
from visionforge.data.info import SPLITS, Split
from visionforge.evaluation.fold_table import FoldTable
from visionforge.evaluation.label_noise import LabelNoise, label_noise
from visionforge.evaluation.table_writers import Cell, Column


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely to be wrong.

    Attributes:
        position: Its row among the audited images.
        split: Its split.
        index: Its position in that.
        name: What it was called when it was imported, or nothing.
        label: The given label, or labels joined by ``|``.
        suggested: What it is likelier to be.
        quality: Of the label, from 0, certainly wrong, to 1.
        label_probability: Probability of the given label; of several, of the one that is likeliest wrong.
        suggested_probability: Probability of what is suggested in its place.
    """

    position: int
    split: Split
    index: int
    name: str
    label: str
    suggested: str
    quality: float
    label_probability: float
    suggested_probability: float


class LabelAudit:
    """The labels of images, judged by predictions of networks that have not learnt them.

    Where images have several labels, each label is judged by itself, as a question of yes or no.

    Args:
        table: The images and what is said of them.
        task: The kind of labels, of classes or labels.
        resamples: Bootstrap resamples of the intervals.
        seed: Of the resamples.
    """

    def __init__(self, table: FoldTable, task: Task, resamples: int = 500, seed: int = 0) -> None:
        self.table, self._task = table, task
        if not task.several:
            self.noise: list[LabelNoise] = [label_noise(table.labels, table.probabilities, resamples, seed=seed)]
            return
        self.noise = [
            label_noise(given, np.stack([1 - said, said], axis=1), resamples, seed=seed)
            for given, said in zip(table.labels.T, table.probabilities.T, strict=True)
        ]

    @property
    def unjudged(self) -> list[str]:
        """Classes, or labels, with too few images to say anything of them."""
        if self._task.several:
            pairs = zip(self.table.classes, self.noise, strict=True)
            return [name for name, noise in pairs if not noise.judged.all()]
        return [name for name, judged in zip(self.table.classes, self.noise[0].judged, strict=True) if not judged]

    @cached_property
    def suspects(self) -> list[Suspect]:
        """The images whose labels are likely to be wrong, the likeliest first."""
        table = self.table
        suspicious = np.stack([noise.suspicious for noise in self.noise], axis=1)
        quality = np.stack([noise.quality for noise in self.noise], axis=1)
        worst = np.where(suspicious, quality, np.inf)
        rows = np.flatnonzero(suspicious.any(axis=1))
        found = []
        for row in rows[np.argsort(worst[rows].min(axis=1), kind="stable")].tolist():
            if self._task.several:
                column = int(worst[row].argmin())
                suggested: Any = np.where(suspicious[row], 1 - table.labels[row], table.labels[row])
                there = float(table.probabilities[row, column])
                chance = (there, 1 - there) if table.labels[row, column] else (1 - there, there)
            else:
                suggested = self.noise[0].suggested[row]
                chance = (
                    float(table.probabilities[row, table.labels[row]]),
                    float(table.probabilities[row, suggested]),
                )
            found.append(
                Suspect(
                    position=row,
                    split=SPLITS[int(table.splits[row])],
                    index=int(table.indices[row]),
                    name="" if table.names is None else table.names[row],
                    label=self._task.label_text(table.labels[row], table.classes),
                    suggested=self._task.label_text(suggested, table.classes),
                    quality=float(worst[row].min()),
                    label_probability=chance[0],
                    suggested_probability=chance[1],
                )
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return counts, the share of wrong labels with its interval, and those of each class, as plain values."""
        table = self.table
        counts = {split: int((table.splits == SPLITS.index(split)).sum()) for split in table.present}
        content: dict[str, Any] = {
            "images": counts,
            "suspicious": len(self.suspects),
            "not_judged": self.unjudged,
        }
        if self._task.several:
            pairs = list(zip(table.classes, self.noise, strict=True))
            labels = [{"label": name, **_rates(noise), "joint": noise.joint.tolist()} for name, noise in pairs]
            return {**content, "labels": labels}
        noise = self.noise[0]
        classes = []
        for number, name in enumerate(table.classes):
            interval = noise.class_intervals[number]
            classes.append(
                {
                    "class": name,
                    "images": int((table.labels == number).sum()),
                    "suspicious": int((noise.suspicious & (table.labels == number)).sum()),
                    "noise": _plain(noise.class_rates[number]),
                    "interval": None if interval is None else list(interval),
                }
            )
        return {**content, **_rates(noise), "classes": classes, "joint": noise.joint.tolist()}


def _rates(noise: LabelNoise) -> dict[str, Any]:
    interval = noise.rate_interval
    return {"noise": _plain(noise.rate), "interval": None if interval is None else list(interval)}


def _plain(value: float | np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)


def suspect_columns(suspects: Sequence[Suspect]) -> list[tuple[Column, Sequence[Cell]]]:
    """Return the columns of `suspicious.csv` with their cells; `corrected` is empty, for people to fill in."""
    return [
        (Column("split"), [each.split for each in suspects]),
        (Column("index", "integer"), [each.index for each in suspects]),
        (Column("name"), [each.name for each in suspects]),
        (Column("label"), [each.label for each in suspects]),
        (Column("suggested"), [each.suggested for each in suspects]),
        (Column("quality", "number"), [each.quality for each in suspects]),
        (Column("corrected"), [""] * len(suspects)),
    ]


def positions_of(table: FoldTable, split: Split) -> npt.NDArray[np.int64]:
    """Return the rows of a table that are of a split."""
    return np.flatnonzero(table.splits == SPLITS.index(split))
