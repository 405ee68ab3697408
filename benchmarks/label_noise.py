"""How many wrong labels, put in at random, an audit finds: with the model of pixels, and with a network per fold."""

import argparse

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold

from visionforge.data.archive import SplitArrays
from visionforge.data.info import Split, TaskSpec
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import SideTable
from visionforge.data.source import load_split
from visionforge.engine.pixel_model import out_of_fold
from visionforge.evaluation.label_noise import label_noise, prune_by_class, self_confidence

SPLITS: tuple[Split, ...] = ("train", "val")
SETS = (("breastmnist", 28), ("digits", 8))


def network_folds(images: np.ndarray, labels: np.ndarray, classes: int, epochs: int, seed: int) -> np.ndarray:
    """Return (N, K) out-of-fold probabilities of a small network that is trained per fold by a plain loop."""
    pixels = torch.from_numpy(images).float().div(255)[:, None]
    pixels = (pixels - pixels.mean()) / pixels.std()
    targets = torch.from_numpy(labels)
    said = np.zeros((len(labels), classes))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    for fold, (others, members) in enumerate(folds.split(labels, labels)):
        torch.manual_seed(seed * 100 + fold)
        layers: list[torch.nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
            layers.append(torch.nn.MaxPool2d(2))
        network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        network.append(torch.nn.Linear(64, classes))
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05)
        steps = epochs * (len(others) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.from_numpy(np.random.default_rng(seed).permutation(others))[
                : steps // epochs * 64
            ].split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(pixels[batch]), targets[batch]).backward()
                optimizer.step()
                schedule.step()
        network.eval()
        with torch.no_grad():
            said[members] = network(pixels[members]).softmax(dim=1).double().numpy()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder of the archives")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of the networks; 0 leaves them out")
    parser.add_argument("--data", choices=[name for name, _ in SETS], help="one of them; default all")
    options = parser.parse_args()
    print("| data | flipped | model | agrees | estimated wrong | precision | recall | AP of quality |")
    print("|---|---|---|---|---|---|---|---|")
    for name, resolution in (each for each in SETS if options.data in (None, each[0])):
        info = dataset_info(name)
        spec = TaskSpec.of(info, resolution, False)
        parts = {split: load_split(info, resolution, options.root, split) for split in SPLITS}
        true = np.concatenate([part.labels for part in parts.values()])
        images = np.concatenate([part.images for part in parts.values()])
        for rate in (0.05, 0.1, 0.2):
            for model in ("pixels", "network")[: 1 + (options.epochs > 0)]:
                found = []
                for seed in range(options.seeds):
                    rng = np.random.default_rng(seed)
                    flipped = np.zeros(len(true), bool)
                    flipped[rng.permutation(len(true))[: round(rate * len(true))]] = True
                    shift = rng.integers(1, len(info.classes), len(true))
                    given = np.where(flipped, (true + shift) % len(info.classes), true)
                    if model == "pixels":
                        cut = np.cumsum([len(part.labels) for part in parts.values()])[:-1]
                        pieces = zip(parts.items(), np.split(given, cut), strict=True)
                        noisy = {split: (SplitArrays(part.images, y), SideTable()) for (split, part), y in pieces}
                        said = out_of_fold(spec, noisy, 5, seed).probabilities
                    else:
                        said = network_folds(images, given, len(info.classes), options.epochs, seed)
                    noise = label_noise(given, said, resamples=0)
                    both = noise.suspicious & prune_by_class(given, said, noise.joint)
                    row = [(said.argmax(axis=1) == true).mean(), noise.rate]
                    row += [flipped[noise.suspicious].mean(), noise.suspicious[flipped].mean()]
                    row += [average_precision_score(flipped, 1 - noise.quality)]
                    row += [average_precision_score(flipped, 1 - self_confidence(given, said))]
                    row += [flipped[both].mean(), both[flipped].mean()]
                    found.append(row)
                agrees, estimate, precision, recall, margin, own, of_both, by_both = np.mean(found, axis=0)
                start = f"| {name} | {rate:.0%} | {model} | {agrees:.1%} | {estimate:.1%} "
                shares = f"| {precision:.2f} (both {of_both:.2f}) | {recall:.2f} (both {by_both:.2f}) "
                print(f"{start}{shares}| {margin:.2f} (self-confidence {own:.2f}) |")


if __name__ == "__main__":
    main()
