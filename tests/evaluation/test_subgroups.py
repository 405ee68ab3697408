"""Subgroups have the numbers of their images alone, and chance finds as many gaps between them as it should."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tests.evaluation.helpers import FLAGS, evaluation_of
from visionforge.config.schema import EvaluationSettings
from visionforge.data.info import TaskSpec
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import SideTable
from visionforge.errors import SettingsError
from visionforge.evaluation.evaluation import Evaluation, Partial, evaluate
from visionforge.evaluation.gaps import gap_interval, pair_confidence
from visionforge.evaluation.subgroup_columns import check_asked, divide, divisions
from visionforge.evaluation.subgrouping import subgroups_of, with_subgroups
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.limits import clopper_pearson
from visionforge.scoring.paired_tests import holm
from visionforge.training.predictions import Predictions

TASKS = ("binary", "multi-class", "ordinal", "multi-label")


def made(seed, count=150, noisy=0.0, resamples=60, patients=None, **settings) -> tuple[Evaluation, SideTable]:
    """Return predictions that the site says nothing of, given the class; but labels of the last site may be noisy."""
    rng, classes = np.random.default_rng(seed), 3
    of = np.arange(count) if patients is None else rng.integers(0, patients, count)
    units = int(of.max()) + 1
    site = rng.integers(0, 3, units)
    each = [rng.choice(classes, p=np.roll((0.5, 0.3, 0.2), s)) for s in site]  # sites differ in their cases
    labels, site, effect = np.array(each)[of], site[of], rng.normal(size=units)[of]
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5 + (0 if patients is None else 1.5 * effect)
    swapped = (site == 2) & (rng.random(count) < noisy)
    labels = np.where(swapped, rng.integers(0, classes, count), labels)
    spec = TaskSpec(
        dataset="any",
        task="multi-class",
        classes=tuple(f"c{k}" for k in range(classes)),
        channels=3,
        resolution=12,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        flags=FLAGS,
    )
    said = Predictions("test", torch.tensor(logits).softmax(1).float(), None, torch.tensor(labels), 0.7, None, None)
    evaluation = evaluate(said, spec, "test", EvaluationSettings(resamples=resamples, **settings))
    groups = None if patients is None else tuple(f"p{k}" for k in of)
    return evaluation, SideTable(None, groups, {"site": tuple("abc"[s] for s in site)})


# --- how columns divide


def test_numbers_are_cut_at_the_quartiles_of_their_values():
    ages = np.random.default_rng(0).integers(20, 90, 400)
    found = divide("age", [*map(str, ages), "missing"])
    edges = np.quantile(ages, [0.25, 0.5, 0.75], method="inverted_cdf")
    assert found.cut
    assert found.missing == 1
    assert found.codes[:-1].tolist() == [int((age > edges).sum()) for age in ages]
    assert found.names == (
        f"≤ {edges[0]}", f"> {edges[0]} to {edges[1]}", f"> {edges[1]} to {edges[2]}", f"> {edges[2]}"
    )  # fmt: skip


def test_equal_quartiles_are_one_and_few_numbers_stay_as_they_are():
    mostly_zero = ["0"] * 60 + [str(k) for k in range(1, 41)]
    assert divide("dose", mostly_zero).names == ("≤ 0", "> 0 to 15", "> 15")
    grades = divide("grade", ["10", "9", "2", "2"])
    assert grades.names == ("2", "9", "10")
    assert not grades.cut


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["x"] * 5, "has only the value x"),
        (["missing"] * 5, "has no value"),
        ([f"t{k}" for k in range(13)], "has 13 different values; 12 texts are told apart, or any numbers"),
        (["nan", "inf", *map(str, range(12))], "has 14 different values; 12 texts are told apart, or any numbers"),
        ([str(k) for k in range(13)] + ["99"] * 100, "has one value in at least three of four images"),
    ],
)
def test_a_column_that_divides_nothing_says_why(values, reason):
    assert divide("x", values) == reason


def test_the_setting_chooses_columns_and_only_evaluated_images_count():
    side = SideTable(("a", "b", "c"), ("p", "q", "p"), {"sex": ("f", "m", "f"), "site": ("x", "x", "y")})
    assert [each.column for each in divisions(side, None, 3)[0]] == ["sex", "site"]
    assert divisions(side, (), 3) == ([], {})
    found, left_out = divisions(side, ("group", "age"), 3)
    assert [each.column for each in found] == ["group"]
    assert left_out == {"age": "is not kept with the data"}
    found, left_out = divisions(side, None, 2)
    assert [len(each.codes) for each in found] == [2]
    assert left_out == {"site": "has only the value x"}


@pytest.mark.parametrize(
    ("asked", "dataset", "line"),
    [
        (("agee",), "digits", "evaluation.subgroups: 'agee' is not kept with digits; allowed: sex, free; "),
        (("name",), "digits", "evaluation.subgroups: 'name' is not kept with digits; "),
        (("free",), "digits", "evaluation.subgroups: free has 20 different values; 12 texts are told apart"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_before_a_training(asked, dataset, line):
    side = SideTable(tuple("n" * 20), None, {"sex": tuple("fm" * 10), "free": tuple(f"t{k}" for k in range(20))})
    with pytest.raises(SettingsError) as caught:
        check_asked(asked, dataset_info(dataset), side)
    assert caught.value.problems[0].startswith(line)
    check_asked(("sex",), dataset_info(dataset), side)
    check_asked(None, dataset_info(dataset), side)
    drawn = dataset_info(dataset).model_copy(update={"task": "detection"})
    with pytest.raises(SettingsError, match="is for classes or labels of images, not for detection data"):
        check_asked(("sex",), drawn, side)


# --- numbers of subgroups


@pytest.mark.parametrize("task", TASKS)
def test_a_subgroup_has_the_numbers_that_its_images_have_alone(task):
    evaluation = evaluation_of(task, count=90, tta=False)
    sex = tuple("fmm"[k % 3] for k in range(90))
    found = subgroups_of(evaluation, SideTable(None, None, {"sex": sex}))
    (column,) = found.columns
    for each in column.subgroups:
        rows = np.flatnonzero(np.array(sex) == each.name)
        best = evaluation.best
        said = Predictions(
            "test",
            torch.tensor(best.probabilities[rows]),
            None,
            torch.tensor(evaluation.labels[rows]),
            0.0,
            None if best.thresholds is None else torch.tensor(best.thresholds),
            None,
        )
        alone = evaluate(said, evaluation.spec, "test", evaluation.settings)
        assert each.images == len(rows)
        assert list(each.cases) == alone.support
        assert found.metrics == evaluation.task.headlines
        for name in found.metrics:
            assert each.estimate.overall[name] == alone.best.estimate.overall[name]
            assert each.estimate.intervals[name] == alone.best.estimate.intervals[name]
            assert each.estimate.methods[name] == alone.best.estimate.methods[name]
        recall = each.estimate.class_intervals[found.recall]
        assert recall == alone.best.estimate.class_intervals[found.recall]
    for name, gap in column.gaps.items():
        values = [each.estimate.overall[name] for each in column.subgroups]
        assert gap.value == max(values) - min(values)
        assert gap.interval[0] <= gap.value <= gap.interval[1]


@pytest.mark.parametrize("task", TASKS)
def test_subgroups_of_one_class_or_one_image_are_told_and_break_nothing(task):
    evaluation = evaluation_of(task, count=80)
    first = evaluation.labels if evaluation.labels.ndim == 1 else evaluation.labels[:, 0]
    values = ["one class" if label == first[0] else "others" for label in first]
    values[5], values[6] = "single", "missing"
    found = with_subgroups(evaluation, SideTable(None, None, {"x": tuple(values)}))
    (column,) = found.subgroups.columns
    by_name = {each.name: each for each in column.subgroups}
    assert list(by_name) == ["one class", "others", "single", "missing"]
    assert by_name["single"].images == 1
    if task != "multi-label":
        assert by_name["one class"].estimate.overall["auc"] is None
        assert "auc" not in column.gaps
    assert all("single" not in gap.compared and "missing" not in gap.compared for gap in column.gaps.values())
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))["subgroups"]
    assert content["columns"]["x"]["missing"] == 1
    assert content["columns"]["x"]["subgroups"]["single"]["images"] == 1


def test_a_subgroup_draws_whole_groups_as_the_split_does():
    evaluation, side = made(4, count=300, patients=80)
    clusters = Clusters(side.groups)
    found = subgroups_of(evaluation, side, clusters).columns[0].subgroups[0]
    rows = np.flatnonzero(np.array(side.columns["site"]) == found.name)
    said = Predictions(
        "test", torch.tensor(evaluation.best.probabilities[rows]), None, torch.tensor(evaluation.labels[rows]), 0.0
    )
    alone, apart = (
        evaluate(said, evaluation.spec, "test", evaluation.settings, None, each).best.estimate.intervals
        for each in (Clusters(clusters.codes[rows]), None)
    )
    assert {name: found.estimate.intervals[name] for name in alone if name in found.estimate.intervals} == {
        name: alone[name] for name in evaluation.task.headlines
    }
    assert found.estimate.intervals["accuracy"] != apart["accuracy"]


def test_parts_of_a_split_and_no_resamples_are_fine():
    evaluation = evaluation_of(count=60, settings=EvaluationSettings(resamples=0), partial=Partial(60, 100, "x"))
    found = subgroups_of(evaluation, SideTable(None, None, {"sex": tuple("fm" * 50)}))
    assert [each.images for each in found.columns[0].subgroups] == [30, 30]
    assert all(gap.p is gap.interval is gap.adjusted is None for _, gap in found.gaps)
    assert found.warnings(None) == []
    assert subgroups_of(evaluation, SideTable()) is None


def test_the_setting_switches_them_off():
    evaluation, side = made(0, subgroups=())
    assert with_subgroups(evaluation, side) is evaluation
    assert "subgroups" not in evaluation.as_dict()


# --- gaps


@pytest.mark.slow
def test_p_is_uniform_where_no_gap_is_real_and_small_where_labels_are_noisy(monkeypatch):
    names = ("auc", "accuracy", "balanced_accuracy")

    def drawn(seeds, **more):
        columns = []
        for seed in seeds:  # the same few permutations would be wrong in the same way every time
            monkeypatch.setattr("visionforge.evaluation.subgrouping.SEED", seed)
            columns.append(subgroups_of(*made(seed, **more)).columns[0])
        return np.array([[column.gaps[name].p for name in names] for column in columns])

    none = drawn(range(200))
    steps = np.random.default_rng(0).random(none.shape) / 61  # of 60 permutations
    for p in none.T:
        assert kstest(p - steps[:, 0], "uniform").pvalue > 0.005
        assert (p <= 0.05).mean() <= 0.1
    assert np.median(drawn(range(20), count=300, noisy=0.7)[:, :2]) <= 2 / 61


@pytest.mark.slow
def test_whole_patients_are_exchanged_where_each_lies_in_one_subgroup():
    def drawn(alone):
        found = []
        for seed in range(80):
            evaluation, side = made(seed, patients=30)
            column = subgroups_of(evaluation, side, None if alone else Clusters(side.groups)).columns[0]
            assert column.in_blocks is (None if alone else True)
            found.append(column.gaps["accuracy"].p)
        return np.array(found)

    assert (drawn(alone=True) <= 0.05).mean() > 0.15  # images of a patient are alike, so that chance is underrated
    assert (drawn(alone=False) <= 0.05).mean() <= 0.1


@pytest.mark.parametrize("shares", [(0.9, 0.9), (0.8,) * 5, (0.95, 0.7, 0.8), (0.99, 0.9, 0.97, 0.98)])
def test_the_interval_of_a_gap_holds_the_largest_true_difference(shares):
    rng, truth, held = np.random.default_rng(0), max(shares) - min(shares), 0
    confidence = pair_confidence(0.95, len(shares))
    for _ in range(400):
        cases = np.array([60.0, 90.0, 40.0, 120.0, 80.0][: len(shares)])
        found = rng.binomial(cases.astype(int), shares) / cases
        low, high = clopper_pearson(found, cases, confidence)
        ends = gap_interval(found.tolist(), list(zip(low.tolist(), high.tolist(), strict=True)))
        held += ends[0] - 1e-12 <= truth <= ends[1] + 1e-12
    assert held >= 0.94 * 400


def test_holm_adjusts_as_by_its_definition():
    p = np.random.default_rng(0).random(9) / 5
    ordered = np.sort(p)
    wanted = {each: min(1.0, max((9 - j) * ordered[j] for j in range(i + 1))) for i, each in enumerate(ordered)}
    assert holm(p.tolist()) == pytest.approx([wanted[each] for each in p])
    assert holm([]) == []
    column = subgroups_of(*made(3)).columns[0]
    gaps = list(column.gaps.values())
    assert [gap.adjusted for gap in gaps] == pytest.approx(holm([gap.p for gap in gaps]))


def test_a_site_with_noisy_labels_is_found_and_warned_of():
    evaluation, side = made(1, count=400, noisy=0.6, resamples=400)
    other = tuple(np.random.default_rng(5).choice(["f", "m"], 400))
    found = with_subgroups(evaluation, SideTable(None, None, {**side.columns, "sex": other}))
    (line,) = found.warnings
    assert line.startswith("by site, ")
    assert " in c to " in line
    assert line.endswith("(Holm, 8 gaps)")
    site, sex = found.subgroups.columns
    assert all(gap.lowest == "c" for gap in site.gaps.values())
    assert min(gap.adjusted for gap in sex.gaps.values()) > 0.05
    assert site.gaps["accuracy"].interval[0] > 0
    assert site.gaps["accuracy"].value > 2 * site.gaps["accuracy"].by_chance
