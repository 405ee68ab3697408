"""Boxes of blood cells: visionforge beside a detector of torchvision that is trained for as much processor time.

The pictures are those of BCCD (MIT; 364 blood smears of 640×480 pixels with red and white cells and platelets, in the
layout of Pascal VOC, with its published split), brought to 160×160 pixels by ``visionforge datasets import``. For each
seed, `bccd.yaml` is run as ``visionforge fit`` runs it; the processor time of that command, its imports, validation,
test and report included, is what `bccd_baseline.py` may use. Both sides begin with random weights, keep the best of
their validations, read the test split once, without test-time augmentation, and are scored by the same code.

Protocol, written before the test split was read: settings were chosen on the validation pictures with seed 42 and
about 80 s of processor time each. Ours had one trial, that of `bccd.yaml` with 8 epochs (AP 0.350); the first seed to
be tested is 42, then 1 and 2 as far as there is time. torchvision's FCOS on ResNet-18, pictures enlarged to 320
pixels, had 0.275 with a pyramid of 64 channels and two convolutions a branch, as ours, and 0.008 with torchvision's 256
and four; the first is `BASELINE`.

    OMP_NUM_THREADS=1 python benchmarks/bccd.py BCCD --outputs FOLDER [--seeds 42 1 2]

What `FOLDER` already holds is read, not repeated.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
from pathlib import Path

import numpy as np
from bccd_baseline import CLASSES, boxes_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import timed

from visionforge.evaluation.bootstrap import paired_differences
from visionforge.evaluation.scores import PictureScorer, metrics_of_form
from visionforge.metrics import detection_intervals
from visionforge.scoring.box_cases import BoxCases

HERE = Path(__file__).parent
SIDE = 160
BASELINE = ("--network", "fcos", "--side", "320", "--width", "64", "--depth", "2", "--learning-rate", "1e-3")
METRICS = ("map", "map_50", "map_75", "mar_100")


def detections_of(results: Path, pictures: int) -> np.ndarray:
    """Return (N, D, 6) rows [class, score, x1, y1, x2, y2] of results in COCO's format, filled up with the class -1."""
    rows: list[list[list[float]]] = [[] for _ in range(pictures)]
    for each in json.loads(results.read_text()):
        x, y, width, height = each["bbox"]
        rows[each["image_id"]].append([each["category_id"], each["score"], x, y, x + width, y + height])
    out = np.zeros((pictures, max(map(len, rows)), 6), dtype=np.float32)
    out[..., 0] = -1
    for place, found in zip(out, rows, strict=True):
        place[: len(found)] = found
    return out


