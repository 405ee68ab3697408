"""Every metric is scikit-learn's, on random and on degenerate cases, for every task; weights are repetitions."""

import warnings

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn import metrics as sk

from visionforge.evaluation.metrics import classification_metrics
from visionforge.evaluation.scores import HIGHER_IS_BETTER, Scorer
from visionforge.scoring.builtin.probabilities import bin_of

TASKS = ("binary", "multi-class", "ordinal", "multi-label")
KINDS = ("random", "absent", "ties", "one case", "perfect", "constant", "one class", "saturated")


def cases(task: str, kind: str, seed: int = 0):
    """Return float32 probabilities and labels of one kind."""
    rng = np.random.default_rng(seed)
    count, classes = (1 if kind == "one case" else 300), (2 if task == "binary" else 5)
    if task == "multi-label":
        labels = (rng.random((count, classes)) < 0.3).astype(np.int64)
        shown = 1 / (1 + np.exp(-(rng.normal(size=(count, classes)) + 1.5 * labels - 1)))
        if kind == "absent":
            labels[:, 2] = 0
        if kind == "one class":
            labels[:] = 0
        if kind == "perfect":
            shown = np.where(labels, 0.9, 0.1)
    else:
        labels = rng.integers(0, classes, count)
        if kind == "absent":
            labels[labels == classes - 1] = 0
        if kind == "one class":
            labels[:] = 1
        logits = rng.normal(size=(count, classes))
        logits[np.arange(count), labels] += 30 if kind == "perfect" else 1
        shown = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if kind == "ties":
        shown = np.round(shown, 1)
    if kind == "constant":
        shown[:] = shown[0]
    if kind == "saturated":
        shown = np.round(shown)
    return shown.astype(np.float32), labels


def binary_reference(truth, score, said):
    """Return scikit-learn's metrics of one class against the rest; undefined ones are None."""
    both = 0 < truth.sum() < len(truth)
    return {
        "auc": sk.roc_auc_score(truth, score) if both else None,
        "average_precision": sk.average_precision_score(truth, score) if both else None,
        "f1": sk.f1_score(truth, said, zero_division=0) if truth.any() else None,
        "sensitivity": sk.recall_score(truth, said) if truth.any() else None,
        "specificity": sk.recall_score(1 - truth, 1 - said) if not truth.all() else None,
        "precision": sk.precision_score(truth, said) if said.any() else None,
    }


def mean(values):
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def loop_calibration_error(confidence, right):
    """Expected calibration error as Guo et al. write it, bin by bin."""
    error = 0.0
    for k in range(15):
        low, high = k / 15, (k + 1) / 15
        inside = (confidence > low) & (confidence <= high) | ((k == 0) & (confidence <= low))
        if inside.any():
            error += inside.sum() * abs(confidence[inside].mean() - right[inside].mean())
    return error / len(confidence)


