"""Sets of classes cover what they promise, are those of independent code, and say when images are too few."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from visionforge.config.schema import EvaluationSettings
from visionforge.training.calibration import Calibration, abstention, fit_calibration
from visionforge.training.conformal import (
    METHODS,
    PENALTY,
    RANK,
    ConformalSets,
    class_scores,
    fit_sets,
    least_images,
)

COVERAGES = (0.8, 0.9, 0.95)


def drawn(count: int, classes: int = 5, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5
    shares = np.exp(1.5 * logits)
    return torch.tensor(shares / shares.sum(1, keepdims=True)), torch.tensor(labels)


def looped(probabilities, method):
    """The scores by a loop in float64."""
    found = np.zeros_like(probabilities)
    for i, row in enumerate(probabilities):
        ranking = sorted(range(len(row)), key=lambda k: (-row[k], k))
        for place, k in enumerate(ranking):
            above = sum(row[other] for other in ranking[:place])
            price = PENALTY * max(0, place + 1 - RANK) if method == "raps" else 0
            found[i, k] = 1 - row[k] if method in ("split", "class") else above + price
    return found


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_a_loop(method):
    shown, _ = drawn(50)
    shown[0] = 0.2  # ties
    np.testing.assert_allclose(class_scores(shown, method), looped(shown.numpy(), method), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coverage", COVERAGES)
def test_sets_cover_what_they_promise(method, coverage):
    held, sizes, n = [], [], 300
    for seed in range(60):
        shown, labels = drawn(2 * n, seed=seed)
        sets = fit_sets(shown[:n], labels[:n], method, coverage)
        members = sets.members(shown[n:])
        held.append(members.gather(1, labels[n:, None]).sum().item())
        sizes.append(members.sum(1).double().mean().item())
    # calibration and count vary together: the mean over many draws has to be within its error of the promise
    error = math.sqrt(2 * coverage * (1 - coverage) / (n * 60))
    extra = 1 / (n + 1) if method != "class" else 5 / (n / 5 + 1)
    upper = 1.0 if method in ("aps", "raps") else coverage + extra + 4 * error  # they never leave the best class out
    assert coverage - 4 * error <= np.mean(held) / n <= upper
    assert 1 <= np.mean(sizes) < 5 or method == "split"


def test_class_sets_cover_every_class():
    rng = np.random.default_rng(1)
    shown, labels = drawn(6000)
    shown[labels == 0] = shown[labels == 0].roll(1, dims=1)  # this class is mostly taken for others
    order = torch.tensor(rng.permutation(6000))
    one, other = order[:3000], order[3000:]
    share = {}
    for method in ("split", "class"):
        members = fit_sets(shown[one], labels[one], method, 0.9).members(shown[other])
        mine = labels[other] == 0
        share[method] = members[mine, 0].sum().item(), int(mine.sum())
    held, of = share["class"]
    assert binom.ppf(1e-4, of, 0.87) <= held
    assert share["split"][0] / share["split"][1] < 0.8


@pytest.mark.parametrize("coverage", [0.8013, 0.9013, 0.9513])  # crepes takes a p-value equal to 1 - coverage in
def test_thresholds_are_those_of_crepes(coverage):
    crepes = pytest.importorskip("crepes")
    shown, labels = drawn(500)
    for method in ("split", "class"):
        scores = class_scores(shown, "split").numpy()
        truth = labels.numpy()
        theirs = crepes.ConformalClassifier()
        bins = truth[:250] if method == "class" else None
        theirs.fit(scores[np.arange(250), truth[:250]], bins=bins)
        if method == "class":
            columns = [
                theirs.predict_set(scores[250:], bins=np.full(250, k), confidence=coverage, smoothing=False)[:, k]
                for k in range(5)
            ]
            expected = np.stack(columns, axis=1)
        else:
            expected = theirs.predict_set(scores[250:], confidence=coverage, smoothing=False)
        ours = fit_sets(shown[:250], labels[:250], method, coverage).members(shown[250:])
        np.testing.assert_array_equal(ours.numpy(), expected.astype(bool))


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_too_few_images_give_no_sets(coverage, caplog):
    least = least_images(coverage)
    shown, labels = drawn(least)
    assert fit_sets(shown, labels, "split", coverage).thresholds[0] is not None
    assert fit_sets(shown[:-1], labels[:-1], "split", coverage) is None
    settings = EvaluationSettings(conformal="raps", coverage=coverage)
    found = fit_calibration(shown[:-1], None, labels[:-1], "multi-class", settings)
    assert found.sets is None
    assert f"needs {least:,} validation images" in caplog.text


def test_a_class_with_too_few_is_in_every_set(caplog):
    shown, labels = drawn(200)
    keep = (labels != 3) | (torch.arange(200) < 20)
    settings = EvaluationSettings(conformal="class", coverage=0.95)
    found = fit_calibration(shown[keep], None, labels[keep], "multi-class", settings)
    assert found.sets.thresholds[3] is None
    assert found.sets.members(shown)[:, 3].all()
    assert "number 3 have fewer" in caplog.text


def test_settings_change_sets_and_abstention():
    shown, labels = drawn(300)
    predicted = shown.argmax(1)

    def of(**settings):
        found = fit_calibration(shown, None, labels, "multi-class", EvaluationSettings(**settings))
        return found.columns(shown, predicted, tta=False)

    assert of()["set"].sum() < of(coverage=0.99)["set"].sum()
    assert not torch.equal(of(conformal="split")["set"], of(conformal="aps")["set"])
    assert of(conformal="raps", coverage=0.95)["set"].sum(1).max() <= of(coverage=0.95)["set"].sum(1).max()
    assert not of(conformal="none")
    single = of()["set"].sum(1) == 1
    assert torch.equal(of()["abstain"], ~single)
    below = of(abstain_below=0.6)["abstain"]
    assert torch.equal(below, shown.max(1).values < 0.6)
    assert list(of(conformal="none", abstain_below=0.6)) == ["abstain"]


def test_abstains_where_the_only_member_is_not_the_prediction():
    sets = ConformalSets("class", 0.9, 100, (0.2, 0.95))
    shown = torch.tensor([[0.75, 0.25], [0.9, 0.1]])
    found = abstention(sets, None, shown, shown.argmax(1))
    assert found["set"].tolist() == [[False, True], [True, True]]
    assert found["abstain"].all()


def test_labels_that_do_not_exclude_each_other_have_no_sets():
    shown, labels = torch.rand(50, 3), (torch.rand(50, 3) < 0.5).long()
    found = fit_calibration(shown, None, labels, "multi-label", EvaluationSettings(abstain_below=0.7))
    assert found.sets is None
    assert found.abstain_below is None


def test_comes_back_from_a_checkpoint_and_is_looked_at():
    sets = ConformalSets("class", 0.9, 50, (0.25, None))
    calibration = Calibration(10, 1.5, None, None, sets, None, "class 0.9", 0.6)
    assert Calibration.from_dict(dataclasses.asdict(calibration)) == calibration
    assert Calibration.from_dict({"images": 10, "temperature": 1.5}) == Calibration(10, 1.5)
    for bad in ({"method": "magic"}, {"thresholds": ()}, {"coverage": float("nan")}):
        with pytest.raises(ValueError, match="conformal sets"):
            ConformalSets.from_dict({**dataclasses.asdict(sets), **bad})
