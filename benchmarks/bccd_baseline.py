"""A detector of torchvision for the blood cells of `bccd.py`, trained in a plain loop for as much processor time.

It is given the pictures and boxes of the same archive, begins with random weights, computes in bfloat16 where autocast
does so, and keeps the weights of the best validation AP. The network may enlarge the pictures, as torchvision's
detectors do. Augmentation is torchvision v2's, picture by picture: flips of both kinds, and brightness, contrast and
saturation by 0.2. `bccd.py` calls this; settings are chosen with ``--validate``, which leaves the test pictures alone::

    OMP_NUM_THREADS=1 python benchmarks/bccd_baseline.py bccd_160.npz --cpu-minutes 1.5 --validate
"""

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import train
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models.detection import FCOS, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7
from torchvision.transforms import v2

from visionforge.metrics import detection_metrics

CLASSES, MOST = 3, 100  # detections of a picture
LEAST_SCORE = 0.05  # torchvision's FCOS has 0.2, which would cost it average precision


def boxes_of(archive: np.lib.npyio.NpzFile, split: str) -> np.ndarray:
    """Return (N, M, 5) rows [class, x1, y1, x2, y2] of a split, filled up with -1."""
    rows, count = archive[f"{split}_labels"], len(archive[f"{split}_images"])
    of_images = [rows[rows[:, 0] == number, 1:] for number in range(count)]
    out = np.full((count, max(map(len, of_images)), 5), -1.0, dtype=np.float32)
    for place, each in zip(out, of_images, strict=True):
        place[: len(each)] = each
    return out


def network(kind: str, side: int, width: int, depth: int, images: np.ndarray) -> nn.Module:
    """Return a detector with random weights, which shows itself pictures of `side` pixels."""
    mean, std = ((of(images, axis=(0, 1, 2)) / 255).tolist() for of in (np.mean, np.std))
    given: dict[str, Any] = {"min_size": side, "max_size": side, "image_mean": mean, "image_std": std}
    if kind == "faster_rcnn":  # its background is class 0
        return fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=CLASSES + 1, box_detections_per_img=MOST, **given
        )
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    if width != 256:
        backbone = _narrower(backbone, width)
    head = FCOSHead(width, 1, CLASSES, num_convs=depth)
    return FCOS(backbone, CLASSES, head=head, score_thresh=LEAST_SCORE, detections_per_img=MOST, **given)


def _narrower(backbone: nn.Module, width: int) -> nn.Module:
    """Return a backbone whose pyramid has another number of channels."""
    backbone.fpn = FeaturePyramidNetwork([128, 256, 512], width, extra_blocks=LastLevelP6P7(width, width))
    backbone.out_channels = width
    return backbone


def batches(images: Tensor, boxes: np.ndarray, size: int, first: int) -> Iterator[tuple[list[Tensor], list[Any]]]:
    """Yield an epoch of augmented pictures, float32 from 0 to 1, and what torchvision calls their targets."""
    chain = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5), v2.ColorJitter(0.2, 0.2, 0.2)])
    order = torch.randperm(len(images))
    for start in range(0, len(images) - size + 1, size):
        made: list[tuple[Tensor, Any]] = []
        for each in order[start:][:size].tolist():
            rows = torch.from_numpy(boxes[each][boxes[each][:, 0] >= 0])
            sides = tuple(images.shape[-2:])
            held = tv_tensors.BoundingBoxes(rows[:, 1:], format="XYXY", canvas_size=sides)
            target = {"boxes": held, "labels": rows[:, 0].long() + first}
            made.append(chain(tv_tensors.Image(images[each]), target))
        yield [image / 255 for image, _ in made], [target for _, target in made]


def found_in(model: nn.Module, images: Tensor, first: int) -> np.ndarray:
    """Return (N, 100, 6) rows [class, score, x1, y1, x2, y2], filled up with the class -1."""
    out = np.zeros((len(images), MOST, 6), dtype=np.float32)
    out[..., 0] = -1
    for start in range(0, len(images), 8):
        with torch.autocast("cpu", torch.bfloat16):
            said = model([image / 255 for image in images[start : start + 8]])
        for place, each in zip(out[start:], said, strict=False):
            boxes = each["boxes"].float()
            solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            columns = [each["labels"][:, None] - first, each["scores"].float()[:, None], boxes]
            rows = torch.cat(columns, dim=1)[solid][:MOST]
            place[: len(rows)] = rows.numpy()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="what `visionforge datasets import` made")
    parser.add_argument("--cpu-minutes", type=float, required=True, help="processor time, imports and validation in it")
    parser.add_argument("--network", choices=("fcos", "faster_rcnn"), default="fcos")
    parser.add_argument("--side", type=int, default=320, help="pixels a side that the network is shown")
    parser.add_argument("--width", type=int, default=256, help="channels of FCOS's pyramid; torchvision's are 256")
    parser.add_argument("--depth", type=int, default=4, help="convolutions of FCOS's branches; torchvision's are 4")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--validate", action="store_true", help="leave the test pictures alone")
    parser.add_argument("--out", type=Path, help="detections in the test pictures, as .npy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    archive = np.load(options.archive, allow_pickle=False)
    images = {split: torch.from_numpy(archive[f"{split}_images"]).permute(0, 3, 1, 2) for split in ("train", "val")}
    truth = boxes_of(archive, "val")
    shape = (options.network, options.side, options.width, options.depth)
    model, first = network(*shape, archive["train_images"]), int(options.network == "faster_rcnn")

    def loss_of(model: nn.Module, batch: tuple[list[Tensor], list[Any]]) -> Tensor:
        return torch.stack([loss.float() for loss in model(*batch).values()]).sum()

    found = train(
        model,
        partial(batches, images["train"], boxes_of(archive, "train"), options.batch_size, first),
        loss_of,
        lambda model: detection_metrics(truth, found_in(model, images["val"], first), CLASSES)["map"] or 0.0,
        seconds=60 * options.cpu_minutes,
        learning_rate=options.learning_rate,
        validations=10,
    )
    assert found is not None  # it is never paused
    model.eval()
    with torch.inference_mode():
        on_val = detection_metrics(truth, found_in(model, images["val"], first), CLASSES)
        if options.out is not None and not options.validate:
            test = torch.from_numpy(archive["test_images"]).permute(0, 3, 1, 2)
            np.save(options.out, found_in(model, test, first))
    said = {name: getattr(options, name) for name in ("network", "side", "width", "depth", "learning_rate", "seed")}
    print(json.dumps({**said, **found, **{f"val_{name}": on_val[name] for name in ("map", "map_50")}}))


if __name__ == "__main__":
    main()
