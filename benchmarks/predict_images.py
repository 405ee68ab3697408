"""Images per second from a folder of PNGs to their probabilities, against torchvision and a DataLoader with 2 workers.

    python benchmarks/predict_images.py [--rounds 5] [--images 10000] [--models mini_cnn resnet18]

Both read the same files, scale and normalise them, and run the same network with the same weights, without test-time
augmentation, in batches of 128. The peak of the resident memory is that of `visionforge predict --images` in a process
of its own, which includes the imports (Linux).
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from picture_files import SPEC, make_pictures, write_checkpoint
from picture_peer import PIXELS, Folder
from timing import rates, ratio, summary
from torch.utils.data import DataLoader

from visionforge.data.picture_sources import list_pictures
from visionforge.data.stream import picture_batches
from visionforge.evaluation.prediction_table import prediction_columns, rows_of
from visionforge.evaluation.table_writers import Column
from visionforge.inference.loading import load_classifier
from visionforge.inference.predictor import NetworkPredictor
from visionforge.training.classifier import ImageClassifier

BATCH, THREADS = 128, 2


def ours(model: ImageClassifier, folder: Path) -> Callable[[], int]:
    def work() -> int:
        batches = picture_batches(list_pictures([folder]), PIXELS, 3, BATCH, THREADS)
        predictor, rows = NetworkPredictor(model, tta=False), 0
        for batch in batches:
            columns = prediction_columns(SPEC, predictor(batch.images), [(Column("path"), batch.names)])
            rows += len(rows_of(columns))
        return rows

    return work


def theirs(model: ImageClassifier, folder: Path) -> Callable[[], int]:
    def work() -> int:
        loader = DataLoader(Folder(folder), BATCH, num_workers=2)
        with torch.inference_mode():
            return sum(len(model(images).softmax(1).tolist()) for images in loader)

    return work


def decoding(folder: Path) -> Callable[[], int]:
    def work() -> int:
        return sum(len(b.names) for b in picture_batches(list_pictures([folder]), PIXELS, 3, BATCH, THREADS))

    return work


# VmHWM belongs to the new process alone; ru_maxrss would begin with that of the process which started it
CHILD = """
import json, pathlib, re, sys
from visionforge.cli.main import main
main(["predict", "--ckpt_path", sys.argv[1], "--out", sys.argv[3], "--overwrite", "--images", sys.argv[2]])
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def peak_megabytes(checkpoint: Path, pictures: Path, out: Path) -> float:
    """Return the peak of the resident memory of one prediction in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(checkpoint), str(pictures), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--models", nargs="+", default=["mini_cnn", "resnet18"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few = options.images // 10
        for count in (few, options.images):
            make_pictures(folder / str(count), count)
        pictures = folder / str(options.images)
        print("| network | alternative | images/s: median (range) | ours is faster by: median (range) |")
        print("|---|---|---|---|")
        for name in options.models:
            write_checkpoint(folder / f"{name}.ckpt", name)
            model = load_classifier(folder / f"{name}.ckpt")
            alternatives = {
                "visionforge, 2 threads": ours(model, pictures),
                "torchvision, 2 workers": theirs(model, pictures),
            }
            measured = rates(alternatives, options.rounds)
            mine = measured["visionforge, 2 threads"]
            for alternative, values in measured.items():
                faster = "" if values is mine else ratio(mine, values)
                print(f"| {name} | {alternative} | {summary(values)} | {faster} |", flush=True)
        alone = rates({"": decoding(pictures)}, options.rounds)[""]
        print(f"| none | visionforge, reading alone | {summary(alone)} |  |")
        print("\n| network | pictures | peak resident memory |\n|---|---|---|")
        for name in options.models:
            for count in (few, options.images):
                peak = peak_megabytes(folder / f"{name}.ckpt", folder / str(count), folder / "out.csv")
                print(f"| {name} | {count:,} | {peak:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
