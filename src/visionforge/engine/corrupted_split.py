"""A trained network on a split of its data, clean and corrupted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import DataSettings
from visionforge.config.schema.tasks import fits
from visionforge.data.corrupting import corrupted
from visionforge.data.corruption import Corruption
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import Split
from visionforge.errors import SettingsError
from visionforge.evaluation.robustness import Condition, Observation, observe
from visionforge.inference.loading import Target, device_of, load_classifier
from visionforge.inference.predictor import BatchPrediction, NetworkPredictor, thresholds_of
from visionforge.runs.signals import Interruption
from visionforge.scoring.clusters import Clusters

BATCH = 128
SAMPLED = 32  # first images of a split, of which the one with the most contrast is shown
Array = npt.NDArray[Any]


@dataclass
class Observed:
    """What a network made of a split.

    Attributes:
        clean: Of the images as they are.
        corrupted: And under each condition.
        sample: Position of the image that is shown.
        picture: (C, R, R) uint8, that image.
        pictures: The same image under each condition.
    """

    clean: Observation
    sample: int
    picture: Array
    corrupted: list[Observation] = field(default_factory=list)
    pictures: list[Array] = field(default_factory=list)


class CorruptedSplit:
    """A network and the images of a split, which can be corrupted.

    Args:
        target: The network.
        split: The split.
        limit: Look at the first images only, at most so many; None takes all.
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.

    Attributes:
        spec: The task.
        channels: Of the images, 1 or 3, whatever the network takes.
        of: Number of images of the split.
        images: How many of them are looked at.
        labels: (N,) classes, or (N, K) 0/1, of those.
        clusters: Groups of images that belong together; None: each stands for itself.
        averages: Whether the network averages over test-time views.

    Raises:
        SettingsError: If it is no network of classes or labels of images.
        VisionForgeError: If checkpoint or data cannot be used.
    """

    def __init__(self, target: Target, split: Split, limit: int | None, accelerator: str) -> None:
        self._model = load_classifier(target.checkpoint).to(device_of(accelerator))
        spec = self._model.spec
        assert spec is not None
        if not fits(None, spec.task) or spec.spatial_dims != 2:
            what = "volumes" if spec.spatial_dims == 3 else f"{spec.task} networks"
            raise SettingsError(
                f"robustness: there are no corruptions for {what}; allowed: classes or labels of images, "
                "of which `visionforge test` tells the rest"
            )
        settings = DataSettings.model_validate({**target.config.get("data", {}), "cache": "auto", "num_workers": 0})
        module = ImageDataModule.of_images(settings)
        self._model.bind(module.spec)
        self.spec, self.channels = spec, module.info.channels
        self._dataset = module.dataset_for(split)
        self.of = len(self._dataset)
        self.images = self.of if limit is None else min(limit, self.of)
        self.labels: Array = self._dataset.labels[: self.images].cpu().numpy()
        groups = module.groups(split)
        self.clusters = None if groups is None else Clusters(groups[: self.images])
        self._predictor = NetworkPredictor(self._model)
        self.averages = False  # test-time views; known when the network has said something

    def observe(
        self,
        corruptions: Sequence[tuple[Corruption, int]],
        seed: int,
        interruption: Interruption,
        progress: Callable[[int, int], None],
    ) -> Observed:
        """Return what the network makes of the images, clean and under each corruption at each severity.

        Args:
            corruptions: Corruptions and severities.
            seed: Seed of what the corruptions draw.
            interruption: Handles the signals.
            progress: Told how many images were looked at, and how many there are in all.
        """
        total, self._done = self.images * (1 + len(corruptions)), 0
        first = self._dataset.__getitems__(list(range(min(SAMPLED, self.images))))[0]
        sample = int(first.float().flatten(1).std(dim=1).argmax())

        def one(corruption: Corruption | None, severity: int) -> tuple[Observation, Array]:
            parts, picture = [], first[sample].cpu().numpy()
            for start in range(0, self.images, BATCH):
                interruption.check()
                places = list(range(start, min(self.images, start + BATCH)))
                images = self._dataset.__getitems__(places)[0].to(self._model.device)
                if corruption is not None:
                    images = corrupted(images, corruption, severity, places, seed)
                if sample in places:
                    picture = images[sample - start].cpu().numpy()
                parts.append(self._predictor(images))
                self._done += len(places)
                progress(self._done, total)
            return self._observation(BatchPrediction.joined(parts)), picture

        clean, picture = one(None, 0)
        found = Observed(clean, sample, picture)
        for corruption, severity in corruptions:
            seen, changed = one(corruption, severity)
            found.corrupted.append(seen)
            found.pictures.append(changed)
        return found

    def _observation(self, said: BatchPrediction) -> Observation:
        self.averages = said.raw_tta is not None
        thresholds = thresholds_of(self._model, self.averages)
        return observe(said, self.labels, self.spec, None if thresholds is None else thresholds.cpu().numpy())

    def conditions(self, corruptions: Sequence[tuple[Corruption, int]]) -> list[Condition]:
        """Return what corruptions at severities are for these images."""
        resolution = self.spec.resolution
        return [
            Condition(each.name, each.group, severity, each.strength(severity, resolution), each.averaged)
            for each, severity in corruptions
        ]

    def same_images(self, other: "CorruptedSplit") -> bool:
        """Return whether another network is asked about the same images of the same classes, as far as labels tell."""
        same = (self.spec.dataset, self.spec.classes, self.channels, self.images)
        return same == (other.spec.dataset, other.spec.classes, other.channels, other.images) and np.array_equal(
            self.labels, other.labels
        )
