"""Errors on corrupted images against their definitions; intervals against formulas of paired shares."""

import numpy as np
import pytest

from tests.evaluation.helpers import FLAGS
from visionforge.data.info import TaskSpec
from visionforge.evaluation.robustness import Condition, Observation, observe, summary
from visionforge.evaluation.robustness_text import aligned, error_table, notes
from visionforge.inference.predictor import BatchPrediction
from visionforge.scoring.clusters import Clusters

CONDITIONS = [
    Condition("fog", "weather", 1, 0.1),
    Condition("fog", "weather", 3, 0.3),
    Condition("snow", "weather", 1, 1.0),
    Condition("flip", "orientation", 1, 1.0, averaged=False),
]
RATES = (0.1, 0.2, 0.4, 0.15, 0.9)  # clean, then the conditions


def observations(seed: int, count: int, rates=RATES) -> list[Observation]:
    rng = np.random.default_rng(seed)
    hard = rng.random(count)  # images that are hard under one condition are hard under all
    return [
        Observation((hard < rate).astype(float), {"accuracy": float(1 - (hard < rate).mean()), "auc": None})
        for rate in rates
    ]


def told(seed: int = 0, count: int = 400, resamples: int = 1000, baseline=None, rates=RATES):
    labels = np.arange(count) % 3
    clean, *corrupted = observations(seed, count, rates)
    return summary(CONDITIONS, clean, corrupted, labels, resamples, 0.95, baseline)


def test_means_are_those_of_their_definition():
    clean, *corrupted = observations(0, 400)
    content = told()
    error = [each.wrong.mean() for each in corrupted]
    fog, snow = np.mean(error[:2]), error[2]
    assert content["clean"]["error"]["value"] == pytest.approx(clean.wrong.mean())
    assert content["corruptions"]["fog"]["error"]["value"] == pytest.approx(fog)
    assert content["mean"]["error"]["value"] == pytest.approx((fog + snow) / 2), "corruptions count alike"
    assert content["mean"]["increase"]["value"] == pytest.approx((fog + snow) / 2 - clean.wrong.mean())
    assert content["severities"]["1"]["error"]["value"] == pytest.approx((error[0] + error[2]) / 2)
    assert content["severities"]["3"]["error"]["value"] == pytest.approx(error[1])
    assert [each["error"]["value"] for each in content["conditions"]] == pytest.approx(error)
    assert content["corruptions"]["flip"]["averaged"] is False
    assert content["metrics"]["accuracy"]["corrupted"] == pytest.approx(1 - (fog + snow) / 2)
    assert content["metrics"]["accuracy"]["change"] == pytest.approx(clean.wrong.mean() - (fog + snow) / 2)
    assert content["metrics"]["auc"] == {"clean": None, "corrupted": None, "change": None}


def test_a_network_that_knows_nothing_is_not_called_robust():
    labels, spec = np.arange(12) % 3, TaskSpec(classes=("a", "b", "c"), flags=FLAGS)
    constant = np.full((12, 3), 0.2, dtype=np.float32)
    constant[:, 1] = 0.6
    knowing = np.eye(3, dtype=np.float32)[labels] * 0.5 + 0.5 / 3

    def seen(probabilities):
        return observe(BatchPrediction(probabilities, probabilities.argmax(axis=1), probabilities), labels, spec, None)

    def said(clean, *corrupted):
        return notes(summary(CONDITIONS, clean, corrupted, labels, 0, 0.95) | {"against": None})

    clean, nothing = seen(knowing), seen(constant)
    assert (clean.same_class, nothing.same_class) == (None, "b")
    assert said(nothing, *[nothing] * 4)[0].startswith("All images are predicted as b, without a corruption, too")
    assert said(clean, clean, nothing, clean, nothing)[0].startswith(
        "Under 2 of 4 conditions all images are predicted as b: the error is there that of knowing nothing"
    )
    assert not any("predicted as" in line for line in said(clean, *[clean] * 4))


def test_intervals_are_of_the_same_images_under_all_conditions():
    clean, *corrupted = observations(0, 400)
    content = told(resamples=4000)
    each = (corrupted[0].wrong + corrupted[1].wrong) / 2 - clean.wrong
    wide = 2 * 1.96 * each.std() / 20
    low, high = content["corruptions"]["fog"]["increase"]["interval"]
    assert high - low == pytest.approx(wide, rel=0.1)
    assert low < each.mean() < high
    unpaired = 2 * 1.96 * np.sqrt(corrupted[1].wrong.var() + clean.wrong.var()) / 20
    low, high = content["conditions"][1]["increase"]["interval"]
    assert high - low < 0.9 * unpaired


def test_whole_groups_are_drawn():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(100), 4)
    hard = np.repeat(rng.random(100), 4)  # all images of a patient are alike
    seen = [Observation((hard < rate).astype(float), {}) for rate in RATES]
    labels = np.zeros(400, dtype=int)
    found = [
        summary(CONDITIONS, seen[0], seen[1:], labels, 2000, 0.95, clusters=clusters)
        for clusters in (None, Clusters(patients))
    ]
    alone, whole = (np.ptp(each["mean"]["increase"]["interval"]) for each in found)
    assert whole == pytest.approx(2 * alone, rel=0.15), "four images of a patient say as much as one"
    assert [each["groups"] for each in found] == [None, 100]


