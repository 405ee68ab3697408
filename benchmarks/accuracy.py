"""Train on MedMNIST from scratch with three seeds, test once, and set the result beside what MedMNIST v2 published.

``python benchmarks/accuracy.py --root FOLDER`` takes the archives from FOLDER and prints a Markdown table. Each
configuration in benchmarks/accuracy/ is run exactly as ``visionforge fit --config`` runs it; its settings were chosen
on the validation split, before the test split was read.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import yaml
from sklearn.metrics import cohen_kappa_score

from visionforge.cli.main import main
from visionforge.evaluation.predictions import read_predictions

SEEDS = (42, 1, 2)
CONFIGURATIONS = Path(__file__).parent / "accuracy"
# AUC, accuracy in Yang et al., 2023, Scientific Data 10:41: for images those of ResNet-18 (28), table 4; for volumes
# the highest in the table of the 3D sets, the AUC of ResNet-18 + ACS (accuracy 0.754) and the accuracy of auto-sklearn
PUBLISHED = {
    "adrenalmnist3d": (0.839, 0.802),
    "breastmnist": (0.901, 0.863),
    "retinamnist": (0.717, 0.524),
}


def run(configuration: Path, seed: int, root: str, outputs: Path) -> dict[str, float]:
    """Fit and test once; return the metrics of the image alone and with test-time augmentation.

    A run that `outputs` already holds is read, not repeated.
    """
    folder = outputs / f"{configuration.stem}_{seed}"
    arguments = ["--config", str(configuration), "--seed_everything", str(seed), "--data.root", root]
    made = folder / "latest"
    finished = (made / "metrics.json").is_file()
    if not finished and main(["fit", *arguments, "--trainer.default_root_dir", str(folder)]) != 0:
        raise SystemExit(f"{configuration}: the fit failed")
    content = json.loads((made / "metrics.json").read_text())
    found = {
        "AUC": content["without_tta"]["auc"],
        "accuracy": content["without_tta"]["accuracy"],
        "AUC, TTA": content["with_tta"]["auc"],
        "accuracy, TTA": content["with_tta"]["accuracy"],
    }
    if content["task"] == "ordinal":
        shown, labels = read_predictions(made / "predictions.csv")
        found["quadratic kappa, TTA"] = float(cohen_kappa_score(labels, shown.argmax(1), weights="quadratic"))
    return found


def report(name: str, found: list[dict[str, float]]) -> list[str]:
    """Return the table's rows of one data set."""
    published = dict(zip(("AUC", "accuracy"), PUBLISHED[name], strict=True))
    rows = []
    for key in found[0]:
        values = [each[key] for each in found]
        reference = published.get(key.removesuffix(", TTA"))
        rows.append(
            f"| {name} | {key} | {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} | "
            f"{', '.join(f'{value:.3f}' for value in values)} | {'' if reference is None else f'{reference:.3f}'} |"
        )
    return rows


def benchmark() -> None:
    """Run all seeds of all configurations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder that holds the archives")
    parser.add_argument("--only", choices=sorted(PUBLISHED), help="one data set")
    parser.add_argument("--outputs", type=Path, help="keep the runs here; those that are here are not repeated")
    options = parser.parse_args()
    rows = ["| data set | test metric | mean ± sd of 3 seeds | each seed | published |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        outputs = options.outputs or Path(folder)
        for configuration in sorted(CONFIGURATIONS.glob("*.yaml")):
            name = yaml.safe_load(configuration.read_text())["data"]["dataset"]
            if options.only in (None, name):
                rows += report(name, [run(configuration, seed, options.root, outputs) for seed in SEEDS])
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    benchmark()
