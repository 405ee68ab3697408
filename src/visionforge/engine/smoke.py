"""The whole pipeline on rendered images in a temporary folder, stage by stage."""

import contextlib
import io
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.errors import VisionForgeError

RESOLUTION = 28


@dataclass
class Bench:
    """What the stages hand to each other.

    Attributes:
        folder: The temporary folder.
        run: The run folder, once the network is trained.
    """

    folder: Path
    run: Path = Path()

    @property
    def weights(self) -> Path:
        """Local weight file of a standard ResNet-18."""
        return self.folder / "resnet18.pth"


@dataclass(frozen=True)
class StageResult:
    """How a stage went.

    Attributes:
        name: Its name.
        passed: Whether it did what it should.
        found: What was found, or why it failed.
        seconds: How long it took.
    """

    name: str
    passed: bool
    found: str
    seconds: float


def smoke(told: Callable[[StageResult], None] | None = None) -> list[StageResult]:
    """Run all stages, also those after one that failed, and return how they went.

    Args:
        told: Is given each result as soon as it is there.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="visionforge-smoke-") as folder:
        bench = Bench(Path(folder))
        for name, stage in STAGES.items():
            results.append(_run(name, stage, bench))
            if told is not None:
                told(results[-1])
    return results


def _run(name: str, stage: Callable[[Bench], str], bench: Bench) -> StageResult:
    started = time.perf_counter()
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            passed, found = True, stage(bench)
    except VisionForgeError as error:
        passed, found = False, f"error: {error.problems[-1]}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        passed, found = False, f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    return StageResult(name, passed, found, time.perf_counter() - started)


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise AssertionError(complaint)


def _settings(bench: Bench) -> dict[str, Any]:
    return {
        "data.dataset": "synthetic",
        "data.resolution": RESOLUTION,
        "data.batch_size": 16,
        "data.synthetic.train": 96,
        "data.synthetic.val": 32,
        "data.synthetic.test": 32,
        "model.backbone.weights": str(bench.weights),
        "model.backbone.pretrained": True,
        "model.mixup.alpha": 0.4,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": str(bench.folder / "outputs"),
    }


def data(bench: Bench) -> str:
    """Load, shuffle and normalise batches."""
    from visionforge.data.datamodule import ImageDataModule

    module = ImageDataModule("synthetic", resolution=RESOLUTION, batch_size=16)
    module.prepare_data()
    module.setup("fit")
    batches = [module.augment(images, 0, step) for step, (images, _) in enumerate(module.train_dataloader())]
    _require(all(bool(batch.isfinite().all()) for batch in batches), "a batch holds values that are not finite")
    return f"{len(batches)} batches of {tuple(batches[0].shape)}"


def weight_transfer(bench: Bench) -> str:
    """Fit the weights of a standard network, from a file, to the stem for small images."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torchvision.models import resnet18

    from visionforge.config.schema import Backbone
    from visionforge.models.build import build_network

    torch.manual_seed(0)
    source = resnet18(weights=None)
    torch.save(source.state_dict(), bench.weights)
    settings = Backbone(name="resnet18", pretrained=True, weights=str(bench.weights))
    kernel = build_network(settings, 3, 4, RESOLUTION)[0].state_dict()["conv1.weight"]
    expected = F.interpolate(source.conv1.weight, size=(3, 3), mode="bicubic", align_corners=False)
    _require(torch.equal(kernel, expected), "the 3×3 kernels are not the resampled 7×7 kernels")
    return "7×7 kernels resampled to 3×3"


def training(bench: Bench) -> str:
    """Train with MixUp from the made weight file."""
    from visionforge.config.loading import read_values
    from visionforge.engine.fit import fit, request_of
    from visionforge.runs.signals import Interruption

    with Interruption() as interruption:
        run = fit(request_of(read_values(None, _settings(bench))), interruption)
    bench.run = run.path.resolve()
    losses = run.epochs["train/loss"].tolist()
    _require(len(losses) == 2, f"metrics.csv has {len(losses)} epochs, expected 2")
    return f"2 epochs with MixUp, loss {losses[0]:.3f} to {losses[-1]:.3f}"


def checkpoint(bench: Bench) -> str:
    """Predict from the checkpoint alone."""
    import torch

    from visionforge.training.classifier import ImageClassifier

    model = ImageClassifier.load_from_checkpoint(
        bench.run / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True
    ).eval()
    with torch.no_grad():
        logits = model(torch.zeros((2, 3, RESOLUTION, RESOLUTION), dtype=torch.uint8))
    _require(tuple(logits.shape) == (2, 4), f"logits have shape {tuple(logits.shape)}")
    return "predicts without data set and configuration"


def test_with_tta(bench: Bench) -> str:
    """Test the best checkpoint again, and compare with what the fit reported."""
    from visionforge.config.loading import read_values
    from visionforge.engine.evaluate import evaluate
    from visionforge.engine.run import Run

    fitted = Run(bench.run).result.content
    again = evaluate(read_values(None, {"run": str(bench.run)}), "test").content
    _require(fitted.get("with_tta") is not None, "there are no metrics with test-time augmentation")
    _require(fitted == again, "the metrics differ from those of the fit")
    return f"accuracy {fitted['with_tta']['accuracy']:.3f}, the same as in the fit"


def figures(bench: Bench) -> str:
    """Open the pictures."""
    import matplotlib.image

    names = ("training_curves.png", "confusion_matrix.png", "sample_predictions.png")
    for name in names:
        pixels = matplotlib.image.imread(bench.run / "figures" / name)
        _require(pixels.std() > 0.01, f"{name} is blank")
    return ", ".join(names)


def tables(bench: Bench) -> str:
    """Read the predictions back and score them."""
    from visionforge.engine.run import Run
    from visionforge.evaluation.metrics import classification_metrics
    from visionforge.evaluation.predictions import read_predictions

    probabilities, labels = read_predictions(bench.run / "predictions.csv")
    _require(labels is not None, "predictions.csv has no labels")
    assert labels is not None
    content = Run(bench.run).result.content
    reported = content["with_tta"]["accuracy"]
    scored = classification_metrics(probabilities, labels, content["task"])["accuracy"]
    _require(scored == reported, f"predictions.csv scores {scored}, metrics.json says {reported}")
    return f"{len(labels)} predictions score as reported"


STAGES: dict[str, Callable[[Bench], str]] = {
    "data": data,
    "weight transfer": weight_transfer,
    "fit": training,
    "checkpoint": checkpoint,
    "test with TTA": test_with_tta,
    "figures": figures,
    "tables": tables,
}
