"""Layers that take a network's last layer's place give the probabilities that scikit-learn gives."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from visionforge.config.schema.probing import ProbeSettings
from visionforge.config.schema.tasks import task_named
from visionforge.models import feature_heads
from visionforge.models.feature_heads import TEMPERATURE
from visionforge.training.probes.choice import CLASSIFIERS, fit_values
from visionforge.training.probes.features import Labelled, Scale

IMAGES, FEATURES = 120, 6
# a cosine in float32 is known to 1e-7, and the weights of neighbours are 1 / 0.07 times as sensitive
TOLERANCE = {"knn": 3e-6}
VALUES: dict[str, dict[str, Any]] = {
    "logistic_regression": {"c": 0.3},
    "knn": {"neighbours": 7},
    "lda": {"shrinkage": 0.2},
    "gradient_boosting": {"leaves": 5, "learning_rate": 0.2, "iterations": 12},
}


def _features(classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % classes
    values = rng.normal(size=(IMAGES, FEATURES)) * [1, 5, 0.1, 1, 1, 1] + [3, 3, 0.2, 3, 3, 3]
    values[:, 0] += labels
    values[:, 2] += 0.1 * (labels == 1)
    values[:, 4] = 2.5  # never changes
    return values.astype(np.float32).astype(np.float64), labels


def _reference(name: str, balanced: bool = False) -> Any:
    weight = "balanced" if balanced else None
    if name == "logistic_regression":
        model = LogisticRegression(C=0.3, class_weight=weight, max_iter=5000, tol=1e-5)
    elif name == "lda":
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
    elif name == "knn":
        model = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp(-d / TEMPERATURE))
    else:
        model = HistGradientBoostingClassifier(
            learning_rate=0.2,
            max_iter=12,
            max_leaf_nodes=5,
            max_depth=8,
            min_samples_leaf=5,
            early_stopping=False,
            class_weight=weight,
            random_state=0,
        )
        cells = FunctionTransformer(lambda x: np.round(x * 64))
        return make_pipeline(StandardScaler(), cells, model)
    return make_pipeline(StandardScaler(), model)


def _probabilities(head: nn.Module, values: np.ndarray, task: str) -> np.ndarray:
    logits = head(torch.from_numpy(values).float())
    return task_named(task).probabilities(logits.detach()).double().numpy()


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_classes_are_those_of_scikit_learn(name: str, classes: int) -> None:
    values, labels = _features(classes)
    task = "binary" if classes == 2 else "multi-class"
    head = fit_values(
        ProbeSettings(classifier=name), VALUES[name], Labelled.of(values, labels, classes, task, False, 0)
    )
    unseen, _ = _features(classes, seed=1)
    expected = _reference(name).fit(values, labels).predict_proba(unseen)
    np.testing.assert_allclose(_probabilities(head, unseen, task), expected, atol=TOLERANCE.get(name, 1e-6))


@pytest.mark.parametrize("name", VALUES)
def test_probabilities_of_labels_are_those_of_one_classifier_each(name: str) -> None:
    values, classes = _features(3)
    labels = np.stack([classes == 0, classes < 2, np.zeros(IMAGES), np.ones(IMAGES)], axis=1).astype(np.uint8)
    data = Labelled.of(values, labels, 4, "multi-label", False, 0)
    found = _probabilities(fit_values(ProbeSettings(classifier=name), VALUES[name], data), values, "multi-label")
    for k in range(2):
        expected = _reference(name).fit(values, labels[:, k]).predict_proba(values)[:, 1]
        np.testing.assert_allclose(found[:, k], expected, atol=TOLERANCE.get(name, 1e-6))
    assert found[:, 2].max() < 0.01
    assert found[:, 3].min() > 0.99


def test_a_feature_that_hardly_varies_does_not_weigh_more_than_others() -> None:
    values, labels = _features(2)
    values = values[:, values.std(axis=0) > 0]
    rare = np.where(np.arange(IMAGES) == 3, 1e-4, 0.0)  # of one image
    flat = np.full(IMAGES, 7.0)
    scale = Scale.of(np.column_stack([values, rare, flat]))
    usual = np.sqrt(np.mean(np.column_stack([values, rare, flat]).var(axis=0)))
    np.testing.assert_allclose(scale.factor[: values.shape[1]], 1 / values.std(axis=0))
    assert scale.factor[-2] == pytest.approx(100 / usual)
    assert scale.factor[-1] == 0
    data = Labelled.of(np.column_stack([values, rare]), labels, 2, "binary", False, 0)
    head = fit_values(ProbeSettings(classifier="logistic_regression"), VALUES["logistic_regression"], data)
    assert head.weight[:, -1].abs().max() < 0.2  # what its being 1 in other images would add to a logit


@pytest.mark.parametrize("name", ["logistic_regression", "gradient_boosting"])
def test_balanced_is_scikit_learns(name: str) -> None:
    values, labels = _features(3)
    values, labels = values[labels * 20 < np.arange(IMAGES)], labels[labels * 20 < np.arange(IMAGES)]
    data = Labelled.of(values, labels, 3, "multi-class", True, 0)
    found = _probabilities(fit_values(ProbeSettings(classifier=name), VALUES[name], data), values, "multi-class")
    expected = _reference(name, balanced=True).fit(values, labels).predict_proba(values)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE.get(name, 1e-6))


@pytest.mark.parametrize("name", VALUES)
def test_balanced_classes_make_the_rare_one_likelier(name: str) -> None:
    values, labels = _features(2)
    kept = (labels == 0) | (np.arange(IMAGES) % 8 == 1)
    shares = []
    for balanced in (False, True):
        data = Labelled.of(values[kept], labels[kept], 2, "binary", balanced, 0)
        head = fit_values(ProbeSettings(classifier=name), VALUES[name], data)
        shares.append(_probabilities(head, values, "binary")[:, 1].mean())
    assert shares[1] > shares[0] + 0.05


@pytest.mark.parametrize("name", VALUES)
def test_a_class_without_an_image_is_as_good_as_impossible(name: str) -> None:
    values, labels = _features(2)
    for present in ([0, 2], [0, 1]):
        data = Labelled.of(values, np.array(present)[labels], 3, "multi-class", False, 0)
        found = _probabilities(fit_values(ProbeSettings(classifier=name), VALUES[name], data), values, "multi-class")
        (absent,) = {0, 1, 2} - set(present)
        assert found[:, absent].max() < 1e-6
        expected = _reference(name).fit(values, labels).predict_proba(values)
        np.testing.assert_allclose(found[:, present], expected, atol=TOLERANCE.get(name, 1e-6))


def test_neighbours_of_a_bank_in_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = _features(3)
    data = Labelled.of(values, labels, 3, "multi-class", False, 0)
    head = fit_values(ProbeSettings(classifier="knn"), {"neighbours": 20}, data)
    whole = _probabilities(head, values, "multi-class")
    monkeypatch.setattr(feature_heads, "BLOCK", 17)
    np.testing.assert_allclose(_probabilities(head, values, "multi-class"), whole, atol=1e-6)


@pytest.mark.parametrize("name", VALUES)
def test_candidates_begin_with_the_simplest(name: str) -> None:
    found = CLASSIFIERS[name].candidates(ProbeSettings(classifier=name))
    simpler = {"c": 1, "neighbours": -1, "shrinkage": -1, "leaves": 1}
    key = next(iter(found[0]))
    numbers = [each[key] for each in found if not isinstance(each[key], str)]
    assert all((b - a) * simpler[key] >= 0 for a, b in pairwise(numbers))


def test_a_part_of_the_trees_is_the_shorter_fit() -> None:
    values, labels = _features(3)
    data = Labelled.of(values, labels, 3, "multi-class", False, 0)
    settings = ProbeSettings(classifier="gradient_boosting", leaves=(5,), learning_rate=(0.2,), iterations=(3, 12))
    classifier = CLASSIFIERS["gradient_boosting"]
    few, _ = classifier.fit(data, classifier.candidates(settings))
    alone = fit_values(settings, {"leaves": 5, "learning_rate": 0.2, "iterations": 3}, data)
    np.testing.assert_allclose(
        _probabilities(few, values, "multi-class"), _probabilities(alone, values, "multi-class"), atol=1e-7
    )
