"""Numbers of a split are those of its boxes, and so are the table and the results in COCO's format."""

import csv
import json

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import visionforge as vf
from tests.tasks.helpers import box_spec, drawn_boxes, said_boxes
from visionforge.config.schema import EvaluationSettings
from visionforge.data.side_table import SideTable
from visionforge.evaluation.box_evaluation import BoxEvaluation, evaluate_boxes
from visionforge.evaluation.box_files import coco_results
from visionforge.inference.box_predictor import BoxPrediction
from visionforge.runs.workspace import Workspace
from visionforge.training.box_outputs import BoxPredictions

COUNT = 12
SETTINGS = EvaluationSettings(resamples=60)


def evaluation_of(spec=None, tta=True, settings=SETTINGS, truth=None, said=None) -> BoxEvaluation:
    truth = drawn_boxes(COUNT) if truth is None else truth
    alone, views = (said_boxes(truth, seed=seed) if said is None else said for seed in (1, 2))
    alone[0] = views[0] = [-1, 0, 0, 0, 0, 0]  # a picture with nothing, of which nothing is said
    given = (torch.from_numpy(each) for each in (truth, alone, views))
    labels, alone, views = given
    predictions = BoxPredictions("test", labels, alone, views if tta else None, 0.7)
    return evaluate_boxes(predictions, spec or box_spec(), "test", settings)


def written(evaluation, folder, side=None):
    workspace = Workspace(folder)
    side = SideTable(None, None) if side is None else side
    evaluation.task.write_predictions(workspace, evaluation.spec, evaluation.said, evaluation.labels, side)
    with workspace.predictions.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads((folder / "predictions.json").read_text())


def test_numbers_are_those_of_the_public_function():
    evaluation = evaluation_of()
    assert list(evaluation.readings) == ["without_tta", "with_tta"]
    for reading in evaluation.readings.values():
        found = vf.metrics.detection_intervals(evaluation.labels, reading.cases.predicted, 2, resamples=60)
        assert reading.estimate.overall == pytest.approx(found.overall)
        for name, ends in found.intervals.items():
            assert reading.estimate.intervals[name] == pytest.approx(ends)
        for name, values in found.per_class.items():
            assert reading.estimate.per_class[name] == pytest.approx(values)
    assert evaluation.best is evaluation.readings["with_tta"]
    assert evaluation.said.averaged
    assert not evaluation_of(tta=False).said.averaged


def test_cases_of_a_class_are_its_boxes():
    evaluation = evaluation_of(box_spec(classes=("a", "b", "never")))
    kinds = evaluation.labels[..., 0]
    assert evaluation.support == [(kinds == 0).sum(), (kinds == 1).sum(), 0]
    assert evaluation.absent == ["never"]
    content = evaluation.as_dict()
    assert content["per_class"]["with_tta"]["b"]["cases"] == (kinds == 1).sum()
    assert set(content["with_tta"]) == {"map", "map_50", "map_75", "mar_100", "precision", "recall", "f1"}
    assert content["without_tta"]["loss"] == 0.7


def test_f1_of_a_picture():
    truth = np.full((4, 2, 5), -1, np.float32)
    truth[1:, 0] = [0, 0, 0, 10, 10]
    truth[2, 1] = [1, 20, 20, 30, 30]
    said = np.zeros((4, 3, 6), np.float32)
    said[..., 0] = -1
    said[1, 0] = [0, 0.9, 0, 0, 10, 9]
    said[2, 0] = [0, 0.9, 0, 0, 10, 9]
    said[2, 1] = [0, 0.8, 20, 20, 30, 30]  # the wrong class
    said[2, 2] = [1, 0.4, 20, 20, 30, 30]  # not sure enough
    f1 = evaluation_of(truth=truth, said=said).best.cases.f1
    assert f1 == pytest.approx([np.nan, 1, 0.5, 0], nan_ok=True)


def test_a_table_has_a_row_for_each_box(tmp_path):
    evaluation = evaluation_of(box_spec(classes=("=1+1", "b")))
    names = tuple(f"{k}.png" for k in range(COUNT))
    rows, results = written(evaluation, tmp_path, SideTable(names, None))
    said = evaluation.said.labels
    pictures, places = np.nonzero(said[..., 0] >= 0)
    assert len(rows) == len(results) == len(pictures)
    for row, result, picture, place in zip(rows, results, pictures, places, strict=True):
        kind, score, *corners = said[picture, place].tolist()
        assert (int(row["index"]), row["name"]) == (picture, names[picture])
        assert float(row["score"]) == pytest.approx(score)
        assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == pytest.approx(corners, abs=6e-4)
        assert (result["image_id"], result["category_id"]) == (picture, int(kind))
        x, y, width, height = result["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(corners, abs=2e-3)
        if int(row["matched"]):
            truth = torch.from_numpy(evaluation.labels[picture])
            truth = truth[truth[:, 0] == kind]
            assert float(box_iou(torch.tensor([corners]), truth[:, 1:]).max()) >= 0.5
    assert sum(int(row["matched"]) for row in rows) > COUNT / 2
    assert {row["class"] for row in rows} == {"'=1+1", "b"}  # no formula


def test_nothing_is_found_at_all(tmp_path):
    nothing = np.zeros((COUNT, 3, 6), np.float32)
    nothing[..., 0] = -1
    evaluation = evaluation_of(said=nothing)
    rows, results = written(evaluation, tmp_path)
    assert rows == results == []
    assert evaluation.best.estimate.overall["map"] == 0
    assert coco_results(BoxPrediction(nothing)) == []
