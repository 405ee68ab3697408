"""From predictions and columns to results by subgroups; every subgroup is evaluated as a whole split is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.kept_columns import MISSING
from visionforge.data.side_table import SideTable
from visionforge.data.stratify import strata_of
from visionforge.evaluation.bootstrap import SEED, Estimate, estimate
from visionforge.evaluation.gaps import gap_interval, pair_confidence, permutation_p, permuted_gaps
from visionforge.evaluation.intervals import Interval
from visionforge.evaluation.scores import Scorer
from visionforge.evaluation.subgroup_columns import Division, divisions
from visionforge.evaluation.subgroups import ByColumn, Gap, Subgroup, Subgroups
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.paired_tests import holm
from visionforge.scoring.rates import Floats

if TYPE_CHECKING:
    from visionforge.evaluation.evaluation import Evaluation

Rows = npt.NDArray[np.int64]


def with_subgroups(
    evaluation: Any, side: SideTable, clusters: Clusters | None = None, folds: Rows | None = None
) -> Any:
    """Return an evaluation with its results by subgroups; one of other things than classes or labels is returned as is.

    Args:
        evaluation: A `visionforge.evaluation.evaluation.SplitEvaluation`.
        side: What is known of the images of the split, in their order; the first of them were evaluated.
        clusters: Groups of the evaluated images that belong together; None: each stands for itself.
        folds: (N,) which of several networks predicted an image; None: all by the same.
    """
    from visionforge.evaluation.evaluation import Evaluation

    if not isinstance(evaluation, Evaluation):
        return evaluation
    found = subgroups_of(evaluation, side, clusters, folds)
    return evaluation if found is None else replace(evaluation, subgroups=found)


def subgroups_of(
    evaluation: "Evaluation", side: SideTable, clusters: Clusters | None = None, folds: Rows | None = None
) -> Subgroups | None:
    """Return the results of a split by the columns that `evaluation.subgroups` names; None if there are none to name.

    Args:
        evaluation: The numbers of the whole split.
        side: What is known of its images.
        clusters: As `with_subgroups`.
        folds: As `with_subgroups`.
    """
    settings = evaluation.settings
    found, left_out = divisions(side, settings.subgroups, len(evaluation.labels))
    if not found and not left_out:
        return None
    overall = evaluation.best.estimate.overall
    names = tuple(name for name in evaluation.task.headlines if name in overall)
    cases = _Cases(evaluation, names, clusters, folds)
    columns = [_by_column(cases, division) for division in found]
    gaps = [gap for column in columns for gap in column.gaps.values() if gap.p is not None]
    adjusted = dict(zip(map(id, gaps), holm([gap.p for gap in gaps]), strict=True))
    columns = [
        replace(
            column,
            gaps={name: replace(gap, adjusted=adjusted.get(id(gap))) for name, gap in column.gaps.items()},
        )
        for column in columns
    ]
    per_class = evaluation.best.estimate.per_class
    recall = "sensitivity_tuned" if "sensitivity_tuned" in per_class else "sensitivity"
    return Subgroups(tuple(columns), left_out, names, recall, settings.confidence, settings.resamples)


@dataclass(frozen=True)
class _Cases:
    """What was predicted of all images, of which subgroups are parts.

    Attributes:
        evaluation: The numbers of all.
        names: Of the metrics.
        clusters: Groups of images that belong together.
        folds: (N,) which network predicted an image.
    """

    evaluation: "Evaluation"
    names: tuple[str, ...]
    clusters: Clusters | None
    folds: Rows | None

    def scorer(self, rows: Rows) -> Scorer:
        """Return what computes the metrics of some images."""
        best, spec = self.evaluation.best, self.evaluation.spec
        return Scorer(
            best.probabilities[rows],
            self.evaluation.labels[rows],
            spec.task,
            best.thresholds,
            spec.positive_index,
            clusters=None if self.clusters is None else Clusters(self.clusters.codes[rows]),
            folds=None if self.folds is None else self.folds[rows],
            only=self.names,
        )

    def estimate(self, rows: Rows, confidence: float | None = None) -> Estimate:
        """Return metrics and intervals of some images; None is the confidence of the settings."""
        settings = self.evaluation.settings
        (found,) = estimate([self.scorer(rows)], settings.resamples, confidence or settings.confidence)
        return found

    def subgroup(self, name: str, rows: Rows) -> Subgroup:
        """Return the results of a subgroup."""
        counts = self.evaluation.task.counts(self.evaluation.labels[rows], len(self.evaluation.spec.classes))
        behind = _behind(replace(self, clusters=None).scorer(rows), self.names, len(rows))
        return Subgroup(name, len(rows), tuple(map(int, counts)), self.estimate(rows), behind)


def _by_column(cases: _Cases, division: Division) -> ByColumn:
    codes = division.codes
    rows = {code: found for code in range(len(division.names)) if len(found := np.flatnonzero(codes == code))}
    subgroups = {code: cases.subgroup(division.names[code], found) for code, found in rows.items()}
    compared = {name: [code for code, each in subgroups.items() if each.is_compared(name)] for name in cases.names}
    compared = {name: some for name, some in compared.items() if len(some) > 1}
    blocks = None if cases.clusters is None else cases.clusters.codes
    in_blocks = None if blocks is None else _each_in_one(blocks[codes >= 0], codes[codes >= 0])
    permuted = _permuted(cases, codes, compared, blocks if in_blocks else None)
    wider = _wider(cases, rows, compared)
    gaps = {}
    for name, some in compared.items():
        known = {code: value for code in some if (value := subgroups[code].estimate.overall[name]) is not None}
        highest, lowest = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        ends = [end for code in some if (end := wider.get((len(some), code), {}).get(name)) is not None]
        value, drawn = known[highest] - known[lowest], permuted.get(name)
        gaps[name] = Gap(
            name,
            value,
            subgroups[highest].name,
            subgroups[lowest].name,
            tuple(subgroups[code].name for code in some),
            gap_interval(list(known.values()), ends) if len(ends) == len(some) else None,
            None if drawn is None or np.isnan(drawn).all() else float(np.nanmean(drawn)),
            None if drawn is None else permutation_p(value, drawn),
        )
    shown = list(subgroups.values())
    if division.missing:
        shown.append(cases.subgroup(MISSING, np.flatnonzero(codes < 0)))
    return ByColumn(division.column, division.cut, division.missing, in_blocks, tuple(shown), gaps)


def _permuted(
    cases: _Cases, codes: Rows, compared: Mapping[str, Sequence[int]], blocks: Rows | None
) -> dict[str, Floats]:
    """Return the gaps of permutations of the images that have a value; none without resamples."""
    count = cases.evaluation.settings.resamples
    if not compared or not count:
        return {}
    known = np.flatnonzero(codes >= 0)
    scorer = replace(cases, names=tuple(compared), clusters=None).scorer(known)
    strata = strata_of(cases.evaluation.labels[known])
    return permuted_gaps(scorer, codes[known], compared, strata, None if blocks is None else blocks[known], count, SEED)


def _wider(
    cases: _Cases, rows: Mapping[int, Rows], compared: Mapping[str, Sequence[int]]
) -> dict[tuple[int, int], Mapping[str, Interval | None]]:
    """Return (number of compared subgroups, subgroup) → intervals of which all differences hold together."""
    settings = cases.evaluation.settings
    if not settings.resamples:
        return {}
    asked = {(len(some), code) for some in compared.values() for code in some}
    return {
        (count, code): cases.estimate(rows[code], pair_confidence(settings.confidence, count)).intervals
        for count, code in sorted(asked)
    }


def _behind(scorer: Scorer, names: Sequence[str], images: int) -> dict[str, float]:
    """Return the number of cases that each metric is about."""
    counted, found = scorer.counted, {}
    for name in names:
        behind = counted.overall.get(name)
        if behind is not None and behind.trials is not None:
            found[name] = float(np.sum(behind.trials.cases))
        elif behind is not None and behind.values:
            found[name] = float(sum(counted.per_class[each].cases[k] for each, k in behind.values))
        else:
            found[name] = float(images)
    return found


def _each_in_one(groups: Rows, codes: Rows) -> bool:
    """Return whether all images of each group lie in one subgroup."""
    return len(np.unique(np.stack([groups, codes]), axis=1).T) == len(np.unique(groups))