def test_no_resamples_give_no_intervals():
    content = told(resamples=0)
    assert content["mean"]["increase"]["interval"] is None
    assert content["mean"]["increase"]["value"] == pytest.approx(told()["mean"]["increase"]["value"])


def test_the_mean_corruption_error_is_that_of_hendrycks_and_dietterich():
    theirs = observations(1, 400, (0.2, 0.3, 0.4, 0.5, 0.2))
    mine = observations(0, 400)
    found = told(baseline=(theirs[0], theirs[1:]))["baseline"]
    e, b = ([each.wrong.mean() for each in side] for side in (mine, theirs))
    fog, snow = (e[1] + e[2]) / (b[1] + b[2]), e[3] / b[3]
    assert found["mce_of"] == pytest.approx({"fog": fog, "snow": snow})
    assert found["mce"]["value"] == pytest.approx((fog + snow) / 2)
    low, high = found["mce"]["interval"]
    assert low < found["mce"]["value"] < high
    relative = [(e[1] + e[2] - 2 * e[0]) / (b[1] + b[2] - 2 * b[0]), (e[3] - e[0]) / (b[3] - b[0])]
    assert list(found["relative_mce_of"].values()) == pytest.approx(relative)
    assert found["relative_mce"]["value"] == pytest.approx(np.mean(relative))
    mean = [(np.mean(side[1:3]) + side[3]) / 2 for side in (e, b)]
    assert found["difference"]["value"] == pytest.approx(mean[0] - mean[1])
    low, high = found["difference"]["interval"]
    assert low < mean[0] - mean[1] < high


def test_beside_itself_a_network_is_one():
    same = observations(0, 400)
    found = told(baseline=(same[0], same[1:]))["baseline"]
    assert found["mce"] == {"value": pytest.approx(1), "interval": None}
    assert found["difference"] == {"value": 0, "interval": None}


def test_nothing_is_divided_by_a_baseline_that_loses_nothing():
    theirs = observations(0, 400, (0.2, 0.2, 0.2, 0.5, 0.2))
    found = told(baseline=(theirs[0], theirs[1:]))["baseline"]
    assert found["relative_mce_of"]["fog"] is None
    assert found["relative_mce_of"]["snow"] is not None
    assert found["relative_mce"] == {"value": None, "interval": None}
    assert found["mce"]["value"] is not None


def test_orientation_alone_has_no_mean():
    clean, *corrupted = observations(0, 50)
    content = summary(CONDITIONS[3:], clean, corrupted[3:], np.zeros(50, dtype=int), 100, 0.95)
    assert content["mean"] is None
    assert content["severities"] == {}
    assert content["metrics"]["accuracy"]["corrupted"] is None


def spec_of(task: str) -> TaskSpec:
    return TaskSpec(
        classes=("a", "b", "c"), task=task, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, flags=FLAGS, dataset="any"
    )


def test_observation_of_classes_takes_what_is_said_with_views():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    raw, views = (rng.dirichlet(np.ones(3), 90).astype(np.float32) for _ in range(2))
    sure = views**2 / (views**2).sum(axis=1, keepdims=True)
    found = observe(BatchPrediction(sure, views.argmax(axis=1), raw, views), labels, spec_of("multi-class"), None)
    assert np.array_equal(found.wrong, views.argmax(axis=1) != labels)
    assert found.metrics["accuracy"] == pytest.approx(1 - found.wrong.mean())
    assert {*found.tempered} == {"brier", "log_loss", "ece"}, "a temperature changes no decision"
    alone = observe(BatchPrediction(raw, raw.argmax(axis=1), raw), labels, spec_of("multi-class"), None)
    assert np.array_equal(alone.wrong, raw.argmax(axis=1) != labels)
    assert alone.tempered == {}


def test_observation_of_labels_averages_over_them():
    rng = np.random.default_rng(0)
    labels, raw = rng.integers(0, 2, (80, 3)), rng.random((80, 3)).astype(np.float32)
    thresholds = np.full(3, 0.3, dtype=np.float32)
    said = BatchPrediction(raw, (raw > 0.3).astype(int), raw)
    found = observe(said, labels, spec_of("multi-label"), thresholds)
    assert found.wrong == pytest.approx(((raw >= 0.5) != labels).mean(axis=1))
    assert found.metrics["accuracy"] == pytest.approx(1 - found.wrong.mean())
    assert found.metrics["f1_macro_tuned"] is not None


def test_table_of_a_terminal():
    content = told() | {"confidence": 0.95, "against": None}
    headings, clean, *rows = error_table(content)
    assert headings == ["error", "of", "1", "3", "mean", "increase", "95% interval"]
    assert [row[0] for row in rows] == ["fog", "snow", "flip", "mean corruption error"]
    assert clean[4] == f"{content['clean']['error']['value']:.4f}"
    assert rows[1][3] == "", "snow has no severity 3"
    assert rows[0][5].startswith("+")
    assert len({len(line) for line in aligned(error_table(content), 2)}) == 1
    assert "no part of the mean" in notes(content | {"baseline": None})[0]
