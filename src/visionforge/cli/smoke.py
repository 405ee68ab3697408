"""`visionforge smoke`: the whole pipeline on rendered images in a temporary folder, one line per stage."""

import contextlib
import csv
import io
import json
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from visionforge.cli.arguments import say, say_text
from visionforge.errors import SettingsError

RESOLUTION = 28
EXIT_FAILED = 1


@dataclass
class Bench:
    """What the stages hand to each other.

    Attributes:
        folder: The temporary folder.
        run: The run folder, once the network is trained.
    """

    folder: Path
    run: Path = field(default_factory=Path)

    @property
    def weights(self) -> Path:
        """Local weight file of a standard ResNet-18."""
        return self.folder / "resnet18.pth"


def run_smoke(arguments: list[str]) -> int:
    """Run all stages; return 0 if every one passed and 1 otherwise."""
    if arguments in (["--help"], ["-h"]):
        say_text("usage: visionforge smoke\n\nTry the whole pipeline on rendered images; exit status 1 if it fails.")
        return 0
    if arguments:
        raise SettingsError(f"smoke: {arguments[0]}: takes no arguments")
    started = time.perf_counter()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="visionforge-smoke-") as folder:
        bench = Bench(Path(folder))
        for name, stage in STAGES.items():
            failed += not _run(name, stage, bench)
    total = time.perf_counter() - started
    say(f"{len(STAGES) - failed} of {len(STAGES)} stages passed in {total:.1f} s")
    return EXIT_FAILED if failed else 0


def _run(name: str, stage: Callable[[Bench], str], bench: Bench) -> bool:
    started = time.perf_counter()
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            found = stage(bench)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = [line for line in quiet.getvalue().splitlines() if line.startswith("error: ")]
        reason = said[-1] if said else f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        say(f"✗ {name}: {reason}")
        return False
    say(f"✓ {name}: {found} ({time.perf_counter() - started:.1f} s)")
    return True


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise AssertionError(complaint)


def _main(arguments: list[str]) -> None:
    from visionforge.cli.main import main

    _require(main(arguments) == 0, f"`visionforge {arguments[0]}` failed")


def _settings(bench: Bench) -> list[str]:
    flags = {
        "data.dataset": "synthetic",
        "data.resolution": RESOLUTION,
        "data.batch_size": 16,
        "data.synthetic.train": 96,
        "data.synthetic.val": 32,
        "data.synthetic.test": 32,
        "model.backbone.weights": bench.weights,
        "model.backbone.pretrained": "true",
        "model.mixup.alpha": 0.4,
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": bench.folder / "outputs",
    }
    return [item for key, value in flags.items() for item in (f"--{key}", str(value))]


def data(bench: Bench) -> str:
    """Load, shuffle and normalise batches."""
    from visionforge.data.datamodule import MedMNISTDataModule

    module = MedMNISTDataModule("synthetic", resolution=RESOLUTION, batch_size=16)
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


def fit(bench: Bench) -> str:
    """Train with MixUp from the made weight file."""
    _main(["fit", *_settings(bench)])
    bench.run = (bench.folder / "outputs" / "latest").resolve()
    with (bench.run / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
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
    _main(["test", "--run", str(bench.run)])
    fitted = json.loads((bench.run / "metrics.json").read_text())
    again = json.loads((bench.run / "evaluations" / "test_best" / "metrics.json").read_text())
    _require(fitted["with_tta"] is not None, "there are no metrics with test-time augmentation")
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
    from visionforge.evaluation.metrics import classification_metrics
    from visionforge.evaluation.predictions import read_predictions

    probabilities, labels = read_predictions(bench.run / "predictions.csv")
    _require(labels is not None, "predictions.csv has no labels")
    assert labels is not None
    reported = json.loads((bench.run / "metrics.json").read_text())["with_tta"]["accuracy"]
    scored = classification_metrics(probabilities, labels, "multi-class")["accuracy"]
    _require(scored == reported, f"predictions.csv scores {scored}, metrics.json says {reported}")
    return f"{len(labels)} predictions score as reported"


STAGES: dict[str, Callable[[Bench], str]] = {
    "data": data,
    "weight transfer": weight_transfer,
    "fit": fit,
    "checkpoint": checkpoint,
    "test with TTA": test_with_tta,
    "figures": figures,
    "tables": tables,
}
