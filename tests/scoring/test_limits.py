"""Limits are those of scipy, of published formulas, or of a loop in float64."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from visionforge.scoring.clusters import Clusters, narrowed
from visionforge.scoring.limits import (
    Trials,
    clopper_pearson,
    correlations,
    floor_error,
    grouped_cases,
    loss_limits,
    mean_error,
    mean_limits,
    paired_error,
    share_limits,
)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("cases", [1, 7, 40, 1000])
def test_shares_have_the_exact_limits_of_scipy(cases, confidence):
    for right in sorted({0, 1, cases // 2, max(0, cases - 1), cases}):
        low, high = clopper_pearson(np.array([right / cases]), np.array([float(cases)]), confidence)
        expected = binomtest(right, cases).proportion_ci(confidence, "exact")
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_shares_of_no_case_have_none():
    low, high = clopper_pearson(np.array([np.nan, 0.5]), np.array([3.0, 0.0]), 0.95)
    assert np.isnan([*low, *high]).all()


def test_f1_follows_from_the_share_of_right_cases():
    hits, wrong = 18, 6
    f1 = 2 * hits / (2 * hits + wrong)
    low, high = share_limits(np.array([f1]), np.zeros((1, 2)), Trials(np.array([24.0]), jaccard=True), 0.95)
    expected = binomtest(hits, hits + wrong).proportion_ci(0.95, "exact")
    assert low[0] == pytest.approx(2 * expected.low / (1 + expected.low))
    assert high[0] == pytest.approx(2 * expected.high / (1 + expected.high))


def test_what_varies_like_a_share_of_fewer_cases_has_its_limits():
    rng = np.random.default_rng(0)
    drawn = rng.binomial(50, 0.8, (1, 200_000)) / 50
    found = share_limits(np.array([0.8]), drawn, Trials(np.array([20.0]), np.array([1000.0])), 0.95)
    expected = clopper_pearson(np.array([0.8]), np.array([50.0]), 0.95)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    bounded = share_limits(np.array([0.8]), drawn, Trials(np.array([20.0]), np.array([30.0])), 0.95)
    np.testing.assert_allclose(bounded, clopper_pearson(np.array([0.8]), np.array([30.0]), 0.95))
    at_one = share_limits(np.array([1.0]), np.ones((1, 10)), Trials(np.array([20.0]), np.array([30.0])), 0.95)
    np.testing.assert_allclose(at_one, clopper_pearson(np.array([1.0]), np.array([20.0]), 0.95))


def test_a_mean_is_between_independent_and_equal_values():
    values, low, high = np.array([0.9, 0.7]), np.array([0.8, 0.6]), np.array([0.95, 0.85])
    many = np.array([1e6, 1e6])
    apart, equal = (mean_limits(values, low, high, np.array([[1, r], [r, 1]]), many, 0.95) for r in (0.0, 1.0))
    assert apart == pytest.approx((0.8 - np.hypot(0.05, 0.05), 0.8 + np.hypot(0.025, 0.075)))
    assert equal == pytest.approx((0.7, 0.9))
    alone = mean_limits(values[:1], low[:1], high[:1], np.ones((1, 1)), many[:1], 0.95)
    assert alone == pytest.approx((0.8, 0.95))
    wide = mean_limits(values, low, high, np.eye(2), np.array([10.0, 40.0]), 0.95)
    assert wide == pytest.approx(
        [end[0] for end in clopper_pearson(np.array([0.8]), np.array([4 / (1 / 10 + 1 / 40)]), 0.95)]
    )


def test_correlations_are_those_of_numpy():
    drawn = np.random.default_rng(0).normal(size=(3, 500))
    drawn[1] += drawn[0]
    np.testing.assert_allclose(correlations(drawn, 1.0), np.corrcoef(drawn), atol=1e-12)
    drawn[2] = 0.5
    for unknown in (0.0, 1.0):
        found = correlations(drawn, unknown)
        assert found[2].tolist() == [unknown, unknown, 1.0]
    assert np.isfinite(correlations(np.full((2, 5), np.nan), 1.0)).all()


@pytest.mark.parametrize(("only_one", "only_other", "cases"), [(0, 0, 38), (5, 1, 100), (30, 10, 60)])
def test_paired_shares_have_the_limits_of_bonett_and_price(only_one, only_other, cases):
    gaps = np.zeros((1, cases))
    gaps[0, :only_one] = 1
    gaps[0, only_one : only_one + only_other] = -1
    value, error = paired_error(gaps)
    first, second = (only_one + 1) / (cases + 2), (only_other + 1) / (cases + 2)
    assert value == pytest.approx(first - second)
    assert error == pytest.approx(np.sqrt((first + second - (first - second) ** 2) / (cases + 2)))
    if not only_one:
        assert error == pytest.approx(floor_error(np.array([float(cases)])))


def test_paired_shares_of_other_cases_add_their_variances():
    rng = np.random.default_rng(0)
    gaps = np.full((2, 90), np.nan)
    gaps[0, :30] = rng.integers(-1, 2, 30)
    gaps[1, 30:] = rng.integers(-1, 2, 60)
    each = [paired_error(row[None]) for row in gaps]
    value, error = paired_error(gaps)
    assert value == pytest.approx(np.mean([one for one, _ in each]))
    assert error == pytest.approx(np.hypot(each[0][1], each[1][1]) / 2)


def test_shares_of_the_same_cases_that_cancel_out_have_a_width():
    gaps = np.array([[1.0] * 30, [-1.0] * 30])
    value, error = paired_error(gaps)
    assert value == pytest.approx(0)
    assert error == pytest.approx(floor_error(np.array([30.0, 30.0])))


def test_losses_without_skewness_have_students_limits():
    losses = np.r_[np.arange(1.0, 41), 20.5]
    strata = np.zeros(41, np.int64)
    expected = t.interval(0.9, 40, losses.mean(), losses.std(ddof=1) / np.sqrt(41))
    np.testing.assert_allclose(loss_limits(losses, strata, 0.9), expected)
    two = np.arange(41) % 2
    variance = sum(losses[two == k].var(ddof=1) * (two == k).sum() for k in (0, 1)) / 41**2
    assert mean_error(losses, two) == pytest.approx(np.sqrt(variance))
    assert np.isnan(loss_limits(np.ones(41), strata, 0.9)).all()


def test_limits_of_skewed_losses_reach_further_up_and_invert_halls_transformation():
    losses = np.random.default_rng(0).exponential(size=60)
    low, high = loss_limits(losses, np.zeros(60, np.int64), 0.95)
    assert high - losses.mean() > losses.mean() - low > 0
    skewness = ((losses - losses.mean()) ** 3).mean() / losses.std() ** 3 / np.sqrt(60)
    for end, sign in ((low, 1), (high, -1)):
        z = (losses.mean() - end) / (losses.std(ddof=1) / np.sqrt(60))
        transformed = z + skewness * z**2 / 3 + skewness**2 * z**3 / 27 + skewness / 6
        assert transformed == pytest.approx(sign * t.ppf(0.975, 59))
    assert norm.ppf(0.975) < t.ppf(0.975, 59)


def test_limits_of_a_share_of_groups_hold_the_truth():
    """Images of a patient are right or wrong together: as many groups, of one to eight images, as a test split has."""
    rng = np.random.default_rng(0)
    truth, held, plain, runs = 0.9, 0, 0, 600
    for _ in range(runs):
        sizes = rng.integers(1, 9, 40)
        chance = rng.beta(truth * 1.5, (1 - truth) * 1.5, 40)
        right = np.concatenate([rng.random(size) < p for size, p in zip(sizes, chance, strict=True)])
        cases = grouped_cases(right, Clusters(np.repeat(np.arange(40), sizes)), 0.95)
        for count, kind in ((cases, "grouped"), (float(len(right)), "plain")):
            low, high = clopper_pearson(np.array([right.mean()]), np.array([count]), 0.95)
            inside = bool(low[0] <= truth <= high[0])
            held, plain = (held + inside, plain) if kind == "grouped" else (held, plain + inside)
    assert held / runs > 0.92  # 0.937 here, where most patients are right or wrong in all images
    assert plain / runs < 0.90  # as if each image stood for itself


def test_effective_cases_of_groups_have_bounds():
    alone = np.arange(30)
    right = np.arange(30) % 3 > 0
    assert grouped_cases(right, Clusters(alone), 0.95) == pytest.approx(
        30 * narrowed(np.array([30.0]), 0.95)[0], rel=0.05
    )
    pairs = Clusters(np.repeat(np.arange(15), 2))
    assert grouped_cases(np.ones(30, bool), pairs, 0.95) == pytest.approx(15 * narrowed(np.array([15.0]), 0.95)[0])
    assert grouped_cases(np.ones(30, bool), Clusters(np.zeros(30)), 0.95) == 0
