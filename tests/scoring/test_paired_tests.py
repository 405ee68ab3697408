"""Tests of two models on the same cases: against the formulas as they are written, and under the null hypothesis."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import roc_auc_score

from visionforge.scoring.paired_tests import area_difference, components, holm, mcnemar


def by_pairs(one, other, truth):
    """Return the difference of two AUCs and its variance, pair by pair as DeLong et al. (1988) write it."""
    areas, parts = [], []
    for scores in (one, other):
        positive, negative = scores[truth == 1], scores[truth == 0]
        psi = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in negative] for x in positive]
        m, n = len(positive), len(negative)
        areas.append(sum(map(sum, psi)) / (m * n))
        parts.append(([sum(row) / n for row in psi], [sum(psi[i][j] for i in range(m)) / m for j in range(n)]))
    variance = 0.0
    for side, size in ((0, int(truth.sum())), (1, int((1 - truth).sum()))):
        covariance = np.cov(parts[0][side], parts[1][side])
        variance += (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / size
    return areas[0] - areas[1], variance


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("m", "n"), [(2, 3), (15, 40), (40, 15)])
def test_delong_is_that_of_all_pairs(ties, m, n):
    rng = np.random.default_rng(m)
    truth = rng.permutation(np.repeat([1, 0], [m, n]))
    one, other = rng.normal(size=(2, m + n)) + truth
    if ties:
        one, other = one.round(), other.round()
    value, variance = by_pairs(one, other, truth)
    found = area_difference(one[None], other[None], truth)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.value == pytest.approx(roc_auc_score(truth, one) - roc_auc_score(truth, other), abs=1e-12)
    assert found.error == pytest.approx(np.sqrt(variance), abs=1e-12)
    z = value / np.sqrt(variance)
    assert found.p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)
    assert found.interval(0.9) == pytest.approx(norm.interval(0.9, value, np.sqrt(variance)))
    turned = area_difference(other[None], one[None], truth)
    assert (turned.value, turned.p) == (pytest.approx(-value), pytest.approx(found.p))


def test_components_average_to_the_auc_and_do_not_depend_on_the_scale():
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3 == 0
    scores = rng.normal(size=(3, 60)) + truth
    areas = [roc_auc_score(truth, row) for row in scores]
    for part in components(scores, truth):
        np.testing.assert_allclose(part.mean(axis=1), areas)
    np.testing.assert_array_equal(components(scores, truth)[0], components(np.exp(scores), truth)[0])


def test_repetitions_are_averaged_with_their_covariance():
    """The contrast L S L' of DeLong et al. (1988), equation 5, with the covariance of all models."""
    rng = np.random.default_rng(1)
    truth = np.repeat([1, 0], [30, 50])
    scores = rng.normal(size=(5, 80)) + truth + rng.normal(size=80)
    covariance = sum(np.cov(part) / part.shape[1] for part in components(scores, truth))
    contrast = np.array([1 / 3, 1 / 3, 1 / 3, -1 / 2, -1 / 2])
    found = area_difference(scores[:3], scores[3:], truth)
    areas = [roc_auc_score(truth, row) for row in scores]
    assert found.value == pytest.approx(contrast @ areas)
    assert found.error == pytest.approx(np.sqrt(contrast @ covariance @ contrast))


def test_models_that_rank_alike_and_those_without_an_error():
    truth = np.repeat([1, 0], [20, 20])
    scores = np.random.default_rng(0).normal(size=(1, 40)) + truth
    same = area_difference(scores, 3 * scores + 1, truth)
    assert (same.value, same.error, same.p, same.interval(0.95)) == (0, 0, 1, None)
    apart = area_difference(truth[None].astype(float), np.zeros((1, 40)), truth)
    assert (apart.value, apart.error, apart.p, apart.interval(0.95)) == (0.5, 0, None, None)
    assert area_difference(scores, scores, np.r_[1, np.zeros(39)]) is None
    assert area_difference(scores, scores, np.zeros(40)) is None


@pytest.mark.parametrize("one", range(0, 40, 3))
@pytest.mark.parametrize("other", [0, 1, 7, 400])
def test_mcnemar_is_the_mid_p_of_the_exact_binomial_test(one, other):
    both = one + other
    exact = binomtest(min(one, other), both, 0.5).pvalue if both else 1.0
    mid = exact if one == other else exact - binom.pmf(min(one, other), both, 0.5)
    if one == other:
        mid = 1.0
    assert mcnemar(one, other) == mcnemar(other, one) == pytest.approx(mid, rel=1e-9)


def test_mcnemar_of_many_pairs_is_that_of_the_normal_distribution():
    assert mcnemar(5_200, 4_800) == pytest.approx(2 * norm.sf(400 / np.sqrt(10_000)), rel=0.01)
    assert 0 <= mcnemar(0, 5_000) < 1e-300


def test_holm_by_hand():
    assert holm([0.02, 0.01, 0.5]) == [0.04, 0.03, 0.5]
    assert holm([0.03, 0.02, 0.04]) == [0.06, 0.06, 0.06], "they never fall below those of smaller p-values"
    assert holm([0.6, None, 0.9]) == [1.0, None, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_keeps_the_error_of_the_family():
    rng = np.random.default_rng(0)
    rejected = [min(holm(rng.random(5))) < 0.05 for _ in range(4_000)]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.012)


@pytest.mark.slow
@pytest.mark.parametrize(("positives", "negatives"), [(20, 200), (50, 50), (100, 100)])
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_delong_keeps_its_level(positives, negatives, shared):
    rng = np.random.default_rng(7)
    truth = np.repeat([1, 0], [positives, negatives])
    rejected = 0
    for _ in range(2_000):
        common = np.sqrt(shared) * rng.normal(size=len(truth)) + 1.5 * truth
        one, other = common + np.sqrt(1 - shared) * rng.normal(size=(2, len(truth)))
        rejected += area_difference(one[None], other[None], truth).p < 0.05
    assert rejected / 2_000 <= 0.07


@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.1, 0.1), (0.25, 0.25)])
@pytest.mark.parametrize("cases", [30, 100, 400])
def test_mcnemar_keeps_its_level(cases, shares):
    """By the multinomial distribution of the pairs in which one model alone is right, not by simulation."""
    either = sum(shares)
    rejected = 0.0
    for both in range(cases + 1):
        weight = binom.pmf(both, cases, either)
        if weight > 1e-12:
            one = np.arange(both + 1)
            small = [mcnemar(int(each), int(both - each)) < 0.05 for each in one]
            rejected += weight * binom.pmf(one, both, 0.5)[small].sum()
    assert rejected <= 0.0501
