"""Results by age, sex, site or scanner: metrics of each subgroup, and how far apart the subgroups are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.kept_columns import MISSING
from visionforge.data.side_table import SideTable
from visionforge.evaluation.bootstrap import SEED, Estimate, estimate, strata_of
from visionforge.evaluation.gaps import gap_interval, holm, pair_confidence, permutation_p, permuted_gaps
from visionforge.evaluation.intervals import Interval
from visionforge.evaluation.metric_names import interval_text, metric_name
from visionforge.evaluation.scores import Scorer
from visionforge.evaluation.subgroup_columns import Division, divisions

if TYPE_CHECKING:
    from visionforge.evaluation.evaluation import Evaluation

LEAST_IMAGES, LEAST_CASES = 20, 10  # of a subgroup that is compared, and cases that its metric is about
LEVEL = 0.05  # of adjusted p-values that are warned of
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Subgroup:
    """The images of one value of a column.

    Attributes:
        name: The value, or ``missing``.
        images: Their number.
        cases: Cases of each class or label.
        estimate: The task's headline metrics, and those of each class, with intervals.
        behind: Metric → number of cases that it is about.
    """

    name: str
    images: int
    cases: tuple[int, ...]
    estimate: Estimate
    behind: Mapping[str, float]

    def is_compared(self, metric: str) -> bool:
        """Return whether it has enough cases, and a value, to be compared with others."""
        enough = self.images >= LEAST_IMAGES and self.behind[metric] >= LEAST_CASES
        return self.name != MISSING and enough and self.estimate.overall[metric] is not None


@dataclass(frozen=True)
class Gap:
    """How far apart the subgroups of a column are in one metric.

    Attributes:
        metric: Its name.
        value: The largest value less the smallest; it is biased upwards.
        highest: The subgroup with the largest value.
        lowest: The one with the smallest.
        compared: Names of the subgroups that have enough cases.
        interval: Of the largest difference; None where a subgroup has no interval.
        by_chance: Mean gap of permutations; None without any.
        p: Share of permutations with a gap that is as large; None without any.
        adjusted: The same, adjusted for the number of gaps (Holm).
    """

    metric: str
    value: float
    highest: str
    lowest: str
    compared: tuple[str, ...]
    interval: Interval | None
    by_chance: float | None = None
    p: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class ByColumn:
    """The results by the values of one column.

    Attributes:
        column: Its heading.
        cut: Its values are numbers, cut into quartiles.
        missing: Number of images without a value, which are not compared.
        in_blocks: Whole groups were exchanged for p, since each lies in one subgroup.
        subgroups: Those of its values.
        gaps: Metric → how far apart they are; none where fewer than two subgroups have enough cases.
    """

    column: str
    cut: bool
    missing: int
    in_blocks: bool
    subgroups: tuple[Subgroup, ...]
    gaps: Mapping[str, Gap]


@dataclass(frozen=True)
class Subgroups:
    """The results of one split by the values of columns.

    Attributes:
        columns: The results by each column.
        left_out: Column → why there are none.
        metrics: Names of the metrics.
        recall: Name of the metric of each class that tells how many of its cases are found.
        confidence: Of the intervals.
        permutations: From which p follows; 0 gives none.
    """

    columns: tuple[ByColumn, ...]
    left_out: Mapping[str, str]
    metrics: tuple[str, ...]
    recall: str
    confidence: float
    permutations: int

    @property
    def gaps(self) -> list[tuple[ByColumn, Gap]]:
        """Return all gaps with their columns."""
        return [(column, gap) for column in self.columns for gap in column.gaps.values()]

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what `metrics.json` holds of it.

        Args:
            classes: Names of the classes.
        """
        return {
            "confidence": self.confidence,
            "permutations": self.permutations,
            "gaps": len(self.gaps),
            "columns": {column.column: self._column(column, classes) for column in self.columns},
            "left_out": dict(self.left_out),
        }

    def _column(self, column: ByColumn, classes: Sequence[str]) -> dict[str, Any]:
        return {
            "quartiles": column.cut,
            "missing": column.missing,
            "groups_exchanged": column.in_blocks,
            "subgroups": {each.name: self._subgroup(each, classes) for each in column.subgroups},
            "gaps": {
                name: {
                    "value": gap.value,
                    "highest": gap.highest,
                    "lowest": gap.lowest,
                    "compared": gap.compared,
                    "interval": gap.interval,
                    "by_chance": gap.by_chance,
                    "p": gap.p,
                    "p_holm": gap.adjusted,
                }
                for name, gap in column.gaps.items()
            },
        }

    def _subgroup(self, subgroup: Subgroup, classes: Sequence[str]) -> dict[str, Any]:
        found = subgroup.estimate
        ends = found.class_intervals.get(self.recall, [None] * len(classes))
        return {
            "images": subgroup.images,
            "metrics": {name: found.overall[name] for name in self.metrics},
            "intervals": dict(found.intervals),
            "methods": dict(found.methods),
            "per_class": {
                name: {"cases": subgroup.cases[k], "recall": found.per_class[self.recall][k], "interval": ends[k]}
                for k, name in enumerate(classes)
            },
        }

    def warnings(self, positive: str | None) -> list[str]:
        """Return a line for each column whose subgroups are farther apart than chance explains.

        Args:
            positive: Of two classes, the one that is to be found.
        """
        lines = []
        for column in self.columns:
            known = [gap for gap in column.gaps.values() if gap.adjusted is not None and gap.adjusted < LEVEL]
            if not known:
                continue
            gap = min(known, key=lambda each: (each.adjusted, -each.interval[0] if each.interval else 0.0))
            values = {each.name: each.estimate.overall[gap.metric] for each in column.subgroups}
            ends = f" ({interval_text(gap.interval, gap.value)})" if gap.interval else ""
            lines.append(
                f"by {column.column}, {metric_name(gap.metric, positive)} differs more than chance explains: "
                f"{values[gap.lowest]:.3f} in {gap.lowest} to {values[gap.highest]:.3f} in {gap.highest}, gap "
                f"{gap.value:.3f}{ends}, p = {gap.adjusted:.2g} (Holm, {len(self.gaps)} gaps)"
            )
        return lines


