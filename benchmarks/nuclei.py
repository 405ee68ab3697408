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

import numpy as np
from PIL import Image

from visionforge.metrics import instance_average_precision, instances, segmentation_intervals

DISTANCES = (None, 4.0, 6.0, 8.0, 10.0)  # of two cores, in pixels


def main() -> None:
    """Print the scores as a JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("masks", type=Path, help="folder of true masks")
    parser.add_argument("table", type=Path, help="table that `visionforge predict --images` has written")
    parser.add_argument("--min-distance", type=float, help="score this division only, such as one chosen on validation")
    options = parser.parse_args()
    truth, predicted = [], []
    with options.table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truth.append(np.asarray(Image.open(options.masks / Path(row["path"]).name)))
            predicted.append(np.asarray(Image.open(options.table.parent / row["mask"])))
    true, said = np.stack(truth).astype(np.int64), np.stack(predicted).astype(np.int64)
    found = segmentation_intervals(true > 0, said, 2, background=0, tolerance=2.0)
    for name in ("mean_dice", "mean_dice_by_picture", "mean_iou", "mean_boundary_f1"):
        print(json.dumps({"metric": name, "value": found.overall[name], "interval": found.intervals[name]}))
    for distance in DISTANCES if options.min_distance is None else (options.min_distance,):
        objects = instances(said == 1, min_distance=distance)
        scores = {
            "min_distance": distance,
            "objects": int(sum(len(np.unique(mask)) - 1 for mask in objects)),
            "true_objects": int(sum(len(np.unique(mask)) - 1 for mask in true)),
            "ap_50": instance_average_precision(true, objects),
        }
        print(json.dumps(scores))


if __name__ == "__main__":
    main()
