"""Pictures to a table of probabilities as a script of torchvision does it: a DataLoader of two workers, a loop.

    python -m benchmarks.picture_peer FOLDER OUT.csv

The network is that of visionforge's `mini_cnn`, with random weights.
"""

import csv
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

PIXELS, BATCH, WORKERS, CLASSES = 28, 128, 2, 8


class Folder(Dataset[Tensor]):
    """One file, one chain of transforms."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.png"))
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize(PIXELS, antialias=True),
                v2.CenterCrop(PIXELS),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def network() -> nn.Module:
    """Return three convolutions with batch normalisation and two poolings, as `mini_cnn` has them."""
    layers: list[nn.Module] = []
    for given, made in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))


def main() -> None:
    """Predict."""
    folder, out = map(Path, sys.argv[1:])
    dataset, model = Folder(folder), network().eval().to(memory_format=torch.channels_last)
    with out.open("w", newline="") as file, torch.inference_mode():
        table, paths = csv.writer(file), iter(dataset.paths)
        for images in DataLoader(dataset, BATCH, num_workers=WORKERS):
            rows = model(images.to(memory_format=torch.channels_last)).softmax(1).tolist()
            table.writerows([next(paths), *row] for row in rows)


if __name__ == "__main__":
    main()
