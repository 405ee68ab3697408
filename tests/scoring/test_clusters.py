"""Cases that were drawn in whole groups: how many they count, and intervals that hold the truth."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from visionforge.evaluation.bootstrap import estimate, paired_differences, resample_weights
from visionforge.evaluation.scores import Scorer
from visionforge.metrics import classification_intervals
from visionforge.metrics import paired_differences as public_differences
from visionforge.scoring.clusters import Clusters, narrowed
from visionforge.scoring.limits import mean_error, paired_error


def test_equal_groups_count_as_one_case_each_at_least():
    groups = Clusters(np.repeat(["a", "b", "c", "d"], 5))
    assert groups.count == 4
    assert groups.least_effective(np.ones((20, 1))).tolist() == [4.0]
    marked = np.zeros((20, 2), bool)
    marked[:7, 0] = True
    assert groups.least_effective(marked).tolist() == [pytest.approx(49 / (25 + 4)), 0.0]
    assert groups.present(marked).tolist() == [2.0, 0.0]


def test_groups_of_one_case_have_the_error_of_cases():
    rng = np.random.default_rng(0)
    losses = rng.gamma(2.0, size=50)
    alone = Clusters(np.arange(50))
    zeros = np.zeros(50, np.int64)
    assert mean_error(alone.means(losses), zeros) == pytest.approx(mean_error(losses, zeros))
    gaps = rng.integers(-1, 2, (1, 50)).astype(float)
    assert paired_error(gaps, alone)[1] == pytest.approx(paired_error(gaps)[1], rel=0.1)


def test_standard_error_of_a_mean_over_groups_is_that_of_the_ratio_of_their_sums():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 12, 90)
    codes[:12] = np.arange(12)
    losses = rng.gamma(2.0, size=90) + rng.normal(size=12)[codes] ** 2
    sums, sizes = np.bincount(codes, losses), np.bincount(codes)
    ratio = sums.sum() / sizes.sum()
    expected = np.sqrt(12 / 11 * ((sums - ratio * sizes) ** 2).sum()) / sizes.sum()  # Cochran (1977), section 6.3
    groups = Clusters(codes)
    assert groups.means(losses).mean() == pytest.approx(losses.mean())
    assert mean_error(groups.means(losses), np.zeros(12, np.int64)) == pytest.approx(expected)


def test_groups_are_drawn_whole_within_the_rarest_class_that_they_have():
    codes = np.repeat(np.arange(8), 3)
    labels = np.where(codes < 2, 1, 0)  # two groups of the rare class
    groups = Clusters(codes)
    for weights in resample_weights(labels, 200, 0, groups):
        assert (weights.reshape(8, 3, -1).std(axis=1) == 0).all()
        assert (weights[:6].sum(axis=0) == 6).all()  # never without it
    assert groups.strata(np.where(codes == 7, 1, labels)).tolist()[:2] == groups.strata(labels).tolist()[:2]


def test_a_stratum_of_one_group_goes_with_the_largest():
    codes = np.repeat(np.arange(6), 2)
    strata = Clusters(codes).strata(np.where(codes == 0, 1, 0))
    assert len(np.unique(strata)) == 1


def test_few_groups_make_intervals_wider():
    assert narrowed(np.array([1e6]), 0.95)[0] == pytest.approx(1.0, abs=1e-4)
    assert narrowed(np.array([2.0, 10.0, 1.0]), 0.95).tolist() == pytest.approx([0.0238, 0.7507, 0.0], abs=1e-3)


def test_nothing_but_hits_has_limits_of_as_many_cases_as_groups():
    labels, codes = np.tile([0, 1], 60), np.repeat(np.arange(20), 6)
    shown = np.eye(2)[labels] * 0.8 + 0.1
    (found,) = estimate([Scorer(shown, labels, "binary", clusters=Clusters(codes))], 100)
    low, high = found.intervals["accuracy"]
    assert high == 1.0
    cases = 20 * narrowed(np.array([20.0]), 0.95)[0]
    assert low == pytest.approx(0.025 ** (1 / cases), abs=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
def test_intervals_of_groups_hold_the_truth_where_those_of_cases_do_not(mixed):
    rng = np.random.default_rng(4)

    def draw(groups):
        codes = np.repeat(np.arange(groups), 1 + rng.poisson(7, groups))
        labels = rng.integers(0, 2, len(codes)) if mixed else (np.arange(groups) % 2)[codes]
        logit = 1.5 * (2 * labels - 1) + rng.normal(size=len(codes)) + 1.4 * rng.normal(size=groups)[codes]
        given = 1 / (1 + np.exp(-logit))
        return np.stack([1 - given, given], axis=1), labels, codes

    shown, labels, _ = draw(60_000)
    truth = {name: each[0] for name, each in Scorer(shown, labels, "binary")(np.ones((len(labels), 1))).overall.items()}
    held = {name: [[], []] for name in ("accuracy", "sensitivity", "auc", "brier")}
    for number in range(120):
        shown, labels, codes = draw(40)
        for place, clusters in enumerate((Clusters(codes), None)):
            (found,) = estimate([Scorer(shown, labels, "binary", clusters=clusters)], 200, 0.9, number)
            for name, sides in held.items():
                ends = found.intervals[name]
                sides[place].append(ends is not None and ends[0] <= truth[name] <= ends[1])
    for name, (grouped, alone) in held.items():
        assert np.mean(grouped) >= 0.82, name
        assert np.mean(grouped) >= np.mean(alone) - 0.02, name
    if not mixed:
        assert np.mean(held["accuracy"][1]) < 0.75


def test_differences_of_two_models_take_groups_whole():
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(30), 8)
    labels = np.tile([0, 1], 120)
    better = rng.random(30)[codes] < 0.5  # one model is right in whole groups
    one = np.eye(2)[np.where(better | (rng.random(240) < 0.7), labels, 1 - labels)] * 0.8 + 0.1
    other = np.eye(2)[np.where(rng.random(240) < 0.7, labels, 1 - labels)] * 0.8 + 0.1
    alone = public_differences(one, other, labels, resamples=300)
    whole = public_differences(one, other, labels, groups=codes, resamples=300)
    for name in ("accuracy", "sensitivity", "brier", "mcc"):
        assert np.ptp(whole[name].interval) > np.ptp(alone[name].interval), name
        assert whole[name].p > alone[name].p, name
    few = public_differences(one, other, labels, groups=codes // 6, resamples=300)
    assert few["accuracy"].interval is None


def test_functions_refuse_groups_of_another_length_and_models_of_other_groups():
    labels = np.tile([0, 1], 30)
    shown = np.eye(2)[labels] * 0.8 + 0.1
    with pytest.raises(ValueError, match=r"groups: \(3,\); allowed: \(60,\)"):
        classification_intervals(shown, labels, groups=[1, 2, 3])
    wide = classification_intervals(shown, labels, groups=np.repeat(np.arange(12), 5), resamples=50)
    assert (
        wide.intervals["accuracy"][0] < classification_intervals(shown, labels, resamples=50).intervals["accuracy"][0]
    )
    one = Scorer(shown, labels, "binary", clusters=Clusters(np.repeat(np.arange(12), 5)))
    with pytest.raises(ValueError, match="same groups"):
        paired_differences([one], [Scorer(shown, labels, "binary")], 20)


def test_cases_are_ranked_among_those_of_their_own_network():
    rng = np.random.default_rng(6)
    labels, folds = rng.integers(0, 2, 90), np.repeat([0, 1, 2], 30)
    logit = (2 * labels - 1) + rng.normal(size=90)
    shifted = 1 / (1 + np.exp(-(logit + 4.0 * (folds - 1))))  # networks that are sure of different things
    shown = np.stack([1 - shifted, shifted], axis=1)
    whole, within = (Scorer(shown, labels, "binary", folds=each)(np.ones((90, 1))) for each in (None, folds))
    pairs = np.array([(labels[folds == f] == 1).sum() * (labels[folds == f] == 0).sum() for f in range(3)])
    areas = [roc_auc_score(labels[folds == f], shifted[folds == f]) for f in range(3)]
    assert within.overall["auc"][0] == pytest.approx(np.average(areas, weights=pairs))
    assert within.overall["auc"][0] > whole.overall["auc"][0] + 0.05
    positives = [(labels[folds == f] == 1).sum() for f in range(3)]
    precisions = [average_precision_score(labels[folds == f], shifted[folds == f]) for f in range(3)]
    assert within.overall["average_precision"][0] == pytest.approx(np.average(precisions, weights=positives))
    assert within.overall["accuracy"][0] == whole.overall["accuracy"][0]
