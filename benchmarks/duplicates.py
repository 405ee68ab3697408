"""How many copies of training images are found in a test split, by how they were changed, and what is found else.

    python benchmarks/duplicates.py breastmnist.npz retinamnist.npz

Of each archive, copies of so many of its training images are made the test split, all changed in one way; how many are
found again is the recall. Then the untouched archive is searched: those pairs are for the eye (`datasets check
--pictures`). With `--images N` the time of N rendered images is taken instead.
"""

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.data.duplicates import find_duplicates

Array = npt.NDArray[np.uint8]
SPLITS = ("train", "val", "test")


def jpeg(image: Array, quality: int) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def light(image: Array, rng: np.random.Generator, most: float = 40.0) -> Array:
    """Other brightness, by up to so many grey values, and contrast, by up to 30 %; cut at black and white."""
    changed = (image.astype(np.float64) - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-most, most)
    return np.rint(changed.clip(0, 255)).astype(np.uint8)


def crop(image: Array, share: float, rng: np.random.Generator) -> Array:
    """A part of the image anywhere, enlarged to its size."""
    size = len(image)
    left, top = rng.uniform(0, size * (1 - share), 2)
    box = (left, top, left + size * share, top + size * share)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))


def shift(image: Array, share: float, rng: np.random.Generator) -> Array:
    """The image moved along both axes; what is missing repeats its border."""
    pixels = max(1, round(len(image) * share))
    wide = np.pad(image, ((pixels, pixels), (pixels, pixels), *((0, 0),) * (image.ndim - 2)), mode="edge")
    down, right = rng.choice((0, 2 * pixels), 2)
    return wide[down : down + len(image), right : right + len(image)]


def noise(image: Array, rng: np.random.Generator) -> Array:
    return np.rint((image + rng.normal(0, 5, image.shape)).clip(0, 255)).astype(np.uint8)


CHANGES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "none": lambda image, rng: image,
    "mirrored": lambda image, rng: image[:, ::-1],
    "turned by 90°": lambda image, rng: np.rot90(image),
    "turned by 180°": lambda image, rng: np.rot90(image, 2),
    "mirrored at the diagonal": lambda image, rng: image.swapaxes(0, 1),
    "brightness ±40, contrast ±30 %": light,
    "JPEG, quality 75": lambda image, rng: jpeg(image, 75),
    "JPEG, quality 40": lambda image, rng: jpeg(image, 40),
    "noise of deviation 5": noise,
    "moved by 4 % along both axes": lambda image, rng: shift(image, 0.04, rng),
    "moved by 7 % along both axes": lambda image, rng: shift(image, 0.07, rng),
    "cropped to 95 %": lambda image, rng: crop(image, 0.95, rng),
    "cropped to 90 %": lambda image, rng: crop(image, 0.9, rng),
    "cropped to 85 %": lambda image, rng: crop(image, 0.85, rng),
    "turned by 90°, cropped to 90 %": lambda image, rng: np.rot90(crop(image, 0.9, rng)),
    "mirrored, brightness ±30, JPEG 75": lambda image, rng: jpeg(
        np.ascontiguousarray(light(image, rng, 30)[:, ::-1]), 75
    ),
}


def recall(train: Array, change: Callable[[Array, np.random.Generator], Array], count: int) -> tuple[float, float]:
    """Return the share of changed copies that is found, and the seconds that it took."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(train), min(count, len(train)), replace=False)
    copies = np.stack([np.ascontiguousarray(change(train[k], rng)) for k in chosen])
    start = time.perf_counter()
    found = find_duplicates({"train": train, "test": copies})
    seconds = time.perf_counter() - start
    pairs = {(pair.first.position, pair.second.position) for pair in found.pairs if pair.across}
    return float(np.mean([(int(k), place) in pairs for place, k in enumerate(chosen)])), seconds


def of_archive(path: Path, count: int) -> None:
    with np.load(path, allow_pickle=False) as archive:
        images = {split: archive[f"{split}_images"] for split in SPLITS}
    print(f"\n{path.stem}, {count} copies\n\n| change | recall | seconds |\n|---|---|---|")
    for name, change in CHANGES.items():
        share, seconds = recall(images["train"], change, count)
        print(f"| {name} | {share:.3f} | {seconds:.1f} |", flush=True)
    found = find_duplicates(images)
    print("\nuntouched:", dict(Counter(f"{p.first.split}-{p.second.split} {p.kind}" for p in found.pairs)))


def of_nothing(count: int = 2000) -> None:
    """Print what is found among images that share nothing: noise, blank ones, and faint noise on a flat ground."""
    rng = np.random.default_rng(0)
    blank = np.repeat(np.arange(count) % 200 + 20, 28 * 28).reshape(count, 28, 28)
    kinds = {
        "noise": rng.integers(0, 256, (count, 28, 28)),
        "flat, deviation 1": blank + rng.normal(0, 1, blank.shape),
        "flat, deviation 4": blank + rng.normal(0, 4, blank.shape),
        "one gradient, deviation 4": np.linspace(40, 200, 28) + rng.normal(0, 4, blank.shape),
    }
    print("\n| images that share nothing | pairs found |\n|---|---|")
    for name, pixels in kinds.items():
        images = np.rint(pixels).clip(0, 255).astype(np.uint8)
        found = find_duplicates({"train": images[: count // 2], "test": images[count // 2 :]})
        print(f"| {name} | {len(found.pairs)} |")


def of_size(count: int) -> None:
    """Print the time that the search takes for rendered images in two halves."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 230, (count, 7, 7), dtype=np.uint8)
    images = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    start = time.perf_counter()
    found = find_duplicates({"train": images[: count // 2], "test": images[count // 2 :]})
    print(f"{count:,} images of 28×28: {time.perf_counter() - start:.0f} s, {len(found.pairs)} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="*", type=Path)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    if options.images is not None:
        of_size(options.images)
        return
    for path in options.archives:
        of_archive(path, options.copies)
    of_nothing()


if __name__ == "__main__":
    main()
