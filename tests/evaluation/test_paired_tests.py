"""Tests and margins of two sets of predictions: which are given of which task, and what is decided at the margin."""

import numpy as np
import pytest
from scipy.stats import binomtest

from visionforge.errors import SettingsError
from visionforge.evaluation.bootstrap import paired_differences
from visionforge.evaluation.margins import check_margins, parse_margins, verdict
from visionforge.evaluation.paired_tests import adjust, left_out, paired_tests
from visionforge.evaluation.scores import Scorer
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.paired_tests import area_difference, mcnemar


def scorers(task, count=120, sides=(1, 1), **more):
    """Return predictions of the same cases, the ones of the first side somewhat better."""
    rng = np.random.default_rng(0)
    if task == "multi-label":
        labels = (rng.random((count, 3)) < 0.4).astype(np.int64)
        return [
            [Scorer(1 / (1 + np.exp(-rng.normal(up * (labels - 0.5)))), labels, task, **more) for _ in range(number)]
            for up, number in zip((3, 2), sides, strict=True)
        ]
    labels = np.arange(count) % (2 if task == "binary" else 3)

    def drawn(up):
        logits = rng.normal(size=(count, labels.max() + 1))
        logits[np.arange(count), labels] += up
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    return [
        [Scorer(drawn(up), labels, task, **more) for _ in range(number)]
        for up, number in zip((2, 1), sides, strict=True)
    ]


def named(rows):
    return {(row["test"], row["metric"], row["class"]): row for row in rows}


@pytest.mark.parametrize("positive", [0, 1])
def test_two_classes_have_one_delong_and_one_mcnemar(positive):
    one, other = scorers("binary", positive=positive)
    found = named(paired_tests(one, other, ["no", "yes"], 0.95))
    assert list(found) == [("delong", "auc", None), ("mcnemar", "accuracy", None)]
    gaps = paired_differences(one, other, 50)
    for row in found.values():
        assert row["value"] == pytest.approx(gaps[row["metric"]].value)
    truth = one[0].labels == positive
    mine, theirs = (each[0].cases.probabilities[:, positive] for each in (one, other))
    expected = area_difference(mine[None], theirs[None], truth)
    assert found["delong", "auc", None]["p"] == expected.p
    assert found["delong", "auc", None]["interval"] == expected.interval(0.95)


@pytest.mark.parametrize("task", ["multi-class", "ordinal"])
def test_several_classes_have_a_delong_of_each(task):
    one, other = scorers(task)
    found = named(paired_tests(one, other, ["a", "b"], 0.95))
    assert list(found) == [*(("delong", "auc", name) for name in ("a", "b", "2")), ("mcnemar", "accuracy", None)]
    right, wrong = (each[0].cases.predicted == each[0].labels for each in (one, other))
    row = found["mcnemar", "accuracy", None]
    assert (row["n10"], row["n01"]) == ((right & ~wrong).sum(), (wrong & ~right).sum())
    assert row["p"] == mcnemar(row["n10"], row["n01"]) < binomtest(row["n01"], row["n10"] + row["n01"]).pvalue


def test_labels_have_a_mcnemar_of_each_and_of_all():
    one, other = scorers("multi-label")
    found = named(paired_tests(one, other, "abc", 0.95))
    assert [key for key in found if key[0] == "mcnemar"] == [
        ("mcnemar", "exact_match", None),
        *(("mcnemar", "accuracy", name) for name in "abc"),
    ]
    gaps = paired_differences(one, other, 50)
    assert found["mcnemar", "exact_match", None]["value"] == pytest.approx(gaps["exact_match"].value)
    values = [found["mcnemar", "accuracy", name]["value"] for name in "abc"]
    assert np.mean(values) == pytest.approx(gaps["accuracy"].value)
    areas = [found["delong", "auc", name]["value"] for name in "abc"]
    assert np.mean(areas) == pytest.approx(gaps["auc"].value)


