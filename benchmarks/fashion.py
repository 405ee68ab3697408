"""What an accuracy on Fashion-MNIST costs: `fit` with the recipe `large_28` at several lengths, whole commands timed.

    python benchmarks/fashion.py --root FOLDER --outputs FOLDER [--epochs 8 16 32] [--seeds 1 2 3]

Processor time and time on the clock are those of the whole command, from its start to the report. The test split is
read once by each run, with its best checkpoint by validation; the recipe was found on validation images. A run that the
outputs folder already holds is read, not repeated.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from timing import timed

PUBLISHED = 0.949  # test accuracy of ResNet-18, from the README of Fashion-MNIST


def measured(options: argparse.Namespace, epochs: int, seed: int) -> dict[str, float]:
    """Return accuracies of a run, and what its command took in seconds; made once, then read."""
    folder = options.outputs / f"{epochs}_{seed}"
    noted = folder / "cost.json"
    if not noted.is_file():
        settings = {
            "data.dataset": "fashionmnist",
            "data.root": options.root,
            "seed_everything": seed,
            "trainer.max_epochs": epochs,
            "trainer.precision": options.precision,
            "trainer.default_root_dir": folder,
            "model.monitor": "val/accuracy",
        }
        given = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        spent = timed([sys.executable, "-m", "visionforge", "fit", "--config", "large_28", *given], dict(os.environ))
        noted.write_text(json.dumps(spent))
    content = json.loads((folder / "latest" / "metrics.json").read_text())
    accuracies = {views: content[views]["accuracy"] for views in ("without_tta", "with_tta") if content.get(views)}
    return {**accuracies, **json.loads(noted.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds fashionmnist.npz")
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--precision", default="bf16-mixed")
    options = parser.parse_args()
    print(f"published for ResNet-18: {PUBLISHED}; precision: {options.precision}")
    print("| epochs | test accuracy | with mirrored views | each seed | CPU minutes of a run | minutes on the clock |")
    print("|---|---|---|---|---|---|")
    for epochs in options.epochs:
        found = [measured(options, epochs, seed) for seed in options.seeds]
        cells = [f"{epochs}"]
        for views in ("without_tta", "with_tta"):
            values = [each[views] for each in found]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        cells.append(", ".join(f"{each['with_tta']:.4f}" for each in found))
        for name in ("cpu_s", "wall_s"):
            cells.append(f"{statistics.median(each[name] for each in found) / 60:.1f}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
