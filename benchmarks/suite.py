"""What is compared: each comparison makes its sides when it is run."""

import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.runner import OURS, Command, Comparison, Options, Side

CLASSES = 8
BFLOAT16: Mapping[str, Any] = {"precision": "bf16-mixed"}


def network_of(name: str, classes: int = CLASSES):  # noqa: ANN201  # torch takes seconds to import
    """Return a network of ours with random weights, for three channels of 28×28 pixels."""
    from visionforge.config.schema import Backbone
    from visionforge.models.build import build_network

    return build_network(Backbone(name=name, pretrained=False), 3, classes, 28)[0]


def scaled(images: int, options: Options) -> int:
    """Return how many images are used, in whole batches."""
    return max(2, round(images * options.scale / 128)) * 128


def our_epoch(
    name: str, images: int, options: Options, precision: str = "32-true", compiled: bool = False
) -> Callable[[], int]:
    """Return an epoch of `ImageClassifier` and `ImageDataModule`, with augmentation and balanced sampling."""
    from benchmarks import peers
    from visionforge import ImageClassifier, ImageDataModule

    synthetic = {"train": images, "val": 64, "test": 64, "classes": CLASSES}
    data = ImageDataModule(dataset="synthetic", synthetic=synthetic, batch_size=128)
    model = ImageClassifier(backbone={"name": name, "pretrained": False}, compile=compiled)

    def epoch() -> int:
        trainer = peers.quiet_trainer(options.device, 1, precision=precision, limit_val_batches=0)
        trainer.fit(model, datamodule=data)
        return images // 128 * 128

    return epoch


def training(name: str, images: int, options: Options) -> Mapping[str, Side]:
    """Return ways to train a network for an epoch."""
    import torch

    from benchmarks import peers

    images = scaled(images, options)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    return {
        OURS: our_epoch(name, images, options),
        "bare PyTorch loop": peers.bare_epoch(network_of(name), pixels, labels, options.device),
        "plain Lightning": peers.lightning_epoch(network_of(name), pixels, labels, options.device),
        "one image at a time": peers.script_epoch(network_of(name), pixels, labels, options.device),
    }


def whole_training(name: str, train: int, val: int, epochs: int, options: Options) -> Mapping[str, Side]:
    """Return ways to train a network for many epochs, each with a validation, on a device that holds the images."""
    import torch

    from benchmarks import peers

    generator = torch.Generator().manual_seed(0)
    count, epochs = scaled(train, options) if options.scale < 1 else train, max(1, round(epochs * options.scale))
    splits = [
        (
            torch.randint(0, 256, (images, 3, 28, 28), dtype=torch.uint8, generator=generator),
            torch.randint(0, CLASSES, (images,), generator=generator),
        )
        for images in (count, val)
    ]
    ours = partial(_our_training, name, count, val, epochs, options)
    return {
        OURS: ours(graphs=options.device == "cuda"),
        "visionforge without CUDA graphs": ours(graphs=False),
        "a loop by hand, one CUDA graph": peers.graphed_epochs(network_of(name), *splits, epochs, options.device),
    }


