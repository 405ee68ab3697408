"""Segmentation of nuclei: Dice of the test pictures at their own size, and the average precision of single nuclei.

The pictures are those of the 2018 Data Science Bowl (BBBC038, CC0), as a folder with `train`, `val` and `test`, and in
each `images` and `masks`, whose pixels are the numbers of the nuclei. Train as `docs/howto/segmentation.md` says,
predict with ``visionforge predict --run RUN --images nuclei/test/images --out predicted.csv`` and run::

    python benchmarks/nuclei.py nuclei/test/masks predicted.csv
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionforge.metrics import instance_average_precision, instances, segmentation_intervals

METRICS = ("mean_dice", "mean_dice_by_picture", "mean_iou", "mean_boundary_f1")
DISTANCES = (None, 4.0, 6.0, 8.0, 10.0)  # of two cores, in pixels


def read(masks: Path, table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the true and the predicted masks (N, H, W) of the pictures of a table.

    Args:
        masks: Folder of true masks, whose pixels are numbers of nuclei.
        table: Has the columns `path`, of the picture, and `mask`, of the file with its classes.
    """
    truth, predicted = [], []
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truth.append(np.asarray(Image.open(masks / Path(row["path"]).name)))
            predicted.append(np.asarray(Image.open(table.parent / row["mask"])))
    return np.stack(truth).astype(np.int64), np.stack(predicted).astype(np.int64)


def of_pixels(true: np.ndarray, said: np.ndarray) -> list[dict[str, Any]]:
    """Return the metrics of the masks with their intervals."""
    found = segmentation_intervals(true > 0, said, 2, background=0, tolerance=2.0)
    return [{"metric": name, "value": found.overall[name], "interval": found.intervals[name]} for name in METRICS]


def of_nuclei(true: np.ndarray, said: np.ndarray, distance: float | None) -> dict[str, Any]:
    """Return how many nuclei there are and their average precision, if masks are divided at this distance."""
    objects = instances(said == 1, min_distance=distance)
    return {
        "min_distance": distance,
        "objects": int(sum(len(np.unique(mask)) - 1 for mask in objects)),
        "true_objects": int(sum(len(np.unique(mask)) - 1 for mask in true)),
        "ap_50": instance_average_precision(true, objects),
    }


def main() -> None:
    """Print the scores as a JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("masks", type=Path, help="folder of true masks")
    parser.add_argument("table", type=Path, help="table that `visionforge predict --images` has written")
    parser.add_argument("--min-distance", type=float, help="score this division only, such as one chosen on validation")
    options = parser.parse_args()
    true, said = read(options.masks, options.table)
    distances = DISTANCES if options.min_distance is None else (options.min_distance,)
    for found in (*of_pixels(true, said), *(of_nuclei(true, said, distance) for distance in distances)):
        print(json.dumps(found))


if __name__ == "__main__":
    main()
