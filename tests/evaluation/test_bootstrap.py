"""Intervals hold the truth as often as they say; resamples are stratified and a function of the seed alone."""

import numpy as np
import pytest
from scipy.stats import binom, rankdata, t
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import roc_auc_score

from visionforge.config.schema.metrics import metrics
from visionforge.evaluation import bootstrap
from visionforge.evaluation.bootstrap import estimate, paired_differences, resample_weights, strata_of
from visionforge.evaluation.intervals import percentiles
from visionforge.evaluation.scores import Scorer

SHIFT = 1.5  # of the score of the true class


def simulated(rng: np.random.Generator, task: str, count: int):
    """Draw probabilities and labels with fixed class frequencies from a known model."""
    classes = {"binary": 2, "ordinal": 4, "multi-class": 3, "multi-label": 3}[task]
    if task == "multi-label":
        labels = (np.arange(count)[:, None] % np.array([2, 3, 5]) == 0).astype(np.int64)
        return 1 / (1 + np.exp(-(rng.normal(size=(count, 3)) + SHIFT * labels - 0.7))), labels
    labels = np.arange(count) % classes
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += SHIFT
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "ordinal", "multi-label"])
def test_intervals_hold_the_truth(task):
    rng = np.random.default_rng(2026)
    big = estimate([Scorer(*simulated(rng, task, 300_000), task)], resamples=0)[0].overall
    names = [name for name in big if metrics()[name].interval]
    held = dict.fromkeys(names, 0)
    for number in range(500):
        found = estimate([Scorer(*simulated(rng, task, 240), task)], resamples=600, seed=number)[0].intervals
        for name in names:
            low, high = found[name]
            held[name] += low <= big[name] <= high
    assert all(count / 500 >= 0.93 for count in held.values()), held


def test_the_percentiles_are_scipys():
    rng = np.random.default_rng(0)
    shown, labels = simulated(rng, "binary", 200)
    scorer = Scorer(shown, labels, "binary")
    drawn = np.concatenate([scorer(weights).overall["auc"] for weights in resample_weights(strata_of(labels), 4000, 0)])
    ours = percentiles(scorer(np.ones((200, 1))).overall["auc"][0], drawn, 0.95)
    kinds = [shown[labels == k, 1] for k in (0, 1)]

    def auc(negative, positive, axis):
        """By the ranks, as Mann and Whitney."""
        count, cases = (part.shape[axis] for part in (negative, positive))
        ranks = rankdata(np.concatenate([negative, positive], axis=axis), axis=axis)
        above = np.take(ranks, range(count, count + cases), axis=axis).sum(axis=axis) - cases * (cases + 1) / 2
        return above / (count * cases)

    assert auc(*kinds, axis=0) == pytest.approx(roc_auc_score(labels, shown[:, 1]))
    theirs = scipy_bootstrap(kinds, auc, n_resamples=4000, method="percentile", vectorized=True, rng=1)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.005)


@pytest.mark.parametrize(("positives", "truth"), [(40, 0.98), (80, 0.98), (400, 0.995), (10, 0.9), (100, 0.999)])
def test_sensitivity_near_one_has_its_true_coverage(positives, truth):
    """By the binomial distribution of the right cases, not by simulation."""
    labels = np.repeat([0, 1], [10, positives])
    held = 0.0
    for right in range(positives + 1):
        share = binom.pmf(right, positives, truth)
        if share < 1e-9:
            continue
        given = np.where(labels == 1, 0.9, 0.1)
        given[10 + right :] = 0.2
        (found,) = estimate([Scorer(np.stack([1 - given, given], axis=1), labels, "binary")], resamples=20)
        low, high = found.intervals["sensitivity"]
        held += share * (low <= truth <= high)
    assert held >= 0.95


@pytest.mark.parametrize("labels", [np.array([0, 0, 0, 1, 1, 2]), np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0]])])
def test_every_stratum_keeps_its_size(labels):
    strata = strata_of(labels)
    weights = np.concatenate(list(resample_weights(strata, 200, 3)), axis=1)
    assert weights.shape == (len(labels), 200)
    for stratum in np.unique(strata):
        assert (weights[strata == stratum].sum(axis=0) == (strata == stratum).sum()).all()
    assert (weights[strata == strata[0]].std(axis=1) > 0).any()


def test_a_rare_label_is_never_lost():
    rng = np.random.default_rng(0)
    labels = (rng.random((100, 3)) < [0.6, 0.4, 0.02]).astype(np.int64)
    labels[:2, 2] = 1
    weights = np.concatenate(list(resample_weights(strata_of(labels), 500, 0)), axis=1)
    assert (weights[labels[:, 2] == 1].sum(axis=0) == labels[:, 2].sum()).all()


def test_resamples_are_a_function_of_the_seed_alone(monkeypatch):
    strata = np.arange(50) % 3
    first = np.concatenate(list(resample_weights(strata, 40, 7)), axis=1)
    monkeypatch.setattr(bootstrap, "_CHUNK_VALUES", 150)
    np.testing.assert_array_equal(np.concatenate(list(resample_weights(strata, 40, 7)), axis=1), first)
    assert (np.concatenate(list(resample_weights(strata, 40, 8)), axis=1) != first).any()