def _our_training(name: str, train: int, val: int, epochs: int, options: Options, graphs: bool) -> Callable[[], int]:
    from benchmarks import peers
    from visionforge import ImageClassifier, ImageDataModule

    synthetic = {"train": train, "val": val, "test": 64, "classes": CLASSES}
    cache: Any = "device" if options.device == "cuda" else "auto"
    data = ImageDataModule(dataset="synthetic", synthetic=synthetic, batch_size=128, cache=cache)

    def training() -> int:
        trainer = peers.quiet_trainer(options.device, epochs, precision="bf16-mixed")
        model = ImageClassifier(backbone={"name": name, "pretrained": False}, cuda_graphs=graphs)
        trainer.fit(model, datamodule=data)
        return epochs * (train // 128 * 128)

    return training


def beside(
    name: str, images: int, ours: Mapping[str, Any], other: str, theirs: Mapping[str, Any], options: Options
) -> Mapping[str, Side]:
    """Return the same training in two ways, by what `our_epoch` takes."""
    images = scaled(images, options)
    return {OURS: our_epoch(name, images, options, **ours), other: our_epoch(name, images, options, **theirs)}


def _own_folder() -> Path:
    """Return a new folder that is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="visionforge-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def whole_fit(options: Options) -> Mapping[str, Side]:
    """Return commands that train mini_cnn for five epochs, test it, and tell the AUC."""
    import numpy as np

    folder = _own_folder()
    archive = _archive(folder, np)
    command = [sys.executable, "-m", "visionforge", "fit", "--data.dataset", "synthetic"]
    given = {
        "data.synthetic.train": "546",
        "data.synthetic.val": "78",
        "data.synthetic.test": "156",
        "data.balanced_sampling": "false",
        "model.backbone.name": "mini_cnn",
        "model.backbone.pretrained": "false",
        "model.optimizer.learning_rate": "0.01",
        "trainer.max_epochs": "5",
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": str(folder / "outputs"),
    }
    command += [text for name, value in given.items() for text in (f"--{name}", value)] + ["--resume", "never"]
    lean = ["--evaluation.figures", "false", "--evaluation.report", "false"]
    return {
        OURS: Command(command),
        "visionforge without figures and report": Command([*command, *lean]),
        "plain Lightning, AUC and accuracy": Command(
            [sys.executable, "-m", "benchmarks.peers", "--archive", str(archive), "--epochs", "5"]
        ),
    }


def _archive(folder: Path, np) -> Path:  # noqa: ANN001
    """Write 546, 78 and 156 grey images, as many as BreastMNIST has, of discs that are darker or brighter."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    disc = ((rows - 14) ** 2 + (columns - 14) ** 2 < 60).astype(np.float64)
    arrays = {}
    for split, count in (("train", 546), ("val", 78), ("test", 156)):
        labels = np.arange(count) % 2
        brightness = np.where(labels, 0.5, 0.4)[:, None, None] * disc + rng.normal(0.3, 0.2, (count, 28, 28))
        arrays[f"{split}_images"] = (brightness.clip(0, 1) * 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(folder / "discs.npz", **arrays)
    return folder / "discs.npz"


def pictures(count: int, options: Options) -> Mapping[str, Side]:
    """Return commands that classify PNG files of 28×28 by mini_cnn, without test-time views."""
    from benchmarks.picture_files import make_pictures, write_checkpoint

    folder = _own_folder()
    make_pictures(folder / "pictures", scaled(count, options))
    write_checkpoint(folder / "model.ckpt", "mini_cnn")
    given = [str(folder / "pictures")]
    ours = ["predict", "--ckpt_path", str(folder / "model.ckpt"), "--images", *given, "--no-tta", "--overwrite"]
    return {
        OURS: Command([sys.executable, "-m", "visionforge", *ours, "--out", str(folder / "ours.csv")]),
        "torchvision, DataLoader of 2 workers": Command(
            [sys.executable, "-m", "benchmarks.picture_peer", *given, str(folder / "theirs.csv")]
        ),
    }


def imports(options: Options) -> Mapping[str, Side]:
    """Return the imports of a training, and those of Lightning alone."""
    return {
        OURS: Command(
            [
                sys.executable,
                "-c",
                "from visionforge.engine.first_imports import import_lightning as first\n"
                "first()\n"
                "import visionforge.engine.training",
            ]
        ),
        "lightning.pytorch": Command([sys.executable, "-c", "import lightning.pytorch"]),
        "torch": Command([sys.executable, "-c", "import torch"]),
    }


def helping(options: Options) -> Mapping[str, Side]:
    """Return commands that only tell something."""
    return {
        OURS: Command([sys.executable, "-m", "visionforge", "fit", "--help"]),
        "an empty Python": Command([sys.executable, "-c", "pass"]),
    }


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("train-resnet18", "An epoch of ResNet-18 on 1,280 images of 28×28 pixels, batches of 128.",
               partial(training, "resnet18", 1280)),
    Comparison("train-mini_cnn", "An epoch of mini_cnn on 6,400 images of 28×28 pixels, batches of 128.",
               partial(training, "mini_cnn", 6400)),
    Comparison("train-fastnet", "An epoch of fastnet on 2,560 images of 28×28 pixels, batches of 128.",
               partial(training, "fastnet", 2560)),
    Comparison("precision-resnet18", "An epoch of ResNet-18 in bfloat16 beside float32.",
               partial(beside, "resnet18", 1280, BFLOAT16, "the same in 32-true", {})),
    Comparison("precision-fastnet", "An epoch of fastnet in bfloat16 beside float32.",
               partial(beside, "fastnet", 2560, BFLOAT16, "the same in 32-true", {})),
    Comparison("compile-resnet18", "An epoch of ResNet-18 in bfloat16, compiled beside as it stands.",
               partial(beside, "resnet18", 1280, {**BFLOAT16, "compiled": True}, "the same uncompiled", BFLOAT16)),
    Comparison("whole-training", "60 epochs of ResNet-18 on 11,959 images of 28×28, each with a validation on 1,712.",
               partial(whole_training, "resnet18", 11959, 1712, 60), devices=("cuda",)),
    Comparison("whole-fit", "A whole command: mini_cnn, five epochs on 546 images, test and results.", whole_fit,
               "s", ("cpu",)),
    Comparison("predict-pictures", "A whole command: 40,000 PNG files of 28×28 to a table of what mini_cnn says.",
               partial(pictures, 40_000), "s", ("cpu",)),
    Comparison("imports", "What a training imports before it does anything.", imports, "s", ("cpu",)),
    Comparison("help", "`visionforge fit --help`.", helping, "s", ("cpu",)),
)  # fmt: skip
