"""A network of torchvision for the nuclei of `nuclei.py`, trained in a plain loop for as much processor time.

The pictures, their split, the metrics and the code that computes them are those of `nuclei.py`; both networks begin
with random weights and compute in bfloat16 where that is possible, and both keep the weights of the best validation
Dice. Augmentation is torchvision v2's, picture by picture, with the ranges that visionforge's run has: flips of both
kinds, 30 degrees, crops from 0.95 of the area, brightness, contrast and saturation by 0.2. The loss is the
cross-entropy of the pixels.

Settings are chosen with ``--validate``, which leaves the test pictures alone. MobileNet V3's batch normalisation, whose
momentum of 0.01 is too slow for short trainings, has 0.1 here: the Dice of a minute's training was 0.78 in the place of
0.11. The network may enlarge the pictures, because its finest features have an eighth of a picture's side. The
comparison, with the settings that were chosen::

    OMP_NUM_THREADS=1 python benchmarks/nuclei_baseline.py nuclei --cpu-minutes 15.6 --ours predicted.csv

where `predicted.csv` is what `nuclei.py` is given, here without test-time views (`predict --no-tta`), as are the masks
that it is compared with.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nuclei import DISTANCES, of_nuclei, of_pixels, read
from PIL import Image
from plain import train
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models, tv_tensors
from torchvision.transforms import v2

NETWORKS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_resnet50")
SIDE, IGNORED, RESAMPLES = 256, 255, 2000


def pictures(root: Path, split: str) -> tuple[list[Path], Tensor, np.ndarray]:
    """Return the files of a split, its images (N, 3, 256, 256) uint8, and its masks of nuclei (N, 256, 256)."""
    files = sorted((root / split / "images").iterdir())
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    masks = np.stack([np.asarray(Image.open(root / split / "masks" / file.name)) for file in files])
    return files, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), masks.astype(np.int64)


def augmentation() -> v2.Transform:
    """Return the transforms of a training picture and its mask, in which what comes from outside is ignored."""
    outside = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
            v2.RandomRotation(30, interpolation=v2.InterpolationMode.BILINEAR, fill=outside),
            v2.RandomResizedCrop(SIDE, scale=(0.95, 1.0), antialias=True),
            v2.ColorJitter(0.2, 0.2, 0.2),
        ]
    )


def batches(images: Tensor, masks: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch of augmented pictures, float32 from 0 to 1, and their classes."""
    chain = augmentation()
    order = torch.randperm(len(images))
    for start in range(0, len(images) - size + 1, size):
        made = [chain(tv_tensors.Image(images[each]), tv_tensors.Mask(masks[each])) for each in order[start:][:size]]
        yield torch.stack([image for image, _ in made]) / 255, torch.stack([mask for _, mask in made]).long()


def logits(model: nn.Module, images: Tensor, shift: tuple[Tensor, Tensor], side: int) -> Tensor:
    """Return (N, 2, 256, 256) logits of images from 0 to 1, which the network is shown with `side` pixels a side."""
    given = (images - shift[0]) / shift[1]
    if side != SIDE:
        given = functional.interpolate(given, size=side, mode="bilinear", antialias=True)
    with torch.autocast("cpu", torch.bfloat16):
        said = model(given)["out"].float()
    return said if side == SIDE else functional.interpolate(said, size=SIDE, mode="bilinear", antialias=True)


def predicted(model: nn.Module, images: Tensor, shift: tuple[Tensor, Tensor], side: int, views: bool) -> np.ndarray:
    """Return the classes (N, 256, 256), with `views` by the mean probabilities of the eight flips and quarter turns."""
    said = []
    for chunk in (images / 255).split(10):
        total = torch.zeros(len(chunk), 2, SIDE, SIDE)
        for turn in range(8 if views else 1):
            seen = torch.rot90(chunk.flip(-1) if turn >= 4 else chunk, turn % 4, (-2, -1))
            back = torch.rot90(logits(model, seen, shift, side).softmax(dim=1), -(turn % 4), (-2, -1))
            total += back.flip(-1) if turn >= 4 else back
        said.append(total.argmax(dim=1))
    return torch.cat(said).numpy()


def dice(true: np.ndarray, said: np.ndarray) -> float:
    """Return Dice of all pixels."""
    return float(2 * (true & said).sum() / (true.sum() + said.sum()))