def with_subgroups(evaluation: Any, side: SideTable) -> Any:
    """Return an evaluation with its results by subgroups; one of other things than classes or labels is returned as is.

    Args:
        evaluation: A `visionforge.evaluation.evaluation.SplitEvaluation`.
        side: What is known of the images of the split, in their order; the first of them were evaluated.
    """
    from visionforge.evaluation.evaluation import Evaluation

    if not isinstance(evaluation, Evaluation):
        return evaluation
    found = subgroups_of(evaluation, side)
    return evaluation if found is None else replace(evaluation, subgroups=found)


def subgroups_of(evaluation: "Evaluation", side: SideTable) -> Subgroups | None:
    """Return the results of a split by the columns that `evaluation.subgroups` names; None if there are none to name.

    Args:
        evaluation: The numbers of the whole split.
        side: What is known of its images.
    """
    settings = evaluation.settings
    found, left_out = divisions(side, settings.subgroups, len(evaluation.labels))
    if not found and not left_out:
        return None
    overall = evaluation.best.estimate.overall
    names = tuple(name for name in evaluation.task.headlines if name in overall)
    groups = None if side.groups is None else np.unique(side.groups[: len(evaluation.labels)], return_inverse=True)[1]
    columns = [_by_column(evaluation, division, names, groups) for division in found]
    gaps = [gap for column in columns for gap in column.gaps.values() if gap.p is not None]
    adjusted = dict(zip(map(id, gaps), holm([gap.p for gap in gaps if gap.p is not None]), strict=True))
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


