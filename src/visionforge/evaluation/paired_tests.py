"""DeLong's and McNemar's tests of two models on the same cases, and p-values adjusted for their number."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from visionforge.evaluation.scores import Scorer
from visionforge.scoring.cases import LEAST_RANKED, Cases
from visionforge.scoring.paired_tests import area_difference, holm, mcnemar
from visionforge.scoring.rates import Array

DELONG, MCNEMAR = "delong", "mcnemar"
GROUPED = "DeLong and McNemar are not given where images belong together: both take them for drawn one by one."
UNLIKE = "DeLong and McNemar are not given of tables with different numbers of classes."
FOLDED = "DeLong is not given where several networks have predicted a part each: their probabilities do not compare."
SEVERAL = "McNemar is not given of a model with several seeds, which decide apart; the p of accuracy is of their mean."
Row = dict[str, Any]


def paired_tests(
    one: Sequence[object], other: Sequence[object], classes: Sequence[str], confidence: float
) -> list[Row]:
    """Return DeLong's tests of AUCs, and McNemar's of decisions; none of masks and boxes.

    Of two classes DeLong's is of the AUC of the positive one; of more, and of labels, of each against the rest.
    Of a model with repetitions it is of the mean of their AUCs. McNemar's is of two single models: whether a case is
    right; of labels, whether all are, and each label.

    Args:
        one: What scores a model, and its repetitions with other seeds, on the cases that `other` is scored on.
        other: The same of the other.
        classes: Names of the classes.
        confidence: Share of samples of which the intervals hold the truth.

    Returns:
        For each test its name, metric and class, the difference `value` by which `one` is higher, its interval and p,
        None where cases are too few to tell; of McNemar's `n10` and `n01`, the cases of which `one` alone and `other`
        alone is right.
    """
    mine, theirs, without = *_cases(one, other), left_out(one, other)
    if not mine or GROUPED in without or UNLIKE in without:
        return []
    names = [classes[k] if k < len(classes) else str(k) for k in range(mine[0].classes)]
    rows = [] if FOLDED in without else _of_areas(mine, theirs, names, confidence)
    return rows if SEVERAL in without else rows + _of_decisions(mine[0], theirs[0], names)


def left_out(one: Sequence[object], other: Sequence[object]) -> list[str]:
    """Return why a test of classes or labels is not given, a sentence each.

    Args:
        one: What scores a model, and its repetitions.
        other: The same of the other.
    """
    mine, theirs = _cases(one, other)
    every = [*mine, *theirs]
    if any(each.clusters is not None for each in every):
        return [GROUPED]
    if len({each.classes for each in every}) > 1:
        return [UNLIKE]
    found = [FOLDED] if any(each.folds is not None for each in every) else []
    return found + ([SEVERAL] if len(every) > 2 else [])


def _cases(*sides: Sequence[object]) -> list[list[Cases]]:
    """Return the cases of each side; none if some are not of classes or labels."""
    found = [[each.cases for each in side if isinstance(each, Scorer)] for side in sides]
    return found if all(len(each) == len(side) for each, side in zip(found, sides, strict=True)) else [[], []]


def _of_areas(mine: list[Cases], theirs: list[Cases], names: list[str], confidence: float) -> list[Row]:
    cases = mine[0]
    rows = []
    for k in [cases.positive] if cases.task.has_positive else range(cases.classes):
        truth = cases.truth[:, k]
        sides = [np.stack([each.probabilities[:, k] for each in side]) for side in (mine, theirs)]
        found = area_difference(sides[0], sides[1], truth)
        if found is None:
            continue
        enough = min(truth.sum(), (1 - truth).sum()) >= LEAST_RANKED
        row = _row(DELONG, "auc", None if cases.task.has_positive else names[k], found.value)
        rows.append(row | ({"interval": found.interval(confidence), "p": found.p} if enough else {}))
    return rows


def _of_decisions(one: Cases, other: Cases, names: list[str]) -> list[Row]:
    right, wrong = (each.predicted == each.labels for each in (one, other))
    if not one.of_labels:
        return [_of_pairs("accuracy", None, right, wrong)]
    rows = [_of_pairs("exact_match", None, right.all(axis=1), wrong.all(axis=1))]
    return rows + [_of_pairs("accuracy", name, right[:, k], wrong[:, k]) for k, name in enumerate(names)]


def _of_pairs(metric: str, name: str | None, one: Array, other: Array) -> Row:
    alone, missed = int((one & ~other).sum()), int((other & ~one).sum())
    row = _row(MCNEMAR, metric, name, (alone - missed) / max(1, len(one)))
    return row | {"p": mcnemar(alone, missed), "n10": alone, "n01": missed}


def _row(test: str, metric: str, name: str | None, value: float) -> Row:
    told = {"test": test, "metric": metric, "class": name, "value": value}
    return told | {"interval": None, "p": None, "n10": None, "n01": None}


def adjusted(rows: Iterable[Row], family: Callable[[Row], object]) -> bool:
    """Add `p_adjusted` to rows, Holm's of all rows of the same family; return whether one has several p-values.

    Args:
        rows: Rows with `p`.
        family: Returns what rows of a family have in common.
    """
    families: dict[object, list[Row]] = {}
    for row in rows:
        families.setdefault(family(row), []).append(row)
    sizes = Counter[object]()
    for key, members in families.items():
        found = holm([row["p"] for row in members])
        sizes[key] = sum(value is not None for value in found)
        for row, value in zip(members, found, strict=True):
            row["p_adjusted"] = value if sizes[key] > 1 else None  # one of its own is what it is
    return any(count > 1 for count in sizes.values())


def adjust(differences: list[Row], tests: list[Row], verdicts: list[Row]) -> str | None:
    """Add `p_adjusted` to all of these; return what they were adjusted for, None if there is nothing to adjust.

    Families are the pairs of models of the same metric and reading; the classes belong to them where a test is of each;
    and of margins all that were asked.
    """
    told = []
    if adjusted(differences, lambda row: row["metric"]):
        told.append("differences, over the pairs of models, each metric by itself")
    if adjusted(tests, _family_of_test):
        told.append("tests, over the pairs and classes or labels, each metric by itself")
    if adjusted(verdicts, lambda row: row["metric"].partition(".")[0]):
        told.append("margins, over all pairs and metrics that were asked")
    return f"Holm p: adjusted for {'; '.join(told)}. Intervals and verdicts are not." if told else None


def _family_of_test(row: Mapping[str, Any]) -> object:
    return row["test"], row["metric"], row["class"] is None
