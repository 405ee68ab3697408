"""Augmented volumes per second, from uint8 to normalised float32, against TorchIO and MONAI.

All mirror along each axis with probability 0.5, turn by up to 10 degrees about each axis, enlarge by up to
0.95 ** (-1/3), resample trilinearly with 0 outside, change intensities by up to 0.2, and normalise. One thread.

What differs:

- visionforge works on a batch, that of a training step; the others on one volume after the other, as their transforms
  are meant for. "visionforge per volume" is given single ones, too. All are given tensors in memory.
- visionforge's crop has its middle anywhere within the volume, the others enlarge about the middle. MONAI draws a
  factor for each axis; that of the others is the same for all three.
- visionforge and lazy MONAI mirror, turn and scale in one resampling. TorchIO, and MONAI otherwise, mirror first, in
  exact copies.
- visionforge and MONAI change brightness and contrast. TorchIO has neither and does a gamma correction instead.
- The normalisation of the others is one subtraction and division in place by torch, for all volumes at once.

    python benchmarks/augment_volumes.py [--rounds 7] [--sizes 28 64]
"""

import argparse
import math
from collections.abc import Callable
from importlib.metadata import version

import monai.transforms as monai
import SimpleITK
import torch
import torchio
from timing import rates, ratio, summary

from visionforge.config.schema import Augmentation
from visionforge.data.augment_volumes import apply_draw, draw_for
from visionforge.data.draws import Draws

BATCH = {28: 64, 64: 16}  # volumes of a step, and of each timing of an alternative
STEPS = {28: 8, 64: 3}  # of visionforge, whose single step is short for a timer
MEAN, STD = 0.5, 0.25
DEGREES, SMALLEST, JITTER = 10, 0.95, 0.2
LARGEST = SMALLEST ** (-1 / 3) - 1  # by which a side of what is kept is enlarged at most


def our_work(batches: list[torch.Tensor]) -> Callable[[], int]:
    settings = Augmentation(
        hflip=0.5, vflip=0.5, dflip=0.5, rotation_angle=DEGREES, min_scale=SMALLEST, jitter_val=JITTER
    )

    def changed(volumes: torch.Tensor, step: int) -> torch.Tensor:
        draws = Draws.at(step, torch.arange(len(volumes)))
        return apply_draw(volumes, draw_for(3, draws, settings), [MEAN], [STD])

    def work() -> int:
        return sum(len(changed(batch, step)) for step, batch in enumerate(batches))

    return work


def per_volume(volumes: torch.Tensor, chain: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], int]:
    def work() -> int:
        made = torch.stack([chain(volume) for volume in volumes])
        made.div_(255).sub_(MEAN).div_(STD)
        assert made.dtype == torch.float32
        return len(made)

    return work


def torchio_chain() -> Callable[[torch.Tensor], torch.Tensor]:
    chain = torchio.Compose(
        [
            torchio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
            torchio.RandomAffine(scales=(1, 1 + LARGEST), degrees=DEGREES, isotropic=True, default_pad_value=0),
            torchio.RandomGamma(log_gamma=JITTER),
        ]
    )
    return lambda volume: chain(torchio.ScalarImage(tensor=volume)).data.float()


def monai_chain(lazy: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    turn = (math.radians(DEGREES),) * 3
    chain = monai.Compose(
        [
            *(monai.RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)),
            monai.RandAffine(
                prob=1, rotate_range=turn, scale_range=((-LARGEST, 0),) * 3, mode="bilinear", padding_mode="zeros"
            ),
            monai.RandScaleIntensity(JITTER, prob=1),
            monai.RandScaleIntensityFixedMean(prob=1, factors=JITTER),
        ],
        lazy=lazy,
    )
    return lambda volume: chain(volume.float()).as_tensor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # which TorchIO resamples with
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchio", "simpleitk", "monai")))
    print("| voxels | alternative | volumes/s: median (range) | ours is faster by: median (range) |")
    print("|---|---|---|---|")
    for size in options.sizes:
        volumes = torch.randint(0, 256, (BATCH[size], 1, size, size, size), dtype=torch.uint8)
        measured = rates(
            {
                "visionforge per batch": our_work([volumes] * STEPS[size]),
                "visionforge per volume": our_work(list(volumes.split(1))),
                "TorchIO per volume": per_volume(volumes, torchio_chain()),
                "MONAI per volume": per_volume(volumes, monai_chain(lazy=False)),
                "MONAI per volume, lazy": per_volume(volumes, monai_chain(lazy=True)),
            },
            options.rounds,
        )
        ours = measured["visionforge per batch"]
        for name, values in measured.items():
            faster = "" if name.startswith("visionforge") else ratio(ours, values)
            print(f"| {size}×{size}×{size} | {name} | {summary(values)} | {faster} |", flush=True)


if __name__ == "__main__":
    main()
