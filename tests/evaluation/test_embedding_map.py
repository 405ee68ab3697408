"""Principal components and neighbours are those of scikit-learn; which images are drawn is always the same."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from visionforge.errors import SettingsError
from visionforge.evaluation import embedding_map
from visionforge.evaluation.embedding_map import MOST_IMAGES, drawn, method_of, nearest, pca, project
from visionforge.training.kept_features import KeptFeatures


def features(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 5).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 10), (15, 60), (40, 40)])
def test_principal_components_are_those_of_scikit_learn(shape):
    given = features(*shape)
    points, shares = pca(given)
    reference = PCA(2, svd_solver="full").fit(given.astype(np.float64))
    theirs = reference.transform(given.astype(np.float64))
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-6)
    signs = np.sign((points * theirs).sum(axis=0))
    np.testing.assert_allclose(points, theirs * signs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    direction = np.linalg.lstsq(given - given.mean(axis=0), points, rcond=None)[0]
    if shape[0] > shape[1]:
        assert (direction[np.abs(direction).argmax(axis=0), [0, 1]] > 0).all()  # the sign is a convention


def test_features_without_two_directions():
    points, shares = pca(np.ones((5, 3), np.float32))
    assert not points.any()
    assert shares.tolist() == [0, 0]
    line = np.outer(np.arange(5.0), [1, 2, 2]).astype(np.float32)
    points, shares = pca(line)
    np.testing.assert_allclose(points[:, 0], 3 * (np.arange(5) - 2), atol=1e-6)
    np.testing.assert_allclose(points[:, 1], 0, atol=1e-6)
    assert shares.round(6).tolist() == [1, 0]
    assert project(line[:1], "pca").points.shape == (1, 2)


def test_neighbours_are_those_of_scikit_learn_and_never_the_image_itself():
    given, bank = features(20, 8, 1), features(100, 8)
    order, cosines = nearest(given, bank, 5)
    distances, theirs = NearestNeighbors(n_neighbors=5, metric="cosine").fit(bank).kneighbors(given)
    np.testing.assert_array_equal(order, theirs)
    np.testing.assert_allclose(cosines, 1 - distances, atol=1e-5)
    order, _ = nearest(bank[:3], bank, 4, np.array([0, 1, -1]))
    assert 0 not in order[0]
    assert 1 not in order[1]
    assert order[2, 0] == 2
    assert nearest(bank[:1], bank[:3], 5, np.array([0]))[0].shape == (1, 2)


def test_a_large_split_is_drawn_from_at_random():
    wanted = drawn(100_000)
    assert wanted.sum() == MOST_IMAGES
    assert (drawn(100_000) == wanted).all()
    assert 0.45 < np.flatnonzero(wanted).mean() / 100_000 < 0.55
    assert drawn(50).all()


def test_kept_features_are_in_the_order_of_the_split_whoever_had_the_images():
    values = torch.arange(20.0)[:, None].repeat(1, 3)
    wanted = torch.arange(20) % 3 == 0
    kept = KeptFeatures(wanted)
    for start in range(0, 20, 8):
        kept.add(values[start : start + 8])
    positions, found = kept.gather()
    assert positions.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert torch.equal(found, values[positions])
    second = KeptFeatures(wanted)
    second.add(values[1::2], rank=1, ranks=2)
    positions, found = second.gather()
    assert positions.tolist() == [3, 9, 15]
    assert torch.equal(found, values[positions])


def test_what_the_setting_stands_for(monkeypatch):
    found = importlib.util.find_spec

    def installed(*names):
        def spec(name, *more):
            ours = name in embedding_map._UMAP_PARTS
            return (object() if name in names else None) if ours else found(name, *more)

        monkeypatch.setattr(importlib.util, "find_spec", spec)

    installed()
    assert (method_of("none"), method_of("pca"), method_of("auto")) == (None, "pca", "pca")
    with pytest.raises(SettingsError, match=r"evaluation\.embedding: umap needs the package umap-learn"):
        method_of("umap")
    installed("umap")  # without what it needs itself
    assert method_of("auto") == "pca"
    installed(*embedding_map._UMAP_PARTS)
    assert (method_of("auto"), method_of("umap"), method_of("pca")) == ("umap", "umap", "pca")


def test_umap_is_given_a_seed_and_leaves_the_threads_alone(monkeypatch):
    asked = {}

    class UMAP:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, given):
            torch.set_num_threads(threads + 1)  # as numba does
            return given[:, :2]

    threads = torch.get_num_threads()
    module = ModuleType("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    given = features(40, 5)
    made = project(given, "umap")
    np.testing.assert_array_equal(made.points, given[:, :2])
    assert asked["random_state"] == 0
    assert torch.get_num_threads() == threads
    assert made.axes == ("UMAP 1", "UMAP 2")
    assert project(given[:10], "umap").axes != made.axes  # too few to have neighbours