def test_undefined_metrics_have_no_interval():
    shown, labels = np.full((4, 3), 1 / 3), np.zeros(4, dtype=np.int64)
    found = estimate([Scorer(shown, labels, "multi-class")], resamples=50)[0]
    assert found.overall["auc"] is None
    assert found.intervals["auc"] is None
    assert found.per_class["sensitivity"] == [1.0, None, None]
    low, high = found.class_intervals["sensitivity"][0]
    assert (low, high) == (pytest.approx(0.025 ** (1 / 4)), 1)
    assert found.class_intervals["sensitivity"][1:] == [None, None]


def test_without_a_mistake_intervals_stay_open():
    labels = np.array([0, 1] * 20)
    shown = np.eye(2)[labels] * 0.5 + np.random.default_rng(0).random((40, 1)) * [[0.1, -0.1]] + 0.2
    perfect = Scorer(shown, labels, "binary")
    (found,) = estimate([perfect], resamples=50)
    assert found.overall["accuracy"] == found.overall["auc"] == 1
    of_class, of_all = 0.025 ** (1 / 20), 0.025 ** (1 / 40)  # Clopper and Pearson, by hand
    for name, low in {
        "accuracy": of_all,
        "auc": of_class,
        "average_precision": of_class,
        "sensitivity": of_class,
    }.items():
        assert found.intervals[name] == (pytest.approx(low), 1), name
    assert found.intervals["mcc"] == (pytest.approx(2 * of_all - 1), 1)
    assert found.intervals["balanced_accuracy"] == (pytest.approx(1 - (1 - of_class) / np.sqrt(2)), 1)
    jaccard = of_class
    assert found.class_intervals["f1"][0] == (pytest.approx(2 * jaccard / (1 + jaccard)), 1)
    assert found.intervals["log_loss"] is None, "nobody knows how large losses of wrong cases are"
    same = paired_differences([perfect], [perfect], resamples=50)
    assert (same["log_loss"].value, same["log_loss"].interval, same["log_loss"].p) == (0, None, None)
    assert same["auc"].interval is None
    assert same["accuracy"].interval == (
        pytest.approx(-1.96 * np.sqrt(2) / 42, abs=1e-4),
        pytest.approx(0.066, abs=1e-3),
    )
    shown[:3] = [[0.4, 0.6], [0.7, 0.3], [0.4, 0.6]]
    low, high = estimate([Scorer(shown, labels, "binary")], resamples=50)[0].intervals["log_loss"]
    assert low < high


def test_losses_of_a_good_and_a_worse_model_differ_although_those_of_one_are_too_few():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    sure = np.eye(2)[labels] * 0.9 + 0.05
    unsure = np.clip(sure + rng.normal(0, 0.5, (200, 1)) * [[1, -1]], 0.01, 0.99)
    one, other = Scorer(sure, labels, "binary"), Scorer(unsure, labels, "binary")
    assert estimate([one], 50)[0].intervals["brier"] is None
    gap = paired_differences([one], [other], 50)["brier"]
    losses = (sure[:, 1] - labels) ** 2 - (unsure[:, 1] - labels) ** 2
    strata = [losses[labels == k] for k in (0, 1)]
    error = np.sqrt(sum(each.var(ddof=1) * len(each) for each in strata)) / 200
    assert gap.interval == pytest.approx(t.interval(0.95, 199, losses.mean(), error))
    assert gap.p == pytest.approx(2 * t.sf(abs(losses.mean()) / error, 199))


def test_what_is_detectable_is_detected_in_four_of_five_samples():
    rng = np.random.default_rng(0)
    base, labels = simulated(rng, "binary", 300)
    one, other = (Scorer(base, labels, "binary"), Scorer(1 - base, labels, "binary"))
    assert paired_differences([one], [other], 50)["accuracy"].detectable < 0.2
    found, told = [], []
    for _ in range(200):  # the second is right 0.08 less often, apart from the first
        right = rng.random(300) < 0.9, rng.random(300) < 0.82
        pair = [Scorer(np.eye(2)[np.where(each, labels, 1 - labels)], labels, "binary") for each in right]
        gap = paired_differences(pair[:1], pair[1:], 2)["accuracy"]
        found.append(gap.detectable)
        told.append(gap.p < 0.05)
    assert np.median(found) == pytest.approx(0.08, abs=0.005)
    assert 0.7 < np.mean(told) < 0.9


@pytest.mark.parametrize(("count", "noise", "told"), [(200, 0.2, True), (30, 0.2, False), (200, 0.0, False)])
def test_rankings_of_few_cases_or_mistakes_are_not_compared(count, noise, told):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pair = []
    for scale in (1.0, 2.0):
        score = np.clip(0.2 + 0.6 * labels + rng.normal(0, noise * scale + 0.01, count), 0, 1)
        pair.append(Scorer(np.stack([1 - score, score], axis=1), labels, "binary"))
    gaps = paired_differences(pair[:1], pair[1:], 200)
    for name in ("auc", "average_precision"):
        gap = gaps[name]
        assert all((value is not None) == told for value in (gap.interval, gap.p, gap.detectable))
    drawn = np.concatenate(
        [
            pair[0](weights).overall["auc"] - pair[1](weights).overall["auc"]
            for weights in resample_weights(strata_of(labels), 200, 0)
        ]
    )
    if told:
        error = drawn.std() * np.sqrt(100 / 99)
        assert gaps["auc"].interval == pytest.approx(t.interval(0.95, 99, gaps["auc"].value, error))


