"""Numbers of a split are those of its masks; the table of them gives the same; forged ones are one line."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

import visionforge as vf
from tests.tasks.helpers import NAMES, drawn_masks, mask_spec
from visionforge.config.schema import EvaluationSettings
from visionforge.config.schema.metrics import metrics_of
from visionforge.data.side_table import SideTable
from visionforge.errors import RunError
from visionforge.evaluation.bootstrap import estimate, paired_differences
from visionforge.evaluation.evaluation import Partial
from visionforge.evaluation.label_colours import class_colours
from visionforge.evaluation.mask_evaluation import MaskEvaluation, evaluate_masks
from visionforge.evaluation.mask_files import (
    mask_columns,
    mask_table_scorer,
    palette,
    write_mask,
    write_mask_table,
)
from visionforge.inference.mask_predictor import MaskPrediction
from visionforge.runs.workspace import Workspace
from visionforge.training.mask_outputs import MaskPredictions, MaskView

COUNT = 12
SETTINGS = EvaluationSettings(resamples=60)


def said_of(truth, share=0.3, seed=5):
    rng = np.random.default_rng(seed)
    wrong = rng.random(truth.shape) < share * rng.random((len(truth), 1, 1)) * 2
    return np.where(wrong | (truth == 255), rng.integers(0, 3, truth.shape), truth).astype(np.uint8)


def evaluation_of(spec=None, tta=True, settings=SETTINGS, truth=None, partial=None) -> MaskEvaluation:
    if truth is None:
        truth = drawn_masks(COUNT, ignored=0.1)
        truth[0] = 0  # nothing but background
        truth[1][truth[1] == 2] = 0
    views = [said_of(truth, share) for share in (0.5, 0.2)]
    views[0][0] = views[1][0] = 0
    sure = torch.linspace(0.4, 0.9, len(truth))
    alone, averaged = (MaskView(torch.from_numpy(masks), sure) for masks in views)
    predictions = MaskPredictions("test", torch.from_numpy(truth), alone, averaged if tta else None, 0.7)
    return evaluate_masks(predictions, spec or mask_spec(), "test", settings, partial)


def table_of(evaluation, folder):
    workspace = Workspace(folder)
    side = SideTable(None, None)
    evaluation.task.write_predictions(workspace, evaluation.spec, evaluation.said, evaluation.labels, side)
    return workspace.predictions


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_are_those_of_the_public_function():
    evaluation = evaluation_of()
    assert list(evaluation.readings) == ["without_tta", "with_tta"]
    for reading in evaluation.readings.values():
        shared = {"ignore": 255, "background": 0, "tolerance": 1.0}
        found = vf.metrics.segmentation_intervals(evaluation.labels, reading.masks, 3, resamples=60, **shared)
        assert reading.estimate.overall == pytest.approx(found.overall)
        assert set(reading.estimate.intervals) == set(found.intervals)
        low, high = reading.estimate.intervals["mean_dice"]
        assert low < reading.estimate.overall["mean_dice"] < high
        kept = evaluation.labels != 255
        expected = confusion_matrix(evaluation.labels[kept], reading.masks[kept])
        np.testing.assert_array_equal(reading.true.sum(axis=0), expected.sum(axis=1))
        np.testing.assert_array_equal(reading.said.sum(axis=0), expected.sum(axis=0))
    np.testing.assert_array_equal(evaluation.confusion, expected)  # of the views
    assert np.isnan(evaluation.best.dice[0])
    assert evaluation.best is evaluation.readings["with_tta"]
    assert evaluation.said.averaged
    assert not evaluation_of(tta=False).said.averaged


def test_the_tolerance_of_boundaries_grows_with_the_pictures():
    small, large = (evaluation_of(truth=drawn_masks(3, size)) for size in (16, 200))
    assert [each.best.estimate.overall["mean_boundary_f1"] is not None for each in (small, large)] == [True, True]
    tolerance = 0.0075 * np.hypot(200, 200)
    found = vf.metrics.segmentation_metrics(
        large.labels, large.best.masks, 3, ignore=255, background=0, tolerance=tolerance
    )
    assert large.best.estimate.overall["mean_boundary_f1"] == pytest.approx(found["mean_boundary_f1"])


def test_what_metrics_json_holds():
    content = evaluation_of(partial=Partial(12, 40, "trainer.limit_test_batches 12")).as_dict()
    assert content["background"] == "background"
    assert content["partial"]["of"] == 40
    assert set(content["with_tta"]) >= {"mean_dice", "mean_iou", "pixel_accuracy", "mean_boundary_f1"}
    assert set(content["per_class"]["with_tta"]) == set(NAMES)
    without = evaluation_of(mask_spec(classes=("a", "b", "c")))
    assert without.as_dict()["background"] is None
    assert without.best.estimate.overall["mean_dice"] != evaluation_of().best.estimate.overall["mean_dice"]
    assert any("is in no mean" in note for note in evaluation_of().reading_notes)
    assert not any("is in no mean" in note for note in without.reading_notes)


# --- tables


@pytest.mark.parametrize("names", [NAMES, ("a", "b", "c"), ("=1+1", "true_pixels", "shared_pixels_x")])
def test_a_table_gives_the_metrics_of_its_evaluation(tmp_path, names):
    evaluation = evaluation_of(mask_spec(classes=names))
    path = table_of(evaluation, tmp_path)
    scorer = evaluation.task.table_scorer(path, True, 1, names)
    (found,) = estimate([scorer], 60, 0.95)
    expected = evaluation.best.estimate
    for name, value in found.overall.items():
        assert value == pytest.approx(expected.overall[name], abs=1e-12)
        assert found.intervals[name] == pytest.approx(expected.intervals[name], abs=1e-12)
    assert set(expected.overall) - set(found.overall) == {"mean_boundary_f1"}
    assert evaluation.task.table_scorer(path, False, 1, names) is None
    written = rows(path)
    assert [int(row["index"]) for row in written] == list(range(COUNT))
    assert float(written[0]["dice"]) == (-1 if names == NAMES else 1)
    assert float(written[3]["confidence"]) == pytest.approx(evaluation.best.sure[3])
    for k, name in enumerate(names):
        for kind, sizes in (("true_pixels", evaluation.best.true), ("predicted_pixels", evaluation.best.said)):
            sums = sizes[:, k]
            assert [int(row[f"{kind}_{name}"]) for row in written] == sums.tolist()


def test_metrics_of_ones_own_are_of_masks_and_so_not_of_tables(tmp_path):
    vf.register_metric(lambda truth, *rest: float(truth.size), name="own_size", tasks=("masks",))
    evaluation = evaluation_of()
    assert evaluation.best.estimate.overall["own_size"] == COUNT * 256
    (found,) = estimate([evaluation.task.table_scorer(table_of(evaluation, tmp_path), True, 1, NAMES)], 0)
    assert "own_size" not in found.overall
    assert "own_size" in [metric.name for metric in metrics_of("segmentation")]


def changed(path, column, value, row=2):
    content = rows(path)
    content[row][column] = value
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, content[0])
        writer.writeheader()
        writer.writerows(content)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shared_pixels_disc", "-1"),
        ("true_pixels_disc", "-5"),
        ("predicted_pixels_square", "-900"),
        ("shared_pixels_disc", "100000"),
        ("true_pixels_disc", "9223372036854775807"),
        ("predicted_pixels_disc", "1e300"),
        ("true_pixels_disc", "99999999999999999999999"),
        ("true_pixels_disc", "nan"),
        ("true_pixels_disc", ""),
        ("true_pixels_disc", "inf"),
        ("true_pixels_disc", "many"),
        ("true_pixels_disc", "1.5"),
        ("views", ""),
        ("views", "x"),
        ("views", "7"),
        ("views", "0.5"),
    ],
)
def test_a_forged_table_is_one_line(tmp_path, column, value):
    path = table_of(evaluation_of(), tmp_path)
    changed(path, column, value)
    with pytest.raises(RunError) as raised:
        mask_table_scorer(path, True, 0, "segmentation", 3)
    (problem,) = raised.value.problems
    assert str(path) in problem
    assert "\n" not in problem
    assert len(problem) < 400


@pytest.mark.parametrize("classes", [2, 4])
def test_a_table_of_other_classes_is_one_line(tmp_path, classes):
    path = table_of(evaluation_of(), tmp_path)
    with pytest.raises(RunError, match=r"columns of 3 classes, the run has [24]"):
        mask_table_scorer(path, True, classes - 1, "segmentation", classes)


def test_a_table_without_truth_is_one_line(tmp_path):
    evaluation = evaluation_of()
    workspace = Workspace(tmp_path)
    write_mask_table(workspace, evaluation.spec, evaluation.said, None, SideTable(None, None))
    assert "dice" not in rows(workspace.predictions)[0]
    with pytest.raises(RunError, match="no table of masks with their truth; it has no columns shared_pixels_CLASS"):
        mask_table_scorer(workspace.predictions, True, 0, "segmentation", 3)


# --- files


def test_names_groups_and_masks_are_beside_the_numbers(tmp_path):
    evaluation = evaluation_of()
    side = SideTable(tuple(f"../a b/{k}.png" for k in range(20)), tuple("=g" for _ in range(20)))
    workspace = Workspace(tmp_path)
    write_mask_table(workspace, evaluation.spec, evaluation.said, evaluation.labels, side, files=True)
    written = rows(workspace.predictions)
    assert [row["name"] for row in written] == list(side.names[:COUNT])
    assert {row["group"] for row in written} == {"'=g"}
    for row, mask in zip(written, evaluation.best.masks, strict=True):
        picture = Image.open(tmp_path / row["mask"])
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        shown = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(shown, palette(evaluation.spec)[mask])
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"{k:06d}.png" for k in range(COUNT)]


@pytest.mark.parametrize("classes", [2, 3, 16, 17, 255])
def test_pixels_of_a_file_are_the_numbers_of_the_classes(tmp_path, classes):
    spec = mask_spec(classes=tuple(f"c{k}" for k in range(classes)))
    mask = np.arange(20 * 30).reshape(20, 30) % classes
    for name, each in (("all", mask), ("last", np.full((4, 5), classes - 1)), ("first", np.zeros((4, 5)))):
        write_mask(tmp_path / f"{name}.png", each.astype(np.uint8), palette(spec))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{name}.png")), each)
    assert len(np.unique(palette(spec), axis=0)) > 0.6 * classes


def test_columns_without_truth_count_what_is_predicted():
    masks = drawn_masks(3)
    said = MaskPrediction(masks, np.ones(3, np.float32))
    cells = {column.name: list(values) for column, values in mask_columns(mask_spec(), said, [])}
    assert cells["views"] == [0, 0, 0]
    for k, name in enumerate(NAMES):
        assert cells[f"predicted_pixels_{name}"] == [(mask == k).sum() for mask in masks]


def test_a_class_that_is_only_predicted_is_not_absent():
    truth = np.zeros((6, 16, 16), np.uint8)
    truth[:, :8] = 1
    said = truth.copy()
    said[0, 15, 15] = 2  # in no truth
    view = MaskView(torch.from_numpy(said), torch.ones(6))
    predictions = MaskPredictions("test", torch.from_numpy(truth), view, None, 0.1)
    evaluation = evaluate_masks(predictions, mask_spec(), "test", SETTINGS)
    assert evaluation.support == [6, 6, 0]
    assert evaluation.absent == [], "its Dice is 0, and in the mean"
    assert evaluation.best.estimate.per_class["dice"][2] == 0
    nothing = MaskPredictions("test", torch.from_numpy(truth), MaskView(torch.from_numpy(truth), view.sure), None, 0.1)
    assert evaluate_masks(nothing, mask_spec(), "test", SETTINGS).absent == ["square"]


def test_runs_are_compared_on_the_same_truth_only(tmp_path):
    one, two = (table_of(evaluation_of(truth=drawn_masks(COUNT, seed=seed)), tmp_path / str(seed)) for seed in (1, 2))
    scorers = [mask_table_scorer(path, True, 0, "segmentation", 3) for path in (one, two)]
    with pytest.raises(ValueError, match="not of the same cases"):
        paired_differences(scorers[:1], scorers[1:], 50, 0.95)


def test_colours_are_those_of_the_report():
    colours = palette(mask_spec())
    np.testing.assert_array_equal(colours[0], 0)
    np.testing.assert_array_equal(colours[1:], class_colours(4)[1:3])
