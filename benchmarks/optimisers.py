"""Compare SGD, AdamW and Muon at the same number of epochs, each at the best of its learning rates.

``python benchmarks/optimisers.py --root FOLDER`` prints a Markdown table. The learning rate is chosen by the mean
validation AUC over the seeds of the first part; the figures then come from other seeds. The test split is not read.
"""

import argparse
import logging
import statistics
import sys
import time
import warnings

import lightning.pytorch as pl

from visionforge.data import MedMNISTDataModule
from visionforge.engine.lightning_compat import use_current_leaf_spec
from visionforge.training.classifier import ImageClassifier

CHOOSING, REPORTED = (0, 1), (10, 11, 12, 13, 14)  # seeds
OPTIMISERS = {
    "sgd": ({"name": "sgd", "nesterov": True, "weight_decay": 5e-4}, (0.01, 0.03, 0.1)),
    "adamw": ({"name": "adamw", "weight_decay": 0.05}, (3e-4, 1e-3, 3e-3, 1e-2)),
    "muon": ({"name": "muon", "momentum": 0.95, "nesterov": True, "weight_decay": 0.05}, (3e-4, 1e-3, 3e-3, 1e-2)),
}


def fit(
    options: argparse.Namespace, optimizer: dict[str, object], rate: float, seed: int
) -> tuple[float, float, float]:
    """Return validation AUC and loss after the last epoch, and images per second of the training."""
    pl.seed_everything(seed, verbose=False)
    data = MedMNISTDataModule(options.dataset, root=options.root, batch_size=64, balanced_sampling=False)
    model = ImageClassifier(
        backbone={"name": options.backbone, "pretrained": False},
        optimizer={**optimizer, "learning_rate": rate},
        schedule={"warmup_epochs": 1},
        mixup={"alpha": 0.0},
    )
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        precision=options.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    started = time.perf_counter()
    trainer.fit(model, datamodule=data)
    seconds = time.perf_counter() - started
    metrics = trainer.callback_metrics
    images = trainer.global_step * data.settings.batch_size
    return float(metrics["val/auc"]), float(metrics["val/loss"]), images / seconds


def benchmark() -> None:
    """Choose the learning rates, then report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder that holds the archives")
    parser.add_argument("--dataset", default="retinamnist")
    parser.add_argument("--backbone", default="mini_cnn")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    use_current_leaf_spec()
    rows = [
        "| data set, backbone, epochs | optimiser | learning rate | validation AUC | validation loss | images/s |",
        "|---|---|---|---|---|---|",
    ]
    chosen = {}
    for name, (settings, rates) in OPTIMISERS.items():
        means = {rate: statistics.mean(fit(options, settings, rate, seed)[0] for seed in CHOOSING) for rate in rates}
        chosen[name] = max(means, key=lambda rate: means[rate])
        sys.stderr.write(f"{name}: validation AUC per learning rate {means}\n")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in OPTIMISERS}
    for seed in REPORTED:  # in turn, so that a change of the machine's speed meets all of them alike
        for name, (settings, _) in OPTIMISERS.items():
            found[name].append(fit(options, settings, chosen[name], seed))
    for name, values in found.items():
        aucs, losses, speeds = zip(*values, strict=True)
        rows.append(
            f"| {options.dataset}, {options.backbone}, {options.epochs} | {name} | {chosen[name]:g} | "
            f"{statistics.mean(aucs):.4f} ± {statistics.stdev(aucs):.4f} | "
            f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f} | "
            f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f}) |"
        )
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    benchmark()