def test_every_interval_says_how_it_was_made():
    shown, labels = simulated(np.random.default_rng(1), "ordinal", 200)
    (found,) = estimate([Scorer(shown, labels, "ordinal")], 100)
    assert found.methods == {
        "accuracy": "share",
        "balanced_accuracy": "mean",
        "auc": "mean",
        "average_precision": "mean",
        "f1_macro": "mean",
        "sensitivity": "mean",
        "specificity": "mean",
        "mcc": "effective",
        "brier": "skewed",
        "log_loss": "skewed",
        "kappa_quadratic": "effective",
        "mae": "skewed",
        "off_by_one": "share",
    }
    shown, labels = simulated(np.random.default_rng(1), "binary", 100)
    (found,) = estimate([Scorer(shown, labels, "binary")], 100)
    assert (found.methods["sensitivity"], found.methods["auc"]) == ("share", "effective")
    gaps = paired_differences([Scorer(shown, labels, "binary")], [Scorer(shown[:, ::-1], labels, "binary")], 100)
    assert [gaps[name].method for name in ("accuracy", "auc", "brier", "ece")] == ["paired", "error", "student", None]


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal", "multi-label"])
def test_shares_of_which_a_metric_is_the_mean_are_its_own(task):
    shown, labels = simulated(np.random.default_rng(3), task, 120)
    thresholds = np.array([0.3, 0.4, 0.5]) if task == "multi-label" else None
    scorer = Scorer(shown, labels, task, thresholds)
    values = scorer(np.ones((120, 1)))
    counted = scorer.counted
    assert {name for name in values.overall if name != "ece"} == set(counted.overall)
    for name, behind in counted.overall.items():
        if behind.right is not None:
            assert np.nanmean(behind.right, axis=1).mean() == pytest.approx(values.overall[name][0]), name
        if behind.values:
            mean = np.mean([values.per_class[each][k, 0] for each, k in behind.values])
            assert mean == pytest.approx(values.overall[name][0]), name
        if behind.losses is not None:
            assert behind.losses.mean() == pytest.approx(values.overall[name][0]), name
    for name, trials in counted.per_class.items():
        assert trials.cases.shape == values.per_class[name].shape[:1]
        if name.startswith(("sensitivity", "specificity", "precision")):  # whole numbers of cases
            hits = values.per_class[name][:, 0] * trials.cases
            np.testing.assert_allclose(hits, hits.round(), atol=1e-9)


def test_more_confidence_is_a_wider_interval():
    shown, labels = simulated(np.random.default_rng(1), "binary", 100)
    scorer = Scorer(shown, labels, "binary")
    narrow, wide = (estimate([scorer], 500, share)[0].intervals["accuracy"] for share in (0.8, 0.99))
    assert wide[0] < narrow[0] <= narrow[1] < wide[1]


def test_paired_differences_are_narrower_than_the_intervals_apart():
    rng = np.random.default_rng(0)
    shown, labels = simulated(rng, "multi-class", 400)
    noisy = shown + rng.normal(0, 0.02, shown.shape).clip(-0.05, 0.05) - 0.02 * np.eye(3)[labels]
    better, worse = Scorer(shown, labels, "multi-class"), Scorer(noisy, labels, "multi-class")
    found = paired_differences([better], [worse], resamples=500)["auc"]
    apart = [estimate([scorer], 500)[0].intervals["auc"] for scorer in (better, worse)]
    assert found.interval[1] - found.interval[0] < (apart[0][1] - apart[0][0]) / 2
    assert found.interval[0] > 0
    assert found.p < 0.05
    assert apart[0][0] < apart[1][1]  # the intervals themselves overlap, so they would not tell


def test_equal_models_do_not_differ():
    shown, labels = simulated(np.random.default_rng(0), "binary", 60)
    scorer = Scorer(shown, labels, "binary")
    found = paired_differences([scorer], [scorer], resamples=100)
    assert found["accuracy"].value == 0
    assert found["accuracy"].p == 1


def test_repetitions_are_averaged():
    rng = np.random.default_rng(0)
    one, labels = simulated(rng, "binary", 80)
    two = np.clip(one + rng.normal(0, 0.1, one.shape), 0, 1)
    first, second = Scorer(one, labels, "binary"), Scorer(two, labels, "binary")
    halves = paired_differences([first, second], [second], resamples=100)["brier"].value
    assert halves == pytest.approx(paired_differences([first], [second], resamples=100)["brier"].value / 2)


def test_other_cases_cannot_be_compared():
    one, two = (Scorer(*simulated(np.random.default_rng(0), "binary", count), "binary") for count in (40, 42))
    with pytest.raises(ValueError, match="same cases"):
        paired_differences([one], [two])
