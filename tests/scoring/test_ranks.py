"""Ranks of methods over data sets, against SciPy's test and the worked example of Demšar (2006)."""

import numpy as np
import pytest
from scipy import stats

from visionforge.scoring.ranks import average_ranks, cliques, critical_difference, friedman, ranked


@pytest.fixture
def values():
    generator = np.random.default_rng(3)
    return np.round(generator.random((9, 4)) + np.array([0.0, 0.1, 0.5, 0.45]), 1)  # with ties


def test_friedmans_statistic_is_scipys_also_with_ties(values):
    expected = stats.friedmanchisquare(*values.T)
    assert friedman(values) == pytest.approx((expected.statistic, expected.pvalue))
    assert friedman(np.ones((6, 3))) == (0.0, 1.0)


def test_critical_differences_are_those_of_the_paper():
    # Demšar (2006), table 5(a): critical values of the two-tailed Nemenyi test, alpha 0.05 and 0.10
    for methods, at_95, at_90 in ((2, 1.960, 1.645), (5, 2.728, 2.459), (10, 3.164, 2.920)):
        unit = np.sqrt(methods * (methods + 1) / (6 * 12))
        assert critical_difference(methods, 12) / unit == pytest.approx(at_95, abs=0.001)
        assert critical_difference(methods, 12, 0.90) / unit == pytest.approx(at_90, abs=0.001)


def test_the_best_has_rank_one_and_equals_share(values):
    assert average_ranks(values).argmin() == values.mean(axis=0).argmax()
    assert average_ranks(values, higher_is_better=False).argmax() == values.mean(axis=0).argmax()
    assert average_ranks(np.array([[1.0, 1.0, 0.0]])).tolist() == [1.5, 1.5, 3.0]


def test_cliques_are_as_large_as_they_can_be():
    assert cliques([1.0, 2.0, 3.0, 9.0], 1.5) == [(0, 1), (1, 2)]
    assert cliques([3.0, 1.0, 2.0], 5.0) == [(1, 2, 0)]
    assert cliques([1.0, 5.0, 9.0], 0.5) == []


def test_pairs_are_wilcoxons_and_adjusted_for_their_number(values):
    found = ranked(values)
    assert len(found.pairs) == 6
    for pair in found.pairs:
        expected = stats.wilcoxon(values[:, pair.one] - values[:, pair.other], zero_method="zsplit").pvalue
        assert pair.p == pytest.approx(expected)
        assert pair.p <= pair.p_holm <= 1
    assert min(pair.p for pair in found.pairs) * 6 == pytest.approx(min(pair.p_holm for pair in found.pairs))


def test_too_few_data_sets_are_refused(values):
    with pytest.raises(ValueError, match="4 data sets and 4 methods are too few"):
        ranked(values[:4])
    with pytest.raises(ValueError, match="too few"):
        ranked(values[:, :2])
