"""How columns such as age, sex and site divide the images of a split: by their values alone, never by results."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.info import DatasetInfo
from visionforge.data.kept_columns import MISSING
from visionforge.data.listing import some
from visionforge.data.side_table import SideTable
from visionforge.errors import SettingsError

MOST_SUBGROUPS = 12  # different values that are told apart as they are
QUARTILES = (0.25, 0.5, 0.75)
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?")


@dataclass(frozen=True)
class Division:
    """How a column divides the images.

    Attributes:
        column: Its heading.
        names: Of the subgroups, in the order of their values.
        codes: (N,) the subgroup of each image; -1 where the value is missing.
        cut: The subgroups are quartiles of numbers.
    """

    column: str
    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    cut: bool

    @property
    def missing(self) -> int:
        """Return the number of images without a value."""
        return int((self.codes < 0).sum())


def divide(column: str, texts: Sequence[str]) -> Division | str:
    """Return how a column divides the images, or why it does not.

    Numbers of more than 12 different values are cut at the quartiles of the images, where each bin has its upper end;
    equal quartiles are one.

    Args:
        column: Its heading.
        texts: (N,) its values.

    >>> divide("sex", ["f", "m", "missing"]).codes.tolist()
    [0, 1, -1]
    >>> divide("age", [str(age) for age in range(20, 60)]).names
    ('≤ 29', '> 29 to 39', '> 39 to 49', '> 49')
    """
    present = [text for text in dict.fromkeys(texts) if text != MISSING]
    numbers = [float(text) if _NUMBER.fullmatch(text) else math.nan for text in present]
    numeric = all(map(math.isfinite, numbers))
    if len(present) < 2:
        return f"has only the value {present[0]}" if present else "has no value"
    if len(present) > MOST_SUBGROUPS and numeric:
        return _quartiles(column, texts)
    if len(present) > MOST_SUBGROUPS:
        return f"has {len(present):,} different values; {MOST_SUBGROUPS} texts are told apart, or any numbers"
    order = sorted(present, key=dict(zip(present, numbers, strict=True)).__getitem__) if numeric else sorted(present)
    place = {name: code for code, name in enumerate(order)}
    return Division(column, tuple(order), np.array([place.get(text, -1) for text in texts], np.int64), False)


def _quartiles(column: str, texts: Sequence[str]) -> Division | str:
    values = np.array([math.nan if text == MISSING else float(text) for text in texts])
    known = ~np.isnan(values)
    edges = np.unique(np.quantile(values[known], QUARTILES, method="inverted_cdf"))
    edges = edges[edges < values[known].max()]
    if not len(edges):
        return "has one value in at least three of four images"
    codes = np.where(known, np.searchsorted(edges, values, side="left"), -1)
    ends = [f"{edge:.12g}" for edge in edges]
    between = [f"> {low} to {high}" for low, high in pairwise(ends)]
    return Division(column, (f"≤ {ends[0]}", *between, f"> {ends[-1]}"), codes.astype(np.int64), True)


def divisions(side: SideTable, asked: Sequence[str] | None, count: int) -> tuple[list[Division], dict[str, str]]:
    """Return how the columns of a split divide its images, and which do not, and why.

    Args:
        side: What is known of its images.
        asked: Headings; None is all kept columns.
        count: Number of images that were evaluated: the first of the split.
    """
    known = choosable(side)
    found: list[Division] = []
    left_out: dict[str, str] = {}
    for column in side.columns if asked is None else dict.fromkeys(asked):
        texts = known.get(column)
        divided = "is not kept with the data" if texts is None else divide(column, texts[:count])
        if isinstance(divided, str):
            left_out[column] = divided
        else:
            found.append(divided)
    return found, left_out


def choosable(side: SideTable) -> Mapping[str, Sequence[str]]:
    """Return the columns by which results can be told apart: those that are kept, and groups."""
    return {heading: texts for heading, texts in side.known.items() if heading != "name"}


def check_asked(asked: Sequence[str] | None, info: DatasetInfo, side: SideTable) -> None:
    """Check before a training that results can be told apart by the columns that are asked for.

    Args:
        asked: The setting `evaluation.subgroups`.
        info: The data set.
        side: What is known of its test images.

    Raises:
        SettingsError: If the task has no such results, or a column is not kept or has too many values.
    """
    if not asked:
        return
    if not task_named(info.task).calibrates:
        raise SettingsError(
            f"evaluation.subgroups: is for classes or labels of images, not for {info.task} data; leave it out"
        )
    known = choosable(side)
    for column in asked:
        if column not in known:
            raise SettingsError(
                f"evaluation.subgroups: {column!r} is not kept with {info.name}; allowed: {some(known) or 'none'}; "
                "`visionforge datasets import --columns` keeps columns of a CSV file"
            )
        divided = divide(column, known[column])
        if isinstance(divided, str) and "different values" in divided:
            raise SettingsError(f"evaluation.subgroups: {column} {divided}")
