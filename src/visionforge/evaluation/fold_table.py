"""What networks say of images that they have not learnt: as arrays, and read from `out_of_fold.csv`."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.task import Task
from visionforge.data.info import MAX_SPLIT, SPLITS, Split
from visionforge.data.listing import some
from visionforge.errors import RunError
from visionforge.evaluation.class_names import RAW, RAW_TTA, SHOWN
from visionforge.evaluation.table_writers import cell_text
from visionforge.reading import read_rows
from visionforge.runs.workspace import MAX_PREDICTIONS_BYTES

MOST_VALUES = 100_000_000  # probabilities that are read of it: ten million images of ten classes
MOST_TEXT = 500_000_000  # bytes of its names and different labels
SUM_TOLERANCE = 1e-3  # of the probabilities of an image, which are written with nine digits
_KINDS = (SHOWN, RAW_TTA, RAW)  # the first that is there is taken: what the networks state comes first
_PREFIXES = tuple(f"{kind}_" for kind in _KINDS)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FoldTable:
    """Images and what networks say of them that were not trained on them.

    Attributes:
        classes: Names of the K classes, as tables have them.
        splits: (N,) number of the split in `SPLITS`.
        indices: (N,) position in the split.
        labels: (N,) given classes, or (N, K) given labels 0/1.
        probabilities: (N, K).
        names: What each image was called when it was imported; None if that is unknown.
    """

    classes: tuple[str, ...]
    splits: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    names: tuple[str, ...] | None = None

    @property
    def present(self) -> tuple[Split, ...]:
        """The splits of which there are images."""
        return tuple(split for number, split in enumerate(SPLITS) if (self.splits == number).any())

    def of(self, wanted: Sequence[Split]) -> "FoldTable":
        """Return the images of some splits."""
        kept = np.flatnonzero(np.isin(self.splits, [SPLITS.index(split) for split in wanted]))
        return FoldTable(
            self.classes,
            self.splits[kept],
            self.indices[kept],
            self.labels[kept],
            self.probabilities[kept],
            None if self.names is None else tuple(self.names[k] for k in kept.tolist()),
        )


def read_fold_table(path: Path, task: Task, classes: Sequence[str]) -> FoldTable:
    """Read `out_of_fold.csv`, which may come from a stranger.

    Args:
        path: The table: `split`, `index`, `truth`, `probability_CLASS` … and perhaps `name`; others are not read.
        task: The kind of labels.
        classes: Names of the classes, as tables have them.

    Raises:
        RunError: If it is no such table: too large, a column missing, an image there twice, a label or a split that is
            unknown, or a probability that is none.
    """
    try:
        return _Reader(path, task, tuple(classes)).read()
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: cannot be read as a table of out-of-fold predictions ({reason})") from error


class _Reader:
    """Reads one table."""

    def __init__(self, path: Path, task: Task, classes: tuple[str, ...]) -> None:
        self._path, self._task, self._classes = path, task, classes
        self._text = 0

    def read(self) -> FoldTable:
        """Return what it holds.

        Raises:
            ValueError: If it is no such table.
        """
        rows = read_rows(self._path, MAX_PREDICTIONS_BYTES)
        columns = next(rows, [])
        places = self._places(columns)
        at = {name: columns.index(name) for name in ("split", "index", "truth", "label", "name") if name in columns}
        truth = at.get("truth", at.get("label", -1))
        numbers, splits, indices = array("d"), array("b"), array("q")
        labels, names, same = list[str](), list[str](), dict[str, str]()
        for row in self._like(rows, columns):
            if row[at["split"]] not in SPLITS:
                raise ValueError(f"the split {row[at['split']][:40]!r} is unknown; allowed: {', '.join(SPLITS)}")
            splits.append(SPLITS.index(row[at["split"]]))
            indices.append(_whole(row[at["index"]]))
            numbers.extend([float(row[place]) for place in places])
            if len(numbers) > MOST_VALUES:
                raise ValueError(f"it has more than {MOST_VALUES:,} probabilities")
            label = row[truth]
            if label not in same:
                self._count(label)
            labels.append(same.setdefault(label, label))
            if "name" in at:
                self._count(row[at["name"]])
                names.append(cell_text(row[at["name"]]))
        if not splits:
            raise ValueError("it has no rows")
        found = FoldTable(
            self._classes,
            np.frombuffer(splits, np.int8).astype(np.int64),
            np.frombuffer(indices, np.int64),
            self._labels([cell_text(label) for label in labels]),
            np.frombuffer(numbers, np.float64).reshape(-1, len(places)),
            tuple(names) if "name" in at else None,
        )
        self._check(found)
        return found

    def _count(self, text: str) -> None:
        self._text += 50 + len(text)  # what Python keeps of a text beside its letters
        if self._text > MOST_TEXT:
            raise ValueError(f"it has more than {MOST_TEXT:,} bytes of names and labels")

    def _places(self, columns: list[str]) -> list[int]:
        """Return where the probabilities of the classes are, in their order."""
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"the column {some(twice)} is there more than once")
        missing = [name for name in ("split", "index") if name not in columns]
        missing += [] if {"truth", "label"} & set(columns) else ["truth"]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        kind = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in columns)), None)
        if kind is None:
            raise ValueError(f"it has no column {SHOWN}_CLASS")
        there = [cell_text(name).removeprefix(kind) for name in columns if name.startswith(kind)]
        if set(there) != set(self._classes):
            raise ValueError(
                f"its probabilities are of {some(there)}, the classes of the data set are {some(self._classes)}"
            )
        return [columns.index(f"{kind}{name}") for name in self._classes]

    def _like(self, rows: Iterator[list[str]], columns: list[str]) -> Iterator[list[str]]:
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"a row has {len(row):,} cells, the heading {len(columns):,}")
            yield row

    def _labels(self, texts: list[str]) -> npt.NDArray[np.int64]:
        """Return labels that are given by name; or, where none of them is one, by number."""
        known = set(self._classes)
        parts = {text: text.split("|") if self._task.several and text else [text] for text in set(texts)}
        if self._task.several:
            parts[""] = []
        unknown = sorted({part for of in parts.values() for part in of if part not in known})
        if not unknown:
            return np.asarray(self._task.labels_of(texts, self._classes), np.int64)
        if not self._task.several and all(text.isdecimal() and int(text) < len(known) for text in parts):
            return np.array([int(text) for text in texts], np.int64)
        raise ValueError(f"the label {some(text[:40] for text in unknown)} is unknown; allowed: {some(self._classes)}")

    def _check(self, found: FoldTable) -> None:
        values = found.probabilities
        for wrong, what in (
            (~np.isfinite(values).all(axis=1), "probabilities that are no numbers"),
            (((values < 0) | (values > 1)).any(axis=1), "probabilities outside of 0 to 1"),
            (
                np.zeros(len(values), bool) if self._task.several else np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE,
                "probabilities that do not add up to 1",
            ),
        ):
            if wrong.any():
                first = int(np.argmax(wrong))
                where = f"{SPLITS[int(found.splits[first])]} {int(found.indices[first]):,}"
                raise ValueError(f"{int(wrong.sum()):,} rows have {what}, the first: {where}")
        keys, counts = np.unique(found.splits * MAX_SPLIT + found.indices, return_counts=True)
        if (counts > 1).any():
            split, index = divmod(int(keys[np.argmax(counts > 1)]), MAX_SPLIT)
            raise ValueError(
                f"{int((counts > 1).sum()):,} images are there more than once, the first: {SPLITS[split]} {index:,}"
            )


def _whole(cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) < 12 and int(cell) < MAX_SPLIT):
        raise ValueError(f"the index {cell[:40]!r} is no position in a split")
    return int(cell)
