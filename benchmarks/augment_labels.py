"""Augmented images per second with their masks, or their boxes, against torchvision v2 and albumentations.

All mirror left to right with probability 0.5, turn by up to 10 degrees with 0 outside, crop from 0.95 of the area,
change brightness, contrast and saturation by up to 0.2, and normalise; masks with the nearest pixel. Colour images of
noise, four boxes each. From uint8 to a batch of normalised float32; one thread.

What differs:

- visionforge works on a batch, that of a training step, and interpolates an image once. The others work on one image
  after the other, as their transforms are meant for, and interpolate it twice.
- torchvision is given tensors as tv_tensors, albumentations arrays with channels last, which are stacked to a tensor.
- visionforge and albumentations drop a box of which less than a tenth is left in the image. torchvision drops one
  without an area (`SanitizeBoundingBoxes`).
- albumentations changes hue, if by 0, with the other colours, in a random order; torchvision leaves out hue.

    python benchmarks/augment_labels.py [--rounds 9] [--sizes 28 128]
"""

import argparse
import os
from collections.abc import Callable
from importlib.metadata import version

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks a server for its newest release when it is imported

import albumentations
import cv2
import numpy as np
import torch
from timing import rates, ratio, summary
from torchvision import tv_tensors
from torchvision.transforms import v2

from visionforge.augmentations import random_augment
from visionforge.config.schema import Augmentation

BATCH = {28: 128, 128: 32}  # images of a step, and of each timing of an alternative
STEPS = {28: 8, 128: 4}  # of visionforge, whose single step is short for a timer
BOXES = 4
MEAN, STD = (0.5,) * 3, (0.25,) * 3
DEGREES, SMALLEST, JITTER, LEAST_AREA = 10, 0.95, 0.2, 0.1


class Batch:
    """Images, masks of five classes, and boxes of at least an eighth of a side."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.size = size
        self.images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        self.masks = torch.randint(0, 5, (count, size, size), dtype=torch.uint8, generator=generator)
        low = torch.rand((count, BOXES, 2), generator=generator) * size * 0.75
        side = size / 8 + torch.rand((count, BOXES, 2), generator=generator) * size / 8
        self.boxes = list(torch.cat([low, low + side], dim=2))


def our_work(batch: Batch, labels: str) -> Callable[[], int]:
    settings = Augmentation(hflip=0.5, rotation_angle=DEGREES, min_scale=SMALLEST, jitter_val=JITTER)
    constants = {"mean": MEAN, "std": STD}

    def work() -> int:
        for _ in range(STEPS[batch.size]):
            if labels == "masks":
                random_augment(batch.images, settings, masks=batch.masks, **constants)
            elif labels == "boxes":
                random_augment(batch.images, settings, boxes=batch.boxes, least_area=LEAST_AREA, **constants)
            else:
                random_augment(batch.images, settings, **constants)
        return len(batch.images) * STEPS[batch.size]

    return work


def torchvision_work(batch: Batch, labels: str) -> Callable[[], int]:
    chain = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomRotation(DEGREES, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(batch.size, scale=(SMALLEST, 1.0), antialias=True),
            v2.ColorJitter(JITTER, JITTER, JITTER),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
            *([v2.SanitizeBoundingBoxes(labels_getter=None)] if labels == "boxes" else []),
        ]
    )
    samples: list[dict[str, torch.Tensor]] = []
    for image, mask, boxes in zip(batch.images, batch.masks, batch.boxes, strict=True):
        sample: dict[str, torch.Tensor] = {"image": tv_tensors.Image(image)}
        if labels == "masks":
            sample["mask"] = tv_tensors.Mask(mask)
        if labels == "boxes":
            canvas = (batch.size, batch.size)
            sample["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)
        samples.append(sample)

    def work() -> int:
        made = [chain(sample) for sample in samples]
        if labels == "masks":
            torch.stack([sample["mask"] for sample in made])
        return len(torch.stack([sample["image"] for sample in made]))

    return work


def albumentations_work(batch: Batch, labels: str) -> Callable[[], int]:
    boxes_of = albumentations.BboxParams(format="pascal_voc", label_fields=["classes"], min_visibility=LEAST_AREA)
    chain = albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Rotate(limit=DEGREES, interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, p=1),
            albumentations.RandomResizedCrop(size=(batch.size, batch.size), scale=(SMALLEST, 1.0), p=1),
            albumentations.ColorJitter(
                (1 - JITTER, 1 + JITTER), (1 - JITTER, 1 + JITTER), (1 - JITTER, 1 + JITTER), (0, 0), p=1
            ),
            albumentations.Normalize(MEAN, STD, p=1),
        ],
        bbox_params=boxes_of if labels == "boxes" else None,
    )
    images = list(batch.images.permute(0, 2, 3, 1).contiguous().numpy())
    masks, boxes = list(batch.masks.numpy()), [each.numpy() for each in batch.boxes]
    classes = np.zeros(BOXES)

    def one(image: np.ndarray, mask: np.ndarray, of_image: np.ndarray) -> dict[str, np.ndarray]:
        if labels == "masks":
            return chain(image=image, mask=mask)
        return chain(image=image, bboxes=of_image, classes=classes) if labels == "boxes" else chain(image=image)

    def work() -> int:
        made = [one(*sample) for sample in zip(images, masks, boxes, strict=True)]
        if labels == "masks":
            torch.from_numpy(np.stack([sample["mask"] for sample in made]))
        pixels = torch.from_numpy(np.stack([sample["image"] for sample in made])).permute(0, 3, 1, 2)
        return len(pixels.contiguous())

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 128])
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "albumentations")))
    print("| pixels | labels | alternative | images/s: median (range) | ours is faster by: median (range) |")
    print("|---|---|---|---|---|")
    for size in options.sizes:
        batch = Batch(BATCH[size], size)
        kinds = ("none", "masks", "boxes")
        makers = {
            "visionforge per batch": our_work,
            "torchvision v2 per image": torchvision_work,
            "albumentations per image": albumentations_work,
        }
        alternatives = {f"{kind} | {name}": make(batch, kind) for kind in kinds for name, make in makers.items()}
        measured = rates(alternatives, options.rounds)
        for name, values in measured.items():
            ours = measured[f"{name.split(' | ')[0]} | visionforge per batch"]
            faster = "" if "visionforge" in name else ratio(ours, values)
            print(f"| {size}×{size} | {name} | {summary(values)} | {faster} |", flush=True)


if __name__ == "__main__":
    main()
