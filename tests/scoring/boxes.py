"""Pictures with true and predicted boxes, and what pycocotools and plain loops make of them."""

import contextlib
import io
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES = 4
KINDS = (
    "random",
    "no truth",
    "no predictions",
    "neither",
    "a class without truth",
    "a class without predictions",
    "ties",
    "duplicates",
    "one picture",
    "many",
    "perfect",
    "empty pictures",
    "fractions",
)


def padded(rows: list[list[list[float]]], width: int) -> np.ndarray:
    """Return (N, longest, width) float32, filled up with rows of class -1."""
    found = np.full((len(rows), max(map(len, rows)), width), np.nan, dtype=np.float32)
    found[..., 0] = -1
    for number, each in enumerate(rows):
        if each:
            found[number, : len(each)] = each
    return found


def pictures(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return truth (N, M, 5) and predictions (N, D, 6) of one kind; whole pixels, so that an IoU may be a threshold."""
    rng = np.random.default_rng(seed)
    count = {"one picture": 1, "many": 2}.get(kind, 15)
    most = 130 if kind == "many" else 12
    truth: list[list[list[float]]] = []
    predicted: list[list[list[float]]] = []
    for number in range(count):
        true, said = [], []
        for _ in range(0 if kind == "empty pictures" and number % 3 == 0 else rng.integers(1, 7)):
            corner, sides = rng.integers(0, 60, 2), rng.integers(5, 21, 2)
            true.append([rng.integers(CLASSES), *corner, *(corner + sides)])
        for _ in range(0 if kind == "empty pictures" and number % 3 == 1 else rng.integers(most // 2, most)):
            row = [rng.integers(CLASSES), *rng.integers(0, 60, 2), 0, 0]
            row[3:] = [row[1] + rng.integers(5, 21), row[2] + rng.integers(5, 21)]
            if true and rng.random() < 0.7:
                row = list(true[rng.integers(len(true))])
                row[1:3] = np.asarray(row[1:3]) - rng.integers(0, 5, 2)
                if rng.random() < 0.1:
                    row[0] = rng.integers(CLASSES)
            score = rng.integers(0, 5) / 4 if kind == "ties" else rng.random()
            said.append([row[0], score, *row[1:]])
        truth.append(true)
        predicted.append(said)
    if kind == "many":  # more than 100 of one class
        predicted = [[[0, row[1] / 2, *row[2:]] for row in said] + said for said in predicted]
    if kind == "duplicates":
        truth = [true + true[:2] for true in truth]
        predicted = [said + [[row[0], row[1] * 0.9, *row[2:]] for row in said] + said[:3] for said in predicted]
    if kind == "perfect":
        predicted = [[[row[0], 0.9, *row[1:]] for row in true] for true in truth]
    if kind == "fractions":
        truth = [[[row[0], *(np.asarray(row[1:]) / 7)] for row in true] for true in truth]
        predicted = [[[*row[:2], *(np.asarray(row[2:]) / 7)] for row in said] for said in predicted]
    both = padded(truth, 5), padded(predicted, 6)
    if kind in ("no truth", "neither"):
        both[0][:] = -1
    if kind in ("no predictions", "neither"):
        both = both[0], both[1][:, :0]
    if kind.startswith("a class"):
        of = both[0] if kind.endswith("truth") else both[1]
        of[of[..., 0] == 2] = -1
    return both


def coco(truth: np.ndarray, predicted: np.ndarray, most: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and highest recall (10, K) of pycocotools; NaN of an absent class."""
    annotations, results = [], []
    for number, (true, said) in enumerate(zip(truth.astype(float), predicted.astype(float), strict=True)):
        for row in true[true[:, 0] >= 0]:
            sides = row[3:] - row[1:3]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(row[0]),
                    "bbox": [*row[1:3], *sides],
                    "area": sides.prod(),
                    "iscrowd": 0,
                }
            )
        for row in said[said[:, 0] >= 0]:
            box = [*row[2:4], *(row[4:] - row[2:4])]
            results.append({"image_id": number, "category_id": int(row[0]), "score": row[1], "bbox": box})
    if not results:
        return (np.where(np.isin(np.arange(CLASSES), truth[..., 0]), 0.0, np.nan)[None].repeat(10, axis=0),) * 2
    given = COCO()
    given.dataset = {
        "images": [{"id": number} for number in range(len(truth))],
        "annotations": annotations,
        "categories": [{"id": number} for number in range(CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        given.createIndex()
        evaluation = COCOeval(given, given.loadRes(results), "bbox")
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][:, :, :, 0, 0], evaluation.eval["recall"][:, :, 0, 0]
    absent = recall < 0
    return np.where(absent, np.nan, precision.mean(axis=1)), np.where(absent, np.nan, recall)


def scored_by_coco(folder: Path) -> list[float]:
    """Return AP, AP at IoU 0.50 and 0.75, and AR of 100 boxes, of the files of a run as pycocotools scores them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(evaluation.stats[place]) for place in (0, 1, 2, 8)]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return IoU of two boxes."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - width * height
    return width * height / union


def found_by_loops(true: np.ndarray, said: np.ndarray, iou: float) -> tuple[list[bool], list[bool]]:
    """Return of one picture which predicted rows are right, and which true rows are missed."""
    right, missed = [False] * len(said), [row[0] >= 0 for row in true]
    for number in sorted(range(len(said)), key=lambda place: -said[place][1]):
        best, value = None, iou
        for place, row in enumerate(true):
            if missed[place] and row[0] == said[number][0] and overlap(row[1:], said[number][2:]) >= value:
                best, value = place, overlap(row[1:], said[number][2:])
        if best is not None:
            right[number], missed[best] = True, False
    return right, missed
