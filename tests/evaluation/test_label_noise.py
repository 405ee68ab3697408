"""Confident learning: equal to cleanlab's, and to the paper's definition; wrong labels that were put in are found."""

import numpy as np
import pytest

from visionforge.config.schema.tasks import task_named
from visionforge.errors import RunError
from visionforge.evaluation.fold_table import read_fold_table
from visionforge.evaluation.label_noise import (
    calibrated_joint,
    class_thresholds,
    confident_joint,
    label_noise,
    normalised_margin,
    prune_by_class,
    prune_by_noise_rate,
    rounded_rows,
    self_confidence,
)


def noisy(seed, noise=0.15, strength=None):
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(2, 7)), int(rng.integers(150, 700))
    true = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), true] += strength or rng.uniform(1, 4)
    said = np.exp(logits)
    said /= said.sum(axis=1, keepdims=True)
    wrong = rng.random(count) < noise
    given = np.where(wrong, (true + rng.integers(1, classes, count)) % classes, true)
    return given, said, wrong


@pytest.mark.parametrize("seed", range(8))
def test_it_is_that_of_cleanlab(seed):
    count, rank = pytest.importorskip("cleanlab.count"), pytest.importorskip("cleanlab.rank")
    find = pytest.importorskip("cleanlab.filter").find_label_issues
    given, said, _ = noisy(seed)
    classes = said.shape[1]
    judged = np.ones(classes, bool)
    np.testing.assert_allclose(class_thresholds(given, said, judged), count.get_confident_thresholds(given, said))
    counts = confident_joint(given, said, judged)
    np.testing.assert_array_equal(counts, count.compute_confident_joint(given, said, calibrate=False))
    joint = calibrated_joint(counts, np.bincount(given, minlength=classes))
    theirs = count.compute_confident_joint(given, said)
    np.testing.assert_allclose(joint, theirs, atol=1)  # which are rounded; equal remainders are rounded either way
    whole = rounded_rows(joint)
    np.testing.assert_array_equal(whole.sum(axis=1), theirs.sum(axis=1))
    for ours, name in ((prune_by_noise_rate, "prune_by_noise_rate"), (prune_by_class, "prune_by_class")):
        issues = find(given, said, filter_by=name, n_jobs=1, confident_joint=whole)
        np.testing.assert_array_equal(ours(given, said, whole), issues)
    for score, name in ((self_confidence, "self_confidence"), (normalised_margin, "normalized_margin")):
        np.testing.assert_allclose(score(given, said), rank.get_label_quality_scores(given, said, method=name))


def test_the_confident_joint_is_that_of_the_paper():
    given, said, _ = noisy(3)
    classes = said.shape[1]
    means = [said[given == k, k].mean() for k in range(classes)]
    expected = np.zeros((classes, classes), dtype=int)
    for label, row in zip(given, said, strict=True):
        reached = [k for k in range(classes) if row[k] >= means[k]]
        if reached:
            expected[label, max(reached, key=lambda k: row[k])] += 1
    np.testing.assert_array_equal(confident_joint(given, said, np.ones(classes, bool)), expected)


def test_wrong_labels_are_found_and_counted():
    given, said, wrong = noisy(1, strength=6)
    found = label_noise(given, said, resamples=200)
    assert found.suspicious[wrong].mean() > 0.7
    assert wrong[found.suspicious].mean() > 0.7
    low, high = found.rate_interval
    assert low < found.rate < high
    assert found.quality[wrong].mean() < found.quality[~wrong].mean()
    assert label_noise(given, said, resamples=0).rate_interval is None
    other = label_noise(given, said, resamples=200, seed=1).rate_interval
    assert other != found.rate_interval


def test_a_class_of_few_images_is_not_judged():
    given, said, _ = noisy(1)
    given[given == 0] = 1
    given[:3] = 0
    found = label_noise(given, said, resamples=10)
    assert not found.judged[0]
    assert found.class_intervals[0] is None
    assert np.isnan(found.class_rates[0])
    assert not found.suspicious[:3].any()
    assert not (found.suggested == 0).any()


def test_nothing_found_still_leaves_room():
    given = np.repeat([0, 1], 30)
    found = label_noise(given, np.eye(2)[given] * 0.8 + 0.1, resamples=50)
    assert found.rate == 0
    assert found.rate_interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 60)))


# --- the table


GOOD = "split,index,name,truth,probability_cat,probability_dog\ntrain,0,a,cat,0.9,0.1\nval,3,b,dog,0.2,0.8\n"


def test_a_table_is_read_whatever_its_order(tmp_path):
    path = tmp_path / "out_of_fold.csv"
    path.write_text(GOOD)
    table = read_fold_table(path, task_named("binary"), ("dog", "cat"))
    assert table.labels.tolist() == [1, 0]
    assert table.probabilities.tolist() == [[0.1, 0.9], [0.8, 0.2]]
    assert table.present == ("train", "val")
    assert table.of(["val"]).names == ("b",)


def test_labels_of_several_are_joined(tmp_path):
    path = tmp_path / "out_of_fold.csv"
    path.write_text("split,index,truth,probability_a,probability_b\ntrain,0,a|b,0.9,0.9\ntrain,1,,0.2,0.8\n")
    assert read_fold_table(path, task_named("multi-label"), ("a", "b")).labels.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("0.9,0.1", "nan,0.1", "no numbers"),
        ("0.9,0.1", "1.9,-0.9", "outside of 0 to 1"),
        ("0.9,0.1", "0.9,0.9", "do not add up"),
        ("0.9,0.1", "x,0.1", "could not convert"),
        ("cat,0.9", "owl,0.9", "label owl is unknown"),
        ("val,3", "train,0", "more than once"),
        ("val,3", "vla,3", "split 'vla' is unknown"),
        ("val,3", "val,-3", "no position"),
        ("val,3", "val,99999999999999", "no position"),
        (",0.1\n", "\n", "has 5 cells"),
        ("truth", "index", "more than once"),
        ("truth", "other", "no column truth"),
        ("probability_cat", "probability_owl", "classes of the data set"),
        (GOOD, "", "no column"),
        (GOOD[GOOD.index("train") :], "", "no rows"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, before, after, complaint):
    path = tmp_path / "out_of_fold.csv"
    path.write_text(GOOD.replace(before, after, 1))
    with pytest.raises(RunError, match=complaint) as caught:
        read_fold_table(path, task_named("binary"), ("cat", "dog"))
    assert len(caught.value.problems) == 1


def test_a_table_has_bounds(tmp_path, monkeypatch):
    path = tmp_path / "out_of_fold.csv"
    path.write_text(GOOD)
    for name in ("MOST_VALUES", "MOST_TEXT", "MAX_PREDICTIONS_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(f"visionforge.evaluation.fold_table.{name}", 3)
            with pytest.raises(RunError, match=r"more than 3|larger than 3"):
                read_fold_table(path, task_named("binary"), ("cat", "dog"))