def _by_column(evaluation: "Evaluation", division: Division, names: tuple[str, ...], groups: Rows | None) -> ByColumn:
    codes, settings = division.codes, evaluation.settings
    labelled = [(code, name) for code, name in enumerate(division.names) if (codes == code).any()]
    rows = {code: np.flatnonzero(codes == code) for code, _ in labelled}
    subgroups = {code: _subgroup(evaluation, name, rows[code], names) for code, name in labelled}
    compared = {name: [code for code, each in subgroups.items() if each.is_compared(name)] for name in names}
    compared = {name: some for name, some in compared.items() if len(some) > 1}
    in_blocks = groups is not None and _each_in_one(groups[codes >= 0], codes[codes >= 0])
    permuted = {}
    if compared and settings.resamples:
        known = np.flatnonzero(codes >= 0)
        blocks = groups[known] if in_blocks and groups is not None else None
        strata = strata_of(evaluation.labels[known])
        scorer = _scorer(evaluation, known, tuple(compared))
        permuted = permuted_gaps(scorer, codes[known], compared, strata, blocks, settings.resamples, SEED)
    wider = _wider(evaluation, rows, compared, names)
    gaps = {}
    for name, some in compared.items():
        values = [subgroups[code].estimate.overall[name] or 0.0 for code in some]
        ends = [wider[len(some), code].get(name) for code in some] if wider else [None]
        known_ends = [each for each in ends if each is not None]
        value = max(values) - min(values)
        drawn = permuted.get(name)
        gaps[name] = Gap(
            name,
            value,
            subgroups[some[int(np.argmax(values))]].name,
            subgroups[some[int(np.argmin(values))]].name,
            tuple(subgroups[code].name for code in some),
            gap_interval(values, known_ends) if len(known_ends) == len(some) else None,
            None if drawn is None or np.isnan(drawn).all() else float(np.nanmean(drawn)),
            None if drawn is None else permutation_p(value, drawn),
        )
    shown = [subgroups[code] for code, _ in labelled]
    if division.missing:
        shown.append(_subgroup(evaluation, MISSING, np.flatnonzero(codes < 0), names))
    return ByColumn(division.column, division.cut, division.missing, in_blocks, tuple(shown), gaps)


def _wider(
    evaluation: "Evaluation", rows: Mapping[int, Rows], compared: Mapping[str, Sequence[int]], names: tuple[str, ...]
) -> dict[tuple[int, int], Mapping[str, Interval | None]]:
    """Return (number of compared subgroups, subgroup) → intervals of which all differences hold together."""
    settings = evaluation.settings
    if not settings.resamples:
        return {}
    asked = {(len(some), code) for some in compared.values() for code in some}
    return {
        (count, code): estimate(
            [_scorer(evaluation, rows[code], names)], settings.resamples, pair_confidence(settings.confidence, count)
        )[0].intervals
        for count, code in sorted(asked)
    }


def _subgroup(evaluation: "Evaluation", name: str, rows: Rows, names: tuple[str, ...]) -> Subgroup:
    scorer, settings = _scorer(evaluation, rows, names), evaluation.settings
    (found,) = estimate([scorer], settings.resamples, settings.confidence)
    counts = evaluation.task.counts(evaluation.labels[rows], len(evaluation.spec.classes))
    return Subgroup(name, len(rows), tuple(map(int, counts)), found, _behind(scorer, names, len(rows)))


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


def _scorer(evaluation: "Evaluation", rows: Rows, names: tuple[str, ...]) -> Scorer:
    best, spec = evaluation.best, evaluation.spec
    return Scorer(
        best.probabilities[rows],
        evaluation.labels[rows],
        spec.task,
        best.thresholds,
        spec.positive_index,
        only=names,
    )


def _each_in_one(groups: Rows, codes: Rows) -> bool:
    """Return whether all images of each group lie in one subgroup."""
    return len(np.unique(np.stack([groups, codes]), axis=1).T) == len(np.unique(groups))
