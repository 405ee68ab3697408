"""Do sets of classes hold what they promise, and which score finds images of another kind?

Small networks are trained on the handwritten digits of scikit-learn and on BreastMNIST. Coverage: validation and test
images are dealt anew into two halves many times; sets are fitted on one and counted on the other. Far-out images: the
area under the ROC curve between the test images and others that the network was not trained for.
"""

import argparse
import logging
import warnings

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from visionforge import ImageClassifier, ImageDataModule
from visionforge.config.schema import EvaluationSettings
from visionforge.training.calibration import fit_temperature, scale
from visionforge.training.conformal import METHODS, fit_sets

COVERAGES = (0.8, 0.9, 0.95)
SCORES = ("energy", "max_logit", "mahalanobis", "knn")
HALVES = 200


def trained(data: ImageDataModule, epochs: int, seed: int) -> ImageClassifier:
    pl.seed_everything(seed, verbose=False)
    model = ImageClassifier("mini_cnn", tta="off")
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    return model.eval()


def pixels_of(data: ImageDataModule, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    dataset = data.dataset_for(split)
    return dataset.__getitems__(list(range(len(dataset))))


def batches(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(images.split(128), labels.split(128), strict=True))


@torch.inference_mode()
def far(model: ImageClassifier, images: torch.Tensor) -> np.ndarray:
    return torch.cat([model.evaluated(part)[2] for part in images.split(128)]).numpy()


def coverage_rows(name: str, model: ImageClassifier, data: ImageDataModule) -> list[str]:
    both = [pixels_of(data, split) for split in ("val", "test")]
    images, labels = (torch.cat(parts) for parts in zip(*both, strict=True))
    with torch.inference_mode():
        given = torch.cat([model.predict_probabilities(part)[0] for part in images.split(128)])
    task, rng, rows = model.spec.task, np.random.default_rng(0), []
    accuracy = float((given.argmax(1) == labels).float().mean())
    for method in METHODS:
        cells = []
        for coverage in COVERAGES:
            held, sizes = [], []
            for _ in range(HALVES):
                order = torch.from_numpy(rng.permutation(len(labels)))
                one, other = order[: len(order) // 2], order[len(order) // 2 :]
                temperature = fit_temperature(given[one], labels[one], task)
                stated = scale(given, temperature, task)
                sets = fit_sets(stated[one], labels[one], method, coverage)
                members = sets.members(stated[other].double())
                held.append(float(members.gather(1, labels[other][:, None]).float().mean()))
                sizes.append(float(members.sum(1).float().mean()))
            cells.append(f"{np.mean(held):.3f} ({np.mean(sizes):.2f})")
        rows.append(f"| {name}, accuracy {accuracy:.3f} | {method} | {' | '.join(cells)} |")
    return rows


def ood_rows(name: str, model: ImageClassifier, data: ImageDataModule, others: dict[str, torch.Tensor]) -> list[str]:
    inside, found = pixels_of(data, "test")[0], {}
    for score in SCORES:
        model.evaluation = EvaluationSettings(ood=score)
        model.calibrate(batches(*pixels_of(data, "val")))
        here = far(model, inside)
        for other, images in others.items():
            there = far(model, images)
            truth = np.repeat([0, 1], [len(here), len(there)])
            found[other, score] = roc_auc_score(truth, np.concatenate([here, there]))
    return [f"| {name} / {other} | {' | '.join(f'{found[other, s]:.3f}' for s in SCORES)} |" for other in others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--root", help="folder of the archives")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    sides = {"digits": 8, "breastmnist": 28}
    coverage, ood = [], []
    for name, side in sides.items():
        data = ImageDataModule(name, resolution=side, root=arguments.root)
        data.prepare_data()
        model = trained(data, arguments.epochs, arguments.seed)
        coverage += coverage_rows(name, model, data)
        count, channels = len(data.dataset_for("test")), model.spec.channels
        rng = np.random.default_rng(0)
        noise = torch.from_numpy(rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8))
        drawn = ImageDataModule("synthetic", resolution=side)
        others = {"noise": noise, "gratings (synthetic)": pixels_of(drawn, "test")[0]}
        if name == "breastmnist":
            others["retinamnist"] = pixels_of(ImageDataModule("retinamnist", root=arguments.root), "test")[0]
        ood += ood_rows(name, model, data, others)
    heads = " | ".join(f"{coverage:g}" for coverage in COVERAGES)
    print(f"| data | sets | {heads} |\n|---|---|{'---|' * len(COVERAGES)}")
    print("\n".join(coverage))
    print(f"\n| trained on / far out | {' | '.join(SCORES)} |\n|---|{'---|' * len(SCORES)}")
    print("\n".join(ood))


if __name__ == "__main__":
    main()
