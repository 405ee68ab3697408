"""Images per second from the cached arrays to normalised training batches, against torchvision and kornia.

All apply the same augmentations with the same parameters: left-right flip, rotation by up to 10 degrees, random resized
crop from 0.95 of the area, brightness, contrast and saturation by up to 0.2, normalisation. One thread per process.

    python benchmarks/input_pipeline.py [--rounds 5] [--sizes 28 64 224]
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import rates, ratio, summary
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from visionforge.config import DataSettings, Synthetic
from visionforge.data import MedMNISTDataModule

IMAGES = {28: 2048, 64: 1024, 224: 128}
BATCH = {28: 128, 64: 128, 224: 32}
MEAN, STD = [0.5, 0.5, 0.5], [0.16, 0.16, 0.16]


class PerImage(Dataset[tuple[torch.Tensor, int]]):
    """What most code does: one image, one chain of transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: int) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomRotation(10, interpolation=v2.InterpolationMode.BILINEAR),
                v2.RandomResizedCrop(size, scale=(0.95, 1.0), antialias=True),
                v2.ColorJitter(0.2, 0.2, 0.2),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def torchvision_epoch(dataset: PerImage, batch: int, workers: int) -> Callable[[], int]:
    loader = DataLoader(
        dataset, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
        worker_init_fn=one_thread,
    )  # fmt: skip
    return lambda: sum(len(images) for images, _ in loader)


def our_epoch(data: MedMNISTDataModule, workers: int) -> Callable[[], int]:
    loader = data.train_dataloader()

    def epoch() -> int:
        return sum(len(data.augment(images, 0, step)) for step, (images, _) in enumerate(loader))

    return epoch


def kornia_epoch(images: torch.Tensor, size: int, batch: int) -> Callable[[], int] | None:
    try:
        import kornia.augmentation as K  # noqa: N812
    except ImportError:
        return None
    chain: Any = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomRotation(10.0, p=1.0),
        K.RandomResizedCrop((size, size), scale=(0.95, 1.0), p=1.0),
        K.ColorJiggle(0.2, 0.2, 0.2, 0.0, p=1.0),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )

    def epoch() -> int:
        order, count = torch.randperm(len(images)), 0
        for start in range(0, len(images) - batch + 1, batch):
            count += len(chain(images[order[start : start + batch]].float() / 255))
        return count

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 64, 224])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| pixels | alternative | images/s: median (range) | ours is faster by: median (range) |")
    print("|---|---|---|---|")
    for size in options.sizes:
        count, batch = IMAGES[size], BATCH[size]
        settings = DataSettings(dataset="synthetic", resolution=size, batch_size=batch)
        datas = {
            workers: MedMNISTDataModule(
                "synthetic", resolution=size, batch_size=batch, num_workers=workers, synthetic=Synthetic(train=count)
            )
            for workers in (0, 2)
        }
        for data in datas.values():
            data.setup("fit")
            data.augmentation = settings.augmentation  # rendered images may not be flipped; here they are
        images = datas[0].dataset_for("train").images
        per_image = PerImage(images.permute(0, 2, 3, 1).numpy(), datas[0].dataset_for("train").labels.numpy(), size)
        alternatives = {
            "visionforge": our_epoch(datas[0], 0),
            "torchvision v2 per image": torchvision_epoch(per_image, batch, 0),
            "visionforge, 2 workers": our_epoch(datas[2], 2),
            "torchvision v2 per image, 2 workers": torchvision_epoch(per_image, batch, 2),
        }
        kornia = kornia_epoch(images, size, batch)
        if kornia is not None:
            alternatives["kornia per batch"] = kornia
        measured = rates(alternatives, options.rounds)
        for name, values in measured.items():
            ours = measured["visionforge, 2 workers" if "2 workers" in name else "visionforge"]
            faster = "" if name.startswith("visionforge") else ratio(ours, values)
            print(f"| {size} | {name} | {summary(values)} | {faster} |", flush=True)


if __name__ == "__main__":
    main()
