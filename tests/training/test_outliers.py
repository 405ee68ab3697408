"""Scores of images that are far out are those of independent implementations, and tell noise from images."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from tests.training.helpers import data, fit, trainer
from visionforge import ImageClassifier
from visionforge.config.schema import EvaluationSettings, Synthetic
from visionforge.errors import RunError
from visionforge.inference.loading import load_classifier
from visionforge.inference.predictor import NetworkPredictor
from visionforge.training.outliers import MOST_FEATURES, NEIGHBOURS, Outliers, fit_outliers

METHODS = ["energy", "max_logit", "mahalanobis", "knn"]


def features(count=300, size=12, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return torch.tensor(rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3 * labels[:, None]), labels


def test_scores_of_logits():
    logits = torch.randn(20, 4)
    np.testing.assert_allclose(fit_outliers("energy")(logits, None), -logsumexp(logits.numpy(), axis=1), rtol=1e-5)
    assert torch.equal(fit_outliers("max_logit")(logits, None), -logits.max(1).values)


def test_distance_from_the_nearest_class_is_that_of_scikit_learn():
    known, labels = features()
    found = fit_outliers("mahalanobis", known, torch.tensor(labels))
    means = np.stack([known.numpy()[labels == k].mean(0) for k in range(3)])
    theirs = LedoitWolf(assume_centered=True).fit(known.numpy() - means[labels])
    new, _ = features(40, seed=1)
    expected = np.min([theirs.mahalanobis(new.numpy() - mean) for mean in means], axis=0)
    np.testing.assert_allclose(found(torch.zeros(40, 3), new.float()), expected, rtol=1e-3)


def test_distance_from_neighbours_is_that_of_scikit_learn():
    known, labels = features()
    found = fit_outliers("knn", known, torch.tensor(labels))
    new, _ = features(40, seed=1)
    scaled = [each.numpy() / np.linalg.norm(each.numpy(), axis=1, keepdims=True) for each in (known, new)]
    theirs = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(scaled[0]).kneighbors(scaled[1])[0][:, -1]
    np.testing.assert_allclose(found(torch.zeros(40, 3), new.float()), theirs, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_distances_are_those_of_float32_where_layers_multiply_in_less(method):
    known, labels = features()
    found = fit_outliers(method, known, torch.tensor(labels))
    new, logits = features(40, seed=1)[0].float(), torch.randn(40, 3)
    with torch.autocast("cpu", torch.bfloat16):
        less = found(logits, new)
    assert torch.equal(less, found(logits, new))


@pytest.mark.parametrize("method", METHODS)
def test_threshold_holds_95_percent_and_comes_back(method):
    known, labels = features()
    fitted = fit_outliers(method, known, torch.tensor(labels)).fitted(torch.arange(100.0))
    assert fitted.threshold == 94
    again = Outliers.from_stored(fitted.stored(), 3, 12)
    assert again.reported() == fitted.reported() == {"method": method, "threshold": 94.0, "validation_images": 100}
    assert all(torch.equal(again.tensors[name], each) for name, each in fitted.tensors.items())


def test_a_file_of_another_network_is_refused():
    known, labels = features()
    stored = fit_outliers("mahalanobis", known, torch.tensor(labels)).stored()
    cut = {**stored["tensors"], "means": stored["tensors"]["means"][:, :5]}
    wrong = [{"method": "magic"}, {"tensors": {}}, {"tensors": cut}, {"threshold": float("nan")}]
    for bad in wrong:
        with pytest.raises(ValueError, match="of another network"):
            Outliers.from_stored({**stored, **bad}, 3, 12)
    with pytest.raises(ValueError, match="of another network"):
        Outliers.from_stored(stored, 2, 12)
    with pytest.raises(RunError, match="choose energy"):
        fit_outliers("knn", torch.zeros(2, MOST_FEATURES + 1), torch.zeros(2))


@pytest.fixture(scope="module")
def digits():
    module = ImageClassifier("mini_cnn", tta="light")
    images = data(dataset="digits", resolution=8)
    return module, images, fit(module, 3, images)


@pytest.mark.parametrize("method", METHODS)
def test_tells_noise_from_digits(digits, method, tmp_path):
    module, images, _ = digits
    module.evaluation = EvaluationSettings(ood=method)
    trainer().validate(module, datamodule=images, verbose=False)
    pixels = images.dataset_for("test").__getitems__(list(range(200)))[0]
    noise = torch.randint(0, 256, pixels.shape, dtype=torch.uint8)
    predictor = NetworkPredictor(module.eval())
    inside, outside = (predictor(each).columns["ood_score"] for each in (pixels, noise))
    assert np.mean(inside > module.outliers.threshold) < 0.15
    if method not in ("energy", "max_logit"):  # which are sure of noise, too, as the benchmark shows
        assert roc_auc_score(np.repeat([0, 1], 200), np.concatenate([inside, outside])) > 0.95
    keep = trainer(max_epochs=1)
    keep.strategy.connect(module)
    keep.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    again = NetworkPredictor(load_classifier(tmp_path / "x.ckpt"))(pixels)
    np.testing.assert_allclose(again.columns["ood_score"], inside, rtol=1e-5)
    assert set(again.columns) == {"set", "abstain", "ood_score", "unlike_training"}


def test_a_task_of_labels_has_no_score():
    module = ImageClassifier("mini_cnn")
    images = data(resolution=28, synthetic=Synthetic(task="multi-label", train=40, val=32, test=16))
    fit(module, 1, images)
    trainer().validate(module, datamodule=images, verbose=False)
    assert module.outliers is None