def test_of_several_seeds_delong_is_of_the_mean_and_mcnemar_is_left_out():
    one, other = scorers("binary", sides=(3, 1))
    (row,) = paired_tests(one, other, ["no", "yes"], 0.95)
    assert row["test"] == "delong"
    assert row["value"] == pytest.approx(paired_differences(one, other, 50)["auc"].value)
    (line,) = left_out(one, other)
    assert line.startswith("McNemar is not given of a model with several seeds")
    assert left_out(one[:1], other) == []


def test_what_takes_cases_for_independent_is_left_out_where_they_are_not():
    one, other = scorers("binary", clusters=Clusters(np.arange(120) // 2))
    assert paired_tests(one, other, ["no", "yes"], 0.95) == []
    assert "belong together" in left_out(one, other)[0]
    one, other = scorers("binary", folds=np.arange(120) % 2)
    assert [row["test"] for row in paired_tests(one, other, ["no", "yes"], 0.95)] == ["mcnemar"]
    assert "several networks" in left_out(one, other)[0]


def test_tables_of_other_classes_are_not_tested():
    one, _ = scorers("multi-class")
    more = np.pad(one[0].cases.probabilities, [(0, 0), (0, 1)])
    other = [Scorer(more, one[0].labels, "multi-class")]
    for pair in ((one, other), (other, one)):
        assert paired_tests(*pair, ["a", "b", "c"], 0.95) == []
        assert "different numbers of classes" in left_out(*pair)[0]


def test_other_than_classes_and_labels_have_none():
    one, _ = scorers("binary")
    assert paired_tests(one, [object()], ["no", "yes"], 0.95) == []
    assert left_out(one, [object()]) == []


def test_few_cases_of_a_class_tell_nothing_of_an_area():
    one, other = scorers("binary", count=38)
    row = paired_tests(one, other, ["no", "yes"], 0.95)[0]
    assert (row["test"], row["interval"], row["p"]) == ("delong", None, None)
    one, other = scorers("binary", count=40)
    assert paired_tests(one, other, ["no", "yes"], 0.95)[0]["p"] is not None


def rows_of(metric, *p, **more):
    return [{"metric": metric, "p": each, "test": "delong", "class": None, **more} for each in p]


def test_families_are_metrics_of_a_reading():
    first, second = rows_of("a.auc", 0.01, 0.04), rows_of("b.auc", 0.03, None)
    note = adjust([*first, *second], [], [])
    assert [row["p_adjusted"] for row in first] == [0.02, 0.04]
    assert [row["p_adjusted"] for row in second] == [None, None], "one p-value needs no correction"
    assert note.startswith("Holm p: adjusted for differences, over the pairs of models")
    of_classes = rows_of("a.auc", 0.01, 0.02, **{"class": "x"})
    margins = [*rows_of("a.auc", 0.01), *rows_of("a.accuracy", 0.02), *rows_of("b.auc", 0.03)]
    note = adjust([], [*rows_of("a.auc", 0.5), *of_classes], margins)
    assert [row["p_adjusted"] for row in of_classes] == [0.02, 0.02]
    assert [row["p_adjusted"] for row in margins] == [0.02, 0.02, None]
    assert "tests, over" in note
    assert "margins, over" in note
    assert adjust(rows_of("a.auc", 0.01), [], []) is None


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((-0.01, 0.03), ("non-inferior", False)),
        ((0.001, 0.03), ("non-inferior", True)),
        ((-0.015, -0.001), ("non-inferior", False)),
        ((-0.02, 0.03), ("not shown", False)),
        ((-0.05, -0.01), ("not shown", False)),
        ((-0.05, -0.021), ("inferior", False)),
        (None, ("not shown", False)),
    ],
)
def test_the_limit_on_the_worse_side_decides(interval, expected):
    assert verdict(interval, 0.02, True) == expected
    turned = None if interval is None else (-interval[1], -interval[0])
    assert verdict(turned, 0.02, False) == expected