def by_pycocotools(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Return AP and AP50 by COCO's own code."""
    given = COCO()
    given.dataset = {
        "images": [{"id": number} for number in range(len(truth))],
        "categories": [{"id": number} for number in range(CLASSES)],
        "annotations": [],
    }
    for number, rows in enumerate(truth.astype(float)):
        for kind, x1, y1, x2, y2 in rows[rows[:, 0] >= 0]:
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            one = {"id": len(given.dataset["annotations"]) + 1, "image_id": number, "category_id": int(kind), **box}
            given.dataset["annotations"].append(one)
    results = [
        {"image_id": number, "category_id": int(kind), "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for number, rows in enumerate(found.astype(float))
        for kind, score, x1, y1, x2, y2 in rows[rows[:, 0] >= 0]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        given.createIndex()
        evaluation = COCOeval(given, given.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def ours(seed: int, outputs: Path, environment: dict[str, str]) -> dict[str, float]:
    """Train and test visionforge, unless that is done; its detections are then in `ours_SEED.json`."""
    kept, spent = outputs / f"ours_{seed}.json", outputs / f"ours_{seed}_time.json"
    if not kept.is_file():
        runs = outputs / f"ours_{seed}"
        command = [sys.executable, "-m", "visionforge", "fit", "--config", str(HERE / "bccd.yaml")]
        settings = ["--seed_everything", str(seed), "--trainer.default_root_dir", str(runs)]
        spent.write_text(json.dumps(timed([*command, *settings], environment)))
        kept.write_text((runs / "latest" / "predictions.json").read_text())
    return dict(json.loads(spent.read_text()))


def theirs(seed: int, seconds: float, archive: Path, outputs: Path) -> dict[str, float]:
    """Train and test torchvision's detector, unless that is done; its detections are then in `theirs_SEED.npy`."""
    kept, spent = outputs / f"theirs_{seed}.npy", outputs / f"theirs_{seed}_time.json"
    if not kept.is_file():
        command = [sys.executable, str(HERE / "bccd_baseline.py"), str(archive), "--cpu-minutes", str(seconds / 60)]
        last = ["--seed", str(seed), "--out", str(kept)]
        spent.write_text(json.dumps(timed([*command, *BASELINE, *last], dict(os.environ))))
    return dict(json.loads(spent.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with JPEGImages, Annotations and ImageSets")
    parser.add_argument("--outputs", type=Path, required=True, help="folder for the data set and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    options = parser.parse_args()
    outputs = options.outputs.resolve()
    data = outputs / "data"
    environment = {**os.environ, "VISIONFORGE_CATALOG": str(outputs / "catalog"), "VISIONFORGE_DATA": str(data)}
    if not list(data.glob("bccd_*.npz")):
        data.mkdir(parents=True, exist_ok=True)
        asked = ["--name", "bccd", "--resolution", str(SIDE), "--vflip", "--rotation", "any"]
        timed([sys.executable, "-m", "visionforge", "datasets", "import", str(options.source), *asked], environment)
    (archive,) = data.glob("bccd_*.npz")
    truth = boxes_of(np.load(archive, allow_pickle=False), "test")
    scores: dict[str, list[dict[str, float]]] = {"visionforge": [], "torchvision": []}
    print("| side | seed | CPU minutes | AP (95 % interval) | AP50 (95 % interval) | AP, AP50 by pycocotools |")
    print("|---|---|---|---|---|---|")
    for seed in options.seeds:
        spent = ours(seed, outputs, environment)
        other = theirs(seed, spent["cpu_s"], archive, outputs)
        found = {
            "visionforge": (spent, detections_of(outputs / f"ours_{seed}.json", len(truth))),
            "torchvision": (other, np.load(outputs / f"theirs_{seed}.npy")),
        }
        for name, (time_of, said) in found.items():
            made = detection_intervals(truth, said, CLASSES)
            coco = by_pycocotools(truth, said)
            scores[name].append(dict(made.overall))
            values = {each: {"value": made.overall[each], "interval": made.intervals[each]} for each in METRICS}
            of_classes = {"ap": list(made.per_class["ap"]), "ap_50": list(made.per_class["ap_50"])}
            print(json.dumps({"side": name, "seed": seed, **time_of, **values, **of_classes}), file=sys.stderr)
            cells = [
                f"{made.overall[each]:.3f} ({made.intervals[each][0]:.3f} to {made.intervals[each][1]:.3f})"
                for each in ("map", "map_50")
            ]
            minutes = f"{time_of['cpu_s'] / 60:.1f}"
            print(f"| {name} | {seed} | {minutes} | {' | '.join(cells)} | {coco[0]:.3f}, {coco[1]:.3f} |", flush=True)
        asked_of = metrics_of_form("boxes")
        pair = [[PictureScorer(BoxCases(truth, said, CLASSES), asked_of)] for _, said in found.values()]
        leads = paired_differences(*pair)
        said_of = {each: {"value": leads[each].value, "interval": leads[each].interval} for each in METRICS}
        print(json.dumps({"lead of": "visionforge", "seed": seed, **said_of}), file=sys.stderr)
    for name, each in scores.items():
        if len(each) > 1:
            for metric in ("map", "map_50"):
                values_of = [one[metric] for one in each]
                print(f"{name}: {metric} {statistics.mean(values_of):.3f} ± {statistics.stdev(values_of):.3f}")


if __name__ == "__main__":
    main()
