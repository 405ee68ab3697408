"""Is the artifact the network? Both see the same real images, and every difference is written down."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visionforge.data.info import TaskSpec
from visionforge.errors import RunError
from visionforge.inference.artifacts import ArtifactPredictor, Runtime
from visionforge.inference.predictions import DISAGREEMENT, Pixels, Predictor
from visionforge.training.classifier import ImageClassifier

BOUND = 1e-4  # of the probabilities, for float32
LEAST_AGREEMENT = 0.95  # a deviation within the bound may turn few decisions, those that were about even
BATCH = 128
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Images:
    """Real images to prove an artifact on.

    Attributes:
        pixels: (N, C, R, R) uint8.
        labels: (N,), or (N, K) 0/1; None if they are not known.
        source: Where they come from.
    """

    pixels: Pixels
    labels: Array | None
    source: str

    def batches(self) -> Iterator[Pixels]:
        """Yield the images in batches; the last has one image, so that other sizes than the first are tried, too."""
        cuts = [*range(0, max(1, len(self.pixels) - 1), BATCH), len(self.pixels) - 1, len(self.pixels)]
        for start, end in zip(sorted(set(cuts)), sorted(set(cuts))[1:], strict=False):
            yield self.pixels[start:end]


@dataclass(frozen=True)
class Parity:
    """How far an artifact is from the network that it was made from.

    Attributes:
        images: Number of images.
        source: Where they come from.
        largest_deviation: Of all probabilities; of boxes of scores, and of places in sides of the image.
        mean_deviation: Mean of the same.
        agreement: Share of the images whose labels are the same, all of an image; of masks the share of the pixels, of
            boxes that of the boxes.
        bound: What the largest deviation may be; None for a quantised artifact.
        before: Metrics of the network; empty without labels.
        after: Metrics of the artifact.
        change: What the second has more than the first.
        same_sets: Share of the images whose set of classes is the same; None without sets.
        largest_ood_deviation: Of `ood_score`, as a share of the largest; None without.
        largest_disagreement_deviation: Of the disagreement of an ensemble's networks, in nats; None for one network.
    """

    images: int
    source: str
    largest_deviation: float
    mean_deviation: float
    agreement: float
    bound: float | None
    before: dict[str, float | None]
    after: dict[str, float | None]
    change: dict[str, float]
    same_sets: float | None = None
    largest_ood_deviation: float | None = None
    largest_disagreement_deviation: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return asdict(self)


def expected(model: ImageClassifier, images: Images) -> Any:
    """Return what the model itself says of the images."""
    assert model.spec is not None
    return said_of(model.spec.kind.predictor(model, keep=True), images)


def said_of(predictor: Predictor, images: Images) -> Any:
    """Return what a predictor says of the images."""
    parts = [predictor(torch.from_numpy(part.copy())) for part in images.batches()]
    return type(parts[0]).joined(parts)


def compare(spec: TaskSpec, wanted: Any, runtime: Runtime, images: Images, bound: float | None) -> Parity:
    """Run an artifact and compare it with what was expected.

    Args:
        spec: The task.
        wanted: What the model itself says.
        runtime: The artifact, loaded by its own runtime.
        images: The images.
        bound: What the largest deviation may be; None allows any.

    Raises:
        RunError: If the largest deviation is beyond the bound, or much is predicted otherwise.
    """
    said = said_of(ArtifactPredictor(runtime), images)
    found = spec.kind.agreement(wanted, said, spec)
    if bound is not None and found.largest > bound:
        raise RunError(
            f"the artifact deviates by {found.largest:.3g} from the network (allowed: {bound:g}), so it was not kept; "
            "try another `opset` or `format`"
        )
    further = _further(wanted, said)
    if bound is not None and further["largest_ood_deviation"] is not None and further["largest_ood_deviation"] > bound:
        raise RunError(
            f"the artifact's ood_score deviates by {further['largest_ood_deviation']:.3g} of the largest (allowed: "
            f"{bound:g}), so it was not kept; try another `opset` or `format`"
        )
    if bound is not None and further["same_sets"] is not None and further["same_sets"] < LEAST_AGREEMENT:
        raise RunError(
            f"the artifact has the same set of classes as the network of {further['same_sets']:.1%} only (allowed: "
            f"from {LEAST_AGREEMENT:.0%}), so it was not kept; try another `opset` or `format`"
        )
    agreement = float(found.same.mean())
    if bound is not None and agreement < LEAST_AGREEMENT:
        raise RunError(
            f"the artifact says the same as the network of {agreement:.1%} only (allowed: from {LEAST_AGREEMENT:.0%}), "
            "so it was not kept; try another `opset` or `format`"
        )
    before: dict[str, float | None] = {}
    after: dict[str, float | None] = {}
    if images.labels is not None:
        before, after = (spec.kind.scored(p.calibrated, images.labels, spec) for p in (wanted, said))
    change = {name: b - a for name, a in before.items() if a is not None and (b := after[name]) is not None}
    return Parity(
        len(images.pixels),
        images.source,
        found.largest,
        found.mean,
        agreement,
        bound,
        before,
        after,
        change,
        **further,
    )


def _further(wanted: Any, said: Any) -> dict[str, float | None]:
    """Return how far sets of classes and `ood_score` agree; None of what there is not."""
    here, there = getattr(wanted, "columns", {}), getattr(said, "columns", {})
    found: dict[str, float | None] = {
        "same_sets": None,
        "largest_ood_deviation": None,
        "largest_disagreement_deviation": None,
    }
    if DISAGREEMENT in here and DISAGREEMENT in there:
        found["largest_disagreement_deviation"] = float(np.abs(here[DISAGREEMENT] - there[DISAGREEMENT]).max())
    if "set" in here and "set" in there:
        found["same_sets"] = float((here["set"] == there["set"]).all(axis=1).mean())
    if "ood_score" in here and "ood_score" in there:
        one, other = (each["ood_score"].astype(np.float64) for each in (here, there))
        found["largest_ood_deviation"] = float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-12))
    return found


def calibration_batches(images: Images, count: int) -> Sequence[Pixels]:
    """Return images for quantisation, in batches of 32, drawn evenly over the split.

    Args:
        images: The validation images.
        count: Most images.
    """
    chosen = np.unique(np.linspace(0, len(images.pixels) - 1, min(count, len(images.pixels))).astype(np.int64))
    return [images.pixels[chosen[start : start + 32]] for start in range(0, len(chosen), 32)]