def test_the_p_of_a_margin_is_that_of_the_interval():
    one, other = scorers("binary")
    names = ("accuracy", "auc", "log_loss", "f1_macro")
    for confidence in (0.9, 0.95):
        for margin in np.linspace(0, 0.4, 9):
            gaps = paired_differences(other, one, 200, confidence, margins=dict.fromkeys(names, margin))
            for name in names:
                said, _ = verdict(gaps[name].interval, margin, name != "log_loss")
                assert (said == "non-inferior") == (gaps[name].p_worse < (1 - confidence) / 2), (name, margin)
    assert paired_differences(one, other, 50)["auc"].p_worse is None


def test_the_p_of_a_margin_follows_resamples_where_the_interval_does():
    from visionforge.evaluation.differences import percentile_of_zero
    from visionforge.evaluation.intervals import percentiles

    drawn = np.random.default_rng(0).gamma(4, size=2_000) - 2.0
    for shift in np.linspace(0, 2, 401):
        low, _ = percentiles(float(np.mean(drawn)) + shift, drawn + shift, 0.95)
        found = percentile_of_zero(float(np.mean(drawn)) + shift, drawn + shift)
        assert (low > 1e-3) <= (found < 0.025)
        assert (low < -1e-3) <= (found > 0.025)
    assert percentile_of_zero(0.1, np.full(10, 0.1)) is None


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share", "margin"), [(100, 0.9, 0.05), (400, 0.97, 0.02)])
def test_a_model_that_is_worse_by_the_margin_is_rarely_called_non_inferior(count, share, margin):
    rng = np.random.default_rng(1)
    labels, called = np.arange(count) % 2, 0
    gained = (1 - share) * 0.3
    for _ in range(800):
        right = rng.random(count) < share
        ours = np.where(right, rng.random(count) > (gained + margin) / share, rng.random(count) < gained / (1 - share))
        sides = [np.where(each, labels, 1 - labels) * 0.6 + 0.2 for each in (ours, right)]
        one, other = ([Scorer(np.stack([1 - each, each], axis=1), labels, "binary")] for each in sides)
        gap = paired_differences(one, other, 10, margins={"accuracy": margin})["accuracy"]
        called += verdict(gap.interval, margin, True)[0] == "non-inferior"
    assert called / 800 <= 0.04  # 0.025, and three standard errors of it


def test_margins_are_read():
    assert parse_margins(["accuracy=0.02", "log_loss=1e-1"]) == {"accuracy": 0.02, "log_loss": 0.1}
    assert parse_margins([]) == {}
    check_margins({"accuracy": 0, "map": 0.5})


@pytest.mark.parametrize("text", ["accuracy", "accuracy=", "accuracy=x", "accuracy:0.1", "="])
def test_what_is_no_margin(text):
    with pytest.raises(SettingsError, match="METRIC=NUMBER"):
        parse_margins([text])


def test_a_metric_has_one_margin():
    with pytest.raises(SettingsError, match="accuracy is named twice"):
        parse_margins(["accuracy=0.1", "accuracy=0.2"])


@pytest.mark.parametrize(
    ("margins", "line"),
    [
        ({"acuracy": 0.1}, "margins: 'acuracy' is no metric; nearest: accuracy"),
        ({"ece": 0.1}, "margins: ece has no interval"),
        ({"auc": -0.1}, "margins: auc=-0.1 is not allowed; allowed: numbers from 0"),
        ({"auc": float("nan")}, "margins: auc=nan is not allowed"),
        ({"auc": float("inf")}, "margins: auc=inf is not allowed"),
        ({"auc": "x"}, "margins: auc=x is not allowed"),
        ({"auc": True}, "margins: auc=True is not allowed"),
    ],
)
def test_margins_that_are_not_allowed(margins, line):
    with pytest.raises(SettingsError) as error:
        check_margins(margins)
    (problem,) = error.value.problems
    assert problem.startswith(line)
