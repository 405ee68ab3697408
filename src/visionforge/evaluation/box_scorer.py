"""The boxes of a run, read from its files in COCO's format to be scored again; they may come from a stranger."""

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.config.schema import TaskName
from visionforge.config.schema.metrics import metrics_of
from visionforge.data.boxes import MAX_BOXES
from visionforge.errors import RunError
from visionforge.evaluation.box_files import RESULTS, TRUTH, VIEWS
from visionforge.evaluation.scores import PictureScorer
from visionforge.reading import UnreadableError, read_json
from visionforge.runs.files import within
from visionforge.scoring.assignment import Boxes, checked_boxes
from visionforge.scoring.box_cases import BoxCases

MAX_JSON_BYTES = 1 << 28  # 20,000 images of a hundred predicted boxes each
MAX_VALUES = 20_000_000  # brackets and commas in as many bytes: a box has nine in some 130
_LONGEST = 60  # of a value in a message
_NUMBERS = (int, float)  # not bool, which is an int


def coco_scorer(folder: Path, tta: bool, task: TaskName, classes: Sequence[str]) -> PictureScorer | None:
    """Return what computes the metrics of `predictions.json` and `truth.json`; None if they are of the other reading.

    Args:
        folder: Where they lie.
        tta: Whether test-time views have to be asked together.
        task: Kind of labels.
        classes: Names of the classes.

    Raises:
        RunError: If one is not there, or is no such file.
    """
    path = within(folder, TRUTH)
    if not path.is_file():
        raise RunError(
            f"{path}: is not there, as in runs of earlier versions; `visionforge test --run {folder.name}` writes it "
            f"and {RESULTS} into a folder of the run's evaluations: copy both of them here"
        )
    content = _read(path)
    info = content.get("info") if isinstance(content, Mapping) else None
    views = info.get(VIEWS) if isinstance(info, Mapping) else None
    if not isinstance(views, bool):
        raise RunError(f"{path}: no truth of predicted boxes: info.{VIEWS} is neither true nor false")
    if views != tta:
        return None
    count = _count(path, content, classes)
    true = _boxes(path, "truth", content.get("annotations"), count, len(classes))
    path = within(folder, RESULTS)
    said = _boxes(path, "predicted", _read(path), count, len(classes))
    cases = BoxCases.of_boxes(true, said, count, len(classes))
    return PictureScorer(cases, [metric for metric in metrics_of(task) if metric.shared])


def _read(path: Path) -> Any:
    try:
        return read_json(path, MAX_JSON_BYTES, MAX_VALUES)
    except (OSError, UnreadableError) as error:
        raise RunError(f"{path}: cannot be read as boxes in COCO's format ({error})") from error


def _count(path: Path, content: Mapping[str, Any], classes: Sequence[str]) -> int:
    """Return the number of images.

    Raises:
        RunError: If the classes are others, or images are not numbered by their positions.
    """
    categories = _entries(path, "categories", content.get("categories"))
    numbers = [each.get("id") for each in categories]
    if not _counted(numbers) or [each.get("name") for each in categories] != list(classes):
        raise RunError(
            f"{path}: its categories are not the {len(classes)} classes of the run by their names, with the ids 0 to "
            f"{len(classes) - 1}"
        )
    images = _entries(path, "images", content.get("images"))
    if not images or not _counted([each.get("id") for each in images]):
        raise RunError(f"{path}: its images do not have the ids 0, 1, 2 …, their positions in the split")
    return len(images)


def _counted(numbers: Sequence[Any]) -> bool:
    return all(type(number) is int for number in numbers) and list(numbers) == list(range(len(numbers)))


def _entries(path: Path, name: str, given: Any) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise RunError(f"{path}: {name} are no list of objects, as they are in COCO's format")
    return given


def _boxes(path: Path, name: str, given: Any, count: int, classes: int) -> Boxes:
    """Return the boxes of a list of COCO's; `name` is ``truth``, or ``predicted``, which have a score.

    Raises:
        RunError: If one is none.
    """
    scored = name == "predicted"
    keys = ("image_id", "category_id", "bbox", *(["score"] if scored else []))
    numbers = array("d")
    for place, entry in enumerate(_entries(path, "boxes", given)):
        values: list[Any] = [entry.get(key) for key in keys]
        image, kind, box, *score = values
        if not _whole(image, count):
            problem = f"the image_id {_short(image)}; allowed: 0 to {count - 1}"
        elif not _whole(kind, classes):
            problem = f"the category_id {_short(kind)}; allowed: 0 to {classes - 1}"
        elif not isinstance(box, list) or len(box) != 4 or not all(type(side) in _NUMBERS for side in box):
            problem = f"the bbox {_short(box)}; allowed: four finite numbers, x, y, width, height"
        elif not all(type(value) in _NUMBERS for value in score):
            problem = f"the score {_short(*score)}; allowed: a number from 0 to 1"
        else:
            numbers.extend((image, kind, *score, *box))
            continue
        raise RunError(f"{path}: {name} box {place:,} has {problem}")
    rows = np.array(numbers).reshape(-1, 7 if scored else 6)
    rows[:, -2:] += rows[:, -4:-2]
    pictures = rows[:, 0].astype(np.int64)
    each = np.bincount(pictures, minlength=count)
    if each.max() > MAX_BOXES:
        raise RunError(f"{path}: image {each.argmax()} has {each.max():,} boxes; allowed: at most {MAX_BOXES:,}")
    try:
        return checked_boxes(name, pictures, np.arange(len(rows)), rows[:, 1:])
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error


def _whole(value: Any, count: int) -> bool:
    return type(value) is int and 0 <= value < count


def _short(value: Any) -> str:
    """Return how a value is shown in a message: of a long one the begin, of a list or an object what it is."""
    if isinstance(value, Mapping | list):
        return f"{'list' if isinstance(value, list) else 'object'} of {len(value):,}"
    text = repr(value[:_LONGEST] if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