def reference(shown, labels, task, positive=1):
    """Return overall and per-class metrics from scikit-learn, and plain sums where it has none."""
    exact = shown.astype(np.float64)
    if task == "multi-label":
        said = (shown > 0.5).astype(np.int64)
        each = [binary_reference(labels[:, k], exact[:, k], said[:, k]) for k in range(shown.shape[1])]
        both = [k for k in range(shown.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
        clipped = exact.clip(np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps)
        overall = {
            "accuracy": np.mean([sk.accuracy_score(labels[:, k], said[:, k]) for k in range(shown.shape[1])]),
            "exact_match": sk.accuracy_score(labels, said),
            "balanced_accuracy": mean([sk.balanced_accuracy_score(labels[:, k], said[:, k]) for k in both]),
            "mcc": mean([sk.matthews_corrcoef(labels[:, k], said[:, k]) for k in both]),
            "brier": np.mean([sk.mean_squared_error(labels[:, k], exact[:, k]) for k in range(shown.shape[1])]),
            "log_loss": np.mean([sk.log_loss(labels[:, k], clipped[:, k], labels=[0, 1]) for k in range(len(each))]),
            "ece": loop_calibration_error(exact.ravel(), labels.ravel()),
        }
        positive = None
    else:
        said = shown.argmax(axis=1)
        classes = range(shown.shape[1])
        each = [binary_reference((labels == k) * 1, exact[:, k], (said == k) * 1) for k in classes]
        present = np.unique(labels)
        truth = np.eye(shown.shape[1])[labels]
        chosen = exact[np.arange(len(labels)), labels].clip(np.finfo(np.float32).eps, 1)
        brier = sk.mean_squared_error(truth[:, 1], exact[:, 1]) if task == "binary" else np.sum((truth - exact) ** 2, 1)
        overall = {
            "accuracy": sk.accuracy_score(labels, said),
            "balanced_accuracy": sk.recall_score(labels, said, labels=present, average="macro"),
            "mcc": sk.matthews_corrcoef(labels, said) if len(present) > 1 else None,
            "brier": np.mean(brier),
            "log_loss": -np.log(chosen).mean(),
            "ece": loop_calibration_error(exact.max(axis=1), said == labels),
        }
        for k in set(classes) - set(present.tolist()):  # an absent class is in no average
            each[k]["specificity_if_present"] = None
        positive = positive if task == "binary" else None
        if task == "ordinal":
            kappa = sk.cohen_kappa_score(labels, said, weights="quadratic", labels=list(classes))
            overall |= {
                "kappa_quadratic": None if np.isnan(kappa) else kappa,
                "mae": sk.mean_absolute_error(labels, said),
                "off_by_one": np.mean(np.abs(labels - said) <= 1),
            }
    for name in ("auc", "average_precision", "sensitivity", "specificity"):
        shown_classes = [one.get(f"{name}_if_present", one[name]) for one in each]
        overall[name] = mean(shown_classes) if positive is None else shown_classes[positive]
    overall["f1_macro"] = mean([one["f1"] for one in each])
    return overall, each


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_scikit_learns(task, kind):
    for positive in (0, 1) if task == "binary" else (1,):
        _assert_as_in_scikit_learn(task, kind, positive)


def _assert_as_in_scikit_learn(task, kind, positive):
    shown, labels = cases(task, kind)
    scores = Scorer(shown, labels, task, positive=positive)(np.ones((len(labels), 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of degenerate cases
        overall, each = reference(shown, labels, task, positive)
    assert set(scores.overall) == set(overall)
    for name, value in overall.items():
        expected = np.nan if value is None else value
        np.testing.assert_allclose(scores.overall[name][0], expected, atol=1e-12, err_msg=name)
    for name in ("auc", "average_precision", "f1", "sensitivity", "specificity", "precision"):
        expected = [np.nan if one[name] is None else one[name] for one in each]
        np.testing.assert_allclose(scores.per_class[name][:, 0], expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", ["random", "ties", "absent"])
@pytest.mark.parametrize("task", TASKS)
def test_a_weight_is_a_number_of_repetitions(task, kind):
    shown, labels = cases(task, kind)
    weights = np.random.default_rng(1).integers(0, 4, (len(labels), 3)).astype(np.float64)
    together = Scorer(shown, labels, task)(weights)
    for column in range(3):
        repeated = np.repeat(np.arange(len(labels)), weights[:, column].astype(int))
        alone = Scorer(shown[repeated], labels[repeated], task)(np.ones((len(repeated), 1)))
        for name, value in alone.overall.items():
            np.testing.assert_allclose(together.overall[name][column], value[0], atol=1e-12, err_msg=name)
        for name, values in alone.per_class.items():
            np.testing.assert_allclose(together.per_class[name][:, column], values[:, 0], atol=1e-12, err_msg=name)


def test_the_positive_class_is_the_one_that_scikit_learn_is_told():
    shown, labels = cases("binary", "ties")
    truth, said = (np.array(["malignant", "benign"])[k] for k in (labels, shown.argmax(axis=1)))
    found = classification_metrics(shown, labels, "binary", positive=0)
    assert found["sensitivity"] == pytest.approx(sk.recall_score(truth, said, pos_label="malignant"))
    assert found["specificity"] == pytest.approx(sk.recall_score(truth, said, pos_label="benign"))
    score = shown[:, 0].astype(np.float64)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth, score, pos_label="malignant"))
    other = classification_metrics(shown, labels, "binary")
    assert found["auc"] == pytest.approx(other["auc"], abs=1e-9)
    assert abs(found["average_precision"] - other["average_precision"]) > 1e-3


def test_auc_is_the_mann_whitney_statistic():
    shown, labels = cases("binary", "ties")
    ranks = rankdata(shown[:, 1])
    positive = labels == 1
    statistic = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    expected = statistic / (positive.sum() * (~positive).sum())
    assert classification_metrics(shown, labels, "binary")["auc"] == pytest.approx(expected, abs=1e-12)


def test_an_absent_class_changes_no_average():
    shown, labels = cases("multi-class", "absent")
    with_all = classification_metrics(shown, labels, "multi-class")
    each = Scorer(shown, labels, "multi-class")(np.ones((len(labels), 1))).per_class
    assert np.isnan(each["auc"][4, 0])
    assert with_all["auc"] == pytest.approx(each["auc"][:4, 0].mean())
    assert with_all["f1_macro"] == pytest.approx(each["f1"][:4, 0].mean())


def test_thresholds_of_labels_change_the_tuned_metrics():
    shown, labels = cases("multi-label", "random")
    thresholds = np.array([0.2, 0.3, 0.4, 0.5, 0.6])
    found = classification_metrics(shown, labels, "multi-label", thresholds)
    said = (shown > thresholds).astype(int)
    assert found["f1_macro_tuned"] == pytest.approx(sk.f1_score(labels, said, average="macro"))
    assert found["sensitivity_tuned"] == pytest.approx(sk.recall_score(labels, said, average="macro"))
    assert found["specificity_tuned"] == pytest.approx(sk.recall_score(1 - labels, 1 - said, average="macro"))
    recalls = [sk.balanced_accuracy_score(labels[:, k], said[:, k]) for k in range(5)]
    assert found["balanced_accuracy_tuned"] == pytest.approx(np.mean(recalls))
    assert found["f1_macro_tuned"] != found["f1_macro"]


def test_bins_include_their_upper_end():
    assert bin_of(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 0.5, 1.0])).tolist() == [0, 0, 1, 7, 14]


def test_every_metric_has_a_direction():
    for task in TASKS:
        shown, labels = cases(task, "random")
        thresholds = np.full(5, 0.4) if task == "multi-label" else None
        assert set(classification_metrics(shown, labels, task, thresholds)) <= set(HIGHER_IS_BETTER)