def lead(true: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Return by how much our Dice of all pixels is above theirs, with the interval of a paired bootstrap."""
    weights = np.random.default_rng(0).multinomial(len(true), [1 / len(true)] * len(true), RESAMPLES)

    def of(said: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        both, each = (true & said).sum((1, 2)), true.sum((1, 2)) + said.sum((1, 2))
        return 2 * (drawn @ both) / (drawn @ each)

    gaps = of(ours, weights) - of(theirs, weights)
    low, high = np.quantile(gaps, (0.025, 0.975))
    return {"metric": "lead in mean_dice", "value": dice(true, ours) - dice(true, theirs), "interval": [low, high]}


def shown(value: float, interval: tuple[float, float] | None) -> str:
    """Return a value with its interval, which one that is the same in all resamples does not have."""
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with train, val and test")
    parser.add_argument("--cpu-minutes", type=float, required=True, help="processor time, imports and validation in it")
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    parser.add_argument("--side", type=int, default=512, help="pixels a side that the network is shown")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--validate", action="store_true", help="leave the test pictures alone")
    parser.add_argument("--ours", type=Path, help="table of visionforge's masks of the test pictures")
    parser.add_argument("--out", type=Path, help="keep the masks of the test pictures here, as .npz")
    parser.add_argument("--state", type=Path, default=Path("nuclei_baseline.pt"), help="file of a paused training")
    parser.add_argument("--pause-after", type=float, default=float("inf"), help="minutes; the same command continues")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    _, images, masks = pictures(options.root, "train")
    _, seen, truth = pictures(options.root, "val")
    shift = tuple(of(images / 255.0, dim=(0, 2, 3)).view(1, 3, 1, 1) for of in (torch.mean, torch.std))
    # an auxiliary classifier is for networks with pretrained weights only
    model = getattr(models.segmentation, options.network)(weights=None, weights_backbone=None, num_classes=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    classes = torch.from_numpy((masks > 0).astype(np.uint8))

    def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        said = logits(model, batch[0], shift, options.side)
        return functional.cross_entropy(said, batch[1], ignore_index=IGNORED)

    found = train(
        model,
        partial(batches, images, classes, options.batch_size),
        loss_of,
        lambda model: dice(truth > 0, predicted(model, seen, shift, options.side, False) == 1),
        seconds=60 * options.cpu_minutes,
        learning_rate=options.learning_rate,
        validations=10,
        state=options.state,
        pause=60 * options.pause_after,
    )
    if found is None:
        sys.exit(f"paused; the same command continues from {options.state}")
    name = {"network": options.network, "side": options.side, "learning_rate": options.learning_rate}
    print(json.dumps({**name, "seed": options.seed, "batch_size": options.batch_size, **found}), flush=True)
    model.eval()
    with torch.inference_mode():
        of_val = predicted(model, seen, shift, options.side, False)
        chosen = max(DISTANCES, key=lambda distance: of_nuclei(truth, of_val, distance)["ap_50"])
        splits = [("val", seen, truth)]
        if not options.validate:
            files, *test = pictures(options.root, "test")
            splits.append(("test", *test))
        for split, given, true in splits:
            for views in (False, True):
                said = predicted(model, given, shift, options.side, views)
                scores = [
                    *of_pixels(true, said),
                    *(of_nuclei(true, said, each) for each in dict.fromkeys((None, chosen))),
                ]
                for each in scores:
                    print(json.dumps({"split": split, "views": views, **each}), flush=True)
        if options.out is not None and not options.validate:
            both = {
                name: predicted(model, test[0], shift, options.side, name == "views") for name in ("plain", "views")
            }
            np.savez_compressed(options.out, **{name: said.astype(np.uint8) for name, said in both.items()})
    if options.ours is None or options.validate:
        return
    true, ours = read(options.root / "test" / "masks", options.ours)
    if len(true) != len(files) or (true != test[1]).any():
        sys.exit(f"{options.ours}: these are not the masks of the test pictures in the order of their names")
    with torch.inference_mode():
        theirs = predicted(model, test[0], shift, options.side, False)
    print(json.dumps(lead(true > 0, ours == 1, theirs == 1)))
    print("| | visionforge (95 % interval) | torchvision (95 % interval) |\n|---|---|---|")
    for mine, other in zip(of_pixels(true, ours), of_pixels(true, theirs), strict=True):
        cells = [shown(each["value"], each["interval"]) for each in (mine, other)]
        print(f"| {mine['metric']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
