"""Detectors on rendered shapes by the shipped command: AP50 of the test images, and what that took.

The command is that of `docs/howto/detection.md`, once as it stands there, with FCOS, and once with Faster R-CNN, whose
epoch takes four to six times as long and which needs a third of the epochs by its validation.

    OMP_NUM_THREADS=1 python benchmarks/shapes.py [--detectors fcos faster_rcnn] [--seeds 42]
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from timing import timed

COMMAND = [
    *("fit", "--data.dataset", "synthetic", "--data.synthetic.task", "detection", "--data.resolution", "64"),
    *("--data.synthetic.train", "1024", "--data.synthetic.val", "128", "--data.synthetic.test", "256"),
    *("--data.batch_size", "16", "--model.backbone.name", "mini_cnn", "--model.backbone.pretrained", "false"),
    *("--model.optimizer.name", "adamw", "--model.optimizer.learning_rate", "0.002"),
    *("--data.augmentation.preset", "none"),
]
EPOCHS = {"fcos": 12, "retinanet": 12, "faster_rcnn": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", choices=EPOCHS, default=["fcos", "faster_rcnn"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    options = parser.parse_args()
    print("| detector, epochs | seed | CPU minutes | minutes | AP50 (95 % interval) | AP |\n|---|---|---|---|---|---|")
    for name in options.detectors:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                asked = ["--model.detector.name", name, "--seed_everything", str(seed)]
                asked += ["--trainer.max_epochs", str(EPOCHS[name])]
                command = [sys.executable, "-m", "visionforge", *COMMAND, *asked]
                spent = timed([*command, "--trainer.default_root_dir", folder], dict(os.environ))
                found = json.loads((Path(folder) / "latest" / "metrics.json").read_text())
            values = found["with_tta"]
            low, high = found["intervals"]["with_tta"]["map_50"]
            minutes = f"{spent['cpu_s'] / 60:.1f} | {spent['wall_s'] / 60:.1f}"
            scores = f"{values['map_50']:.3f} ({low:.3f} to {high:.3f}) | {values['map']:.3f}"
            print(f"| {name}, {EPOCHS[name]} | {seed} | {minutes} | {scores} |", flush=True)


if __name__ == "__main__":
    main()
