"""What a data set is trained with in so many minutes, and why."""

from typing import Any

from visionforge.config.loading import read_yaml
from visionforge.config.schema.tasks import task_named
from visionforge.config.shipped import recipe_for, shipped_files
from visionforge.data.importing import BOXES, MASKS
from visionforge.data.info import DatasetInfo
from visionforge.printable import printable

PER_CORE = {  # images of 28×28 pixels that a CPU core trains in a second (AVX-512, float32), validation included
    "fastnet": 230.0,
    "masks": 70.0,  # resnet18 with unet
    "boxes": 60.0,  # resnet18 with fcos
}
SHARE = 0.7  # of the minutes that are trained: the rest is for start, test and report
SMALL, MIDDLE, LARGE, LARGEST = 28, 64, 128, 224  # pixels
MANY = 5_000  # pictures of 64 pixels that a CPU trains for long
_DENSE_EPOCHS, _DENSE_RATE = 30, 1e-3
_REASONS = {
    "data.batch_size": "small batches for small data sets: a step of the optimiser needs few images",
    "data.balanced_sampling": "classes are drawn as often as they occur; true draws rare ones more often",
    "data.force_rgb": "grey pictures stay grey: pretrained weights would need three channels",
    "data.augmentation": "what a picture may look like and stay what it is: `visionforge datasets show {name}`",
    "model.backbone": "trained from random weights: the network that gets furthest in minutes on small images",
    "model.schedule": "the rate rises for a fifth of the steps and falls to the end, so that few epochs are enough",
    "model.loss": "a share of the target is spread over the other classes where images are few",
    "model.mixup": "pairs of images are mixed where there are enough of them",
    "model.tta": "test pictures are looked at mirrored, too, where that is allowed",
    "model.decoder": "feature maps become a class of every pixel",
    "model.detector": "feature maps become boxes",
}


def choose(
    info: DatasetInfo, minutes: float, gpu: bool, cores: int
) -> tuple[dict[str, Any], dict[str, str], float | None]:
    """Return settings, nested; the reasons by dotted paths; and how many minutes the training takes, if it is known.

    Args:
        info: The data set.
        minutes: How long a CPU may train.
        gpu: Whether there is one.
        cores: Of the CPU.
    """
    sides = sorted(info.resolutions or (SMALL, MIDDLE))  # of drawn images any
    resolution = max((side for side in sides if gpu or side <= MIDDLE), default=sides[0])
    if not gpu and info.splits.train > MANY and SMALL in sides:
        resolution = SMALL
    images, forms = info.splits.train, task_named(info.task).forms
    reasons = dict(_REASONS)
    if MASKS in forms or BOXES in forms:
        kind = "masks" if MASKS in forms else "boxes"
        tree = _dense(kind)
        reasons["data.batch_size"] = "whole pictures with a class of every pixel, or boxes, take much memory"
        reasons["data.augmentation"] = "the sampler draws pictures as they are, mirrored and a little turned"
        reasons["model.backbone"] = "a small residual network in front of the decoder or detector"
        reasons["model.optimizer"] = "AdamW needs no search for a usable rate"
        reasons["model.mixup"] = "masks and boxes are not mixed"
    else:
        kind, recipe = "fastnet", recipe_for(images)
        tree = read_yaml(shipped_files()[recipe])
        reasons["model.optimizer"] = f"of the recipe {recipe}, which was tried on data sets of this size"
        if not tree["model"]["mixup"]["alpha"]:
            reasons["model.mixup"] = "so few images are not mixed"
        if not tree["model"]["loss"]["label_smoothing"]:
            reasons["model.loss"] = "cross-entropy as it is: with so many images nothing was gained by smoothing"
        if {"labels", "grades"} & {*forms}:  # whose usual loss is another
            tree["model"].pop("loss")
        if info.spatial_dims == 3:
            tree["model"].pop("mixup")
    tree["data"] |= {"dataset": info.name, "resolution": resolution}
    while tree["data"]["batch_size"] > max(2, images // 4):
        tree["data"]["batch_size"] //= 2
    if info.channels == 3:
        tree["data"].pop("force_rgb", None)
    planned = tree["trainer"]["max_epochs"]
    epochs, expected = planned, None
    if not gpu:
        voxels = resolution / SMALL if info.spatial_dims == 3 else 1.0
        rate = PER_CORE[kind] * cores * (SMALL / resolution) ** 2 / (voxels * (10 if info.spatial_dims == 3 else 1))
        epochs = max(1, min(planned, int(minutes * 60 * SHARE * rate / images)))
        expected = epochs * images / rate / 60 + 0.25
    tree["trainer"] |= {"max_epochs": epochs, "precision": "auto"}
    short = f", of {planned} that would be better: --minutes {minutes:g} allows no more" if epochs < planned else ""
    reasons |= {
        "data.dataset": f"{printable(info.title)}",
        "data.resolution": f"height and width in pixels; there are {', '.join(map(str, sides))}",
        "trainer.max_epochs": f"passes over {images:,} training images{short}",
        "trainer.precision": "bfloat16 where the device multiplies in it, else float32",
    }
    reasons["data.augmentation"] = reasons["data.augmentation"].format(name=info.name)
    return {name: tree[name] for name in ("data", "model", "trainer")}, reasons, expected


def _dense(kind: str) -> dict[str, Any]:
    part = {"decoder": {"name": "unet"}} if kind == "masks" else {"detector": {"name": "fcos"}}
    return {
        "data": {"batch_size": 8, "augmentation": {"preset": "standard"}},
        "model": {
            "backbone": {"name": "resnet18", "pretrained": False},
            **part,
            "optimizer": {"name": "adamw", "learning_rate": _DENSE_RATE},
            "mixup": {"alpha": 0.0},
        },
        "trainer": {"max_epochs": _DENSE_EPOCHS},
    }
