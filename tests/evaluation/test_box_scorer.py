"""The boxes of a run, read again: the numbers are the run's and pycocotools', and files of strangers are one line."""

import json

import numpy as np
import pytest

from tests.evaluation.test_box_evaluation import COUNT, evaluation_of, written
from tests.scoring.boxes import scored_by_coco
from tests.tasks.helpers import box_spec, drawn_boxes
from visionforge.data.boxes import MAX_BOXES
from visionforge.data.side_table import SideTable
from visionforge.errors import RunError
from visionforge.evaluation import box_scorer as module
from visionforge.evaluation.bootstrap import estimate, paired_differences
from visionforge.evaluation.box_scorer import coco_scorer
from visionforge.runs.workspace import Workspace

CLASSES = box_spec().classes
ASKED = "detection", CLASSES


@pytest.fixture
def folder(tmp_path):
    written(evaluation_of(), tmp_path)
    return tmp_path


def change(path, place, value):
    """Write a file in which one value is another; `place` are the keys to it, and no key is all of it."""
    content = json.loads(path.read_text())
    if not place:
        content = value
    else:
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    path.write_text(json.dumps(content))


def test_numbers_of_the_files_are_those_of_the_run(folder):
    evaluation = evaluation_of()
    scorer = evaluation.task.table_scorer(Workspace(folder).predictions, True, 1, CLASSES)
    (found,) = estimate([scorer], 60)
    assert found == evaluation.best.estimate
    assert scored_by_coco(folder) == pytest.approx([found.overall[n] for n in ("map", "map_50", "map_75", "mar_100")])
    assert coco_scorer(folder, False, *ASKED) is None, "these are with test-time views"
    written(evaluation_of(tta=False), folder)
    (found,) = estimate([coco_scorer(folder, False, *ASKED)], 0)
    assert found.overall == evaluation_of(tta=False).best.estimate.overall
    assert coco_scorer(folder, True, *ASKED) is None


def test_thirds_of_a_pixel_are_not_rounded(tmp_path):
    truth = drawn_boxes(COUNT)
    truth[..., 1:] /= np.float32(3)
    evaluation = evaluation_of(truth=truth)
    written(evaluation, tmp_path)
    scorer = coco_scorer(tmp_path, True, *ASKED)
    rows = evaluation.labels[np.nonzero(evaluation.labels[..., 0] >= 0)]
    corners = {tuple(row) for row in rows[:, 1:].astype(np.float64).tolist()}
    assert {tuple(row) for row in scorer.truth[:, 2:].tolist()} == corners
    assert len(scorer.truth) == len(rows)


