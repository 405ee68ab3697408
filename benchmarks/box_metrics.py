"""Metrics of detected boxes against torchmetrics' MeanAveragePrecision on pycocotools, and their bootstrap resamples.

Pictures of 100×100 pixels with up to 10 true boxes and 50 detections each, of three or of 80 classes. One thread; both
start from rows of boxes, padded arrays or lists of tensors, and end with their values, also of each class.

What differs:

- ours computes precision, recall and F1 at a score, too; torchmetrics computes average precision and recall of small,
  medium and large boxes, and recall at 1 and at 10 detections, too. pycocotools alone is given what it needs for boxes
  of all sizes and 100 detections only; its lists of rows are made before.
- torchmetrics rounds thresholds to float32, which changes its values a little, unless it is given ours, as here. The
  script ends if the values differ.

    python benchmarks/box_metrics.py [--rounds 9] [--resamples 1000]
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import rates, ratio, summary
from torchmetrics.detection import MeanAveragePrecision

from visionforge.metrics import detection_intervals, detection_metrics
from visionforge.scoring.boxes import IOUS, RECALLS

TRUE, FOUND, SIDE = 10, 50, 100  # boxes, detections, pixels
REPEATS = 5  # of ours in a timing, whose single run is short for a timer


def simulated(pictures: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return truth (N, 10, 5) and detections (N, 50, 6), of which six in ten are near a true box."""
    rng = np.random.default_rng(0)
    corner, sides = rng.integers(0, SIDE - 20, (pictures, TRUE, 2)), rng.integers(6, 20, (pictures, TRUE, 2))
    truth = np.concatenate([rng.integers(0, classes, (pictures, TRUE, 1)), corner, corner + sides], axis=2)
    near = np.take_along_axis(truth, rng.integers(0, TRUE, (pictures, FOUND, 1)), axis=1)
    near[..., 1:] += rng.integers(-2, 3, (pictures, FOUND, 4))
    corner, sides = rng.integers(0, SIDE - 20, (pictures, FOUND, 2)), rng.integers(6, 20, (pictures, FOUND, 2))
    vain = np.concatenate([rng.integers(0, classes, (pictures, FOUND, 1)), corner, corner + sides], axis=2)
    rows = np.where(rng.random((pictures, FOUND, 1)) < 0.6, near, vain)
    found = np.concatenate([rows[..., :1], rng.random((pictures, FOUND, 1)), rows[..., 1:]], axis=2)
    truth[np.arange(TRUE) >= rng.integers(1, TRUE + 1, (pictures, 1)), 0] = -1
    return truth.astype(np.float32), found.astype(np.float32)


def our_work(truth: np.ndarray, found: np.ndarray, classes: int) -> Callable[[], int]:
    def work() -> int:
        for _ in range(REPEATS):
            detection_metrics(truth, found, classes)
        return REPEATS * len(truth)

    return work


def their_values(truth: list[dict[str, torch.Tensor]], found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    metric = MeanAveragePrecision(
        iou_thresholds=IOUS.tolist(), rec_thresholds=RECALLS.tolist(), class_metrics=True, backend="pycocotools"
    )
    metric.update(found, truth)
    return metric.compute()


def their_input(truth: np.ndarray, found: np.ndarray) -> tuple[list[dict[str, torch.Tensor]], ...]:
    true = [torch.from_numpy(rows[rows[:, 0] >= 0]) for rows in truth]
    said = [torch.from_numpy(rows) for rows in found]
    return (
        [{"boxes": rows[:, 1:], "labels": rows[:, 0].long()} for rows in true],
        [{"boxes": rows[:, 2:], "scores": rows[:, 1], "labels": rows[:, 0].long()} for rows in said],
    )


def pycocotools_work(truth: np.ndarray, found: np.ndarray, classes: int) -> Callable[[], int]:
    annotations = [
        {"image_id": number, "category_id": int(row[0]), "bbox": [*row[1:3], *(row[3:] - row[1:3])], "iscrowd": 0}
        for number, rows in enumerate(truth.astype(float))
        for row in rows[rows[:, 0] >= 0]
    ]
    for number, each in enumerate(annotations, start=1):
        each |= {"id": number, "area": each["bbox"][2] * each["bbox"][3]}
    results = [
        {"image_id": number, "category_id": int(row[0]), "score": row[1], "bbox": [*row[2:4], *(row[4:] - row[2:4])]}
        for number, rows in enumerate(found.astype(float))
        for row in rows
    ]

    def work() -> int:
        given = COCO()
        given.dataset = {
            "images": [{"id": number} for number in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": number} for number in range(classes)],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            given.createIndex()
            evaluation = COCOeval(given, given.loadRes(results), "bbox")
            evaluation.params.maxDets = [100]
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.evaluate()
            evaluation.accumulate()
        return len(truth)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(", ".join(f"{name} {version(name)}" for name in ("numpy", "torchmetrics", "pycocotools")))
    print("| pictures, classes | alternative | pictures/s: median (range) | ours is faster by: median (range) |")
    print("|---|---|---|---|")
    for pictures, classes in ((500, 3), (500, 80)):
        pair = simulated(pictures, classes)
        theirs = their_input(*pair)
        ours, values = detection_metrics(*pair, classes), their_values(*theirs)
        for name in ("map", "map_50", "map_75", "mar_100"):
            if abs(ours[name] - float(values[name])) > 1e-6:
                raise SystemExit(f"{name}: {ours[name]}, but {float(values[name])} by torchmetrics")

        def their_work(given: tuple[list[dict[str, torch.Tensor]], ...] = theirs) -> int:
            their_values(*given)
            return len(given[0])

        alternatives = {
            "visionforge": our_work(*pair, classes),
            "torchmetrics on pycocotools": their_work,
            "pycocotools alone": pycocotools_work(*pair, classes),
        }
        measured = rates(alternatives, options.rounds)
        seconds = []
        for _ in range(options.rounds):
            started = time.perf_counter()
            detection_intervals(*pair, classes, resamples=options.resamples)
            seconds.append(time.perf_counter() - started)
        for name, values_of in measured.items():
            faster = "" if name == "visionforge" else ratio(measured["visionforge"], values_of)
            print(f"| {pictures}, {classes} | {name} | {summary(values_of)} | {faster} |", flush=True)
        taken = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
        print(f"| {pictures}, {classes} | visionforge, {options.resamples:,} resamples | {taken} |  |", flush=True)


if __name__ == "__main__":
    main()