def test_truth_is_as_coco_has_it(tmp_path):
    evaluation = evaluation_of()
    names = tuple(f"{k}.png" for k in range(COUNT + 3))  # of a part of the split only
    written(evaluation, tmp_path, SideTable(names, None))
    content = json.loads((tmp_path / "truth.json").read_text())
    size = evaluation.spec.resolution
    assert content["images"][3] == {"id": 3, "width": size, "height": size, "file_name": "3.png"}
    assert len(content["images"]) == COUNT
    assert content["categories"] == [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
    rows = [(image, *row) for image, boxes in enumerate(evaluation.labels) for row in boxes.tolist() if row[0] >= 0]
    for number, entry, row in zip(range(len(rows)), content["annotations"], rows, strict=True):
        image, kind, x, y, right, bottom = row
        sides = right - x, bottom - y
        place = {"id": number + 1, "image_id": image, "category_id": kind, "iscrowd": 0}
        assert entry == {**place, "bbox": [x, y, *sides], "area": sides[0] * sides[1]}


def test_without_a_known_truth_there_is_none(folder):
    evaluation = evaluation_of()
    evaluation.task.write_predictions(Workspace(folder), evaluation.spec, evaluation.said, None, SideTable())
    assert not (folder / "truth.json").exists(), "it would be that of other predictions"
    with pytest.raises(
        RunError, match=r"truth\.json: is not there, .*; `visionforge test --run .* copy both of them here"
    ):
        coco_scorer(folder, True, *ASKED)


def test_nothing_is_found_at_all(tmp_path):
    nothing = np.full((COUNT, 3, 6), -1, np.float32)
    evaluation = evaluation_of(said=nothing)
    written(evaluation, tmp_path)
    (found,) = estimate([coco_scorer(tmp_path, True, *ASKED)], 0)
    assert found.overall == evaluation.best.estimate.overall


@pytest.mark.parametrize("longer", [False, True])
def test_runs_are_compared_on_the_same_truth_only(folder, tmp_path, longer):
    truth = drawn_boxes(COUNT, seed=5)
    if longer:  # by a picture in which there is nothing
        truth = np.concatenate([drawn_boxes(COUNT), np.full((1, *truth.shape[1:]), -1, truth.dtype)])
    written(evaluation_of(truth=truth), tmp_path / "other")
    scorers = [coco_scorer(each, True, *ASKED) for each in (folder, tmp_path / "other")]
    with pytest.raises(ValueError, match="not of the same cases"):
        paired_differences(scorers[:1], scorers[1:], 50)
    assert paired_differences(scorers[:1], scorers[:1], 50)["map"].value == 0


TRUTH = {
    "no truth of predicted boxes: info.test_time_views": [((), []), (("info",), 3), (("info", "test_time_views"), 1)],
    "its categories are not the 2 classes of the run by their names, with the ids 0 to 1": [
        (("categories", 0, "id"), False),
        (("categories", 0, "name"), "other"),
        (("categories",), []),
    ],
    "categories are no list of objects": [(("categories",), 7), (("categories", 0), "a")],
    "its images do not have the ids 0, 1, 2": [
        (("images",), []),
        (("images", 1, "id"), True),
        (("images", 1, "id"), 5),
    ],
    "images are no list of objects": [(("images",), {})],
    "boxes are no list of objects": [(("annotations",), None), (("annotations", 3), [])],
}
BOXES = {
    "box 0 has the image_id -1; allowed: 0 to 11": [("image_id", -1)],
    "has the image_id 12; allowed": [("image_id", 12)],
    "has the image_id True; allowed": [("image_id", True)],
    "has the image_id 1.0; allowed": [("image_id", 1.0)],
    "has the category_id 2; allowed: 0 to 1": [("category_id", 2)],
    "has the category_id list of 1,000; allowed": [("category_id", [0] * 1000)],
    "has the category_id 'aaaaaaaa": [("category_id", "a" * 10_000)],
    "has the bbox list of 3; allowed: four finite numbers": [("bbox", [1, 2, 3])],
    "has the bbox list of 4; allowed": [
        ("bbox", [1, 2, 3, True]),
        ("bbox", [1, 2, 3, "4"]),
        ("bbox", [1, 2, 3, np.inf]),
    ],
    "has the bbox None; allowed": [("bbox", None)],
    "row 0 of picture 1 has no area": [("bbox", [1, 2, 0, 3]), ("bbox", [1, 2, 3, -3])],
    "row 0 of picture 1 has a number that is not finite, or beyond 1e\\+09": [("bbox", [1, 2, 3, 10**80])],
}
SCORES = {
    "has the score None; allowed: a number from 0 to 1": [("score", None)],
    "has the score True; allowed": [("score", True)],
    "row 0 of picture 1 has a score that is not between 0 and 1": [("score", 1.5), ("score", -1)],
}
WRONG = [
    *(("truth.json", place, value, line) for line, each in TRUTH.items() for place, value in each),
    *(("truth.json", ("annotations", 0, key), value, line) for line, each in BOXES.items() for key, value in each),
    *(("predictions.json", (0, key), value, line) for line, each in (BOXES | SCORES).items() for key, value in each),
    ("predictions.json", (), {}, "boxes are no list of objects"),
]


@pytest.mark.parametrize(("name", "place", "value", "line"), WRONG)
def test_files_of_strangers_are_one_line(folder, name, place, value, line):
    change(folder / name, place, value)
    with pytest.raises(RunError, match=line) as raised:
        coco_scorer(folder, True, *ASKED)
    (problem,) = raised.value.problems
    assert problem.startswith(f"{folder / name}: ")
    assert "\n" not in problem
    assert len(problem) < len(str(folder)) + 250


@pytest.mark.parametrize("name", ["truth.json", "predictions.json"])
def test_files_are_bounded_before_anything_is_built_of_them(folder, name, monkeypatch, tmp_path_factory):
    path = folder / name
    content = json.loads(path.read_text())
    boxes = content["annotations"] if name == "truth.json" else content
    boxes += [boxes[0]] * MAX_BOXES
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=f"{name}: image 1 has 10,0.. boxes; allowed: at most 10,000"):
        coco_scorer(folder, True, *ASKED)
    size, text = path.stat().st_size, path.read_text()
    for limit, value in (("MAX_BYTES", size - 1), ("MAX_VALUES", sum(map(text.count, "[{,")) - 1)):
        with monkeypatch.context() as changed:
            changed.setattr(module, limit.replace("MAX_BYTES", "MAX_JSON_BYTES"), value)
            with pytest.raises(RunError, match=rf"{name}: cannot be read .*(larger|holds more) than {value:,}"):
                coco_scorer(folder, True, *ASKED)
    path.write_text(text[:-5])
    with pytest.raises(RunError, match=f"{name}: cannot be read as boxes in COCO's format \\(not valid JSON"):
        coco_scorer(folder, True, *ASKED)
    path.unlink()
    path.symlink_to(tmp_path_factory.mktemp("elsewhere") / name)
    with pytest.raises(RunError, match=f"{name}: is a link that leads out of"):
        coco_scorer(folder, True, *ASKED)
