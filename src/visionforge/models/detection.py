"""Networks that find boxes: a backbone's feature maps, a feature pyramid and a detector."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from visionforge.config.schema import Backbone, Detector
from visionforge.errors import SettingsError
from visionforge.models.build import build_network, building
from visionforge.models.detector_heads import Target
from visionforge.models.encoders import encoder_of, leave_out, require_brought_above, require_maps
from visionforge.models.features import FeatureExtractor
from visionforge.models.registry import BackboneEntry, backbone_entry
from visionforge.models.stages import Parts
from visionforge.models.transfer import TransferReport

log = logging.getLogger(__name__)

PYRAMID, DETECTOR = "pyramid.", "detector."
_NEEDED_BY = "a detector"


class DetectionNetwork(nn.Module):
    """A backbone's feature maps, a feature pyramid (Lin et al., 2017, arXiv:1612.03144), and a detector on its levels.

    Args:
        encoder: Gives the maps.
        levels: Which of them are used, by their places.
        width: Channels of the pyramid.
        detector: See `visionforge.models.detector_heads.Head`.
        parts: What optimisers and staged unfreezing tell apart, by names in this network.
        max_detections: Rows D of what it says of an image.

    Attributes:
        encoder: As given.
        detector: As given.
        parts: As given.
        max_detections: As given.
    """

    def __init__(
        self,
        encoder: FeatureExtractor,
        levels: tuple[int, ...],
        width: int,
        detector: nn.Module,
        parts: Parts,
        max_detections: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pyramid = FeaturePyramidNetwork([encoder.channels[level] for level in levels], width)
        self.detector = detector
        self.parts = parts
        self.max_detections = max_detections
        self._levels = levels

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) float32 to (N, D, 6) float32 rows [class, score, x1, y1, x2, y2], by falling score.

        Coordinates are pixels; rows without a box have the class -1 and are 0 otherwise. In training mode it is asked
        for `losses` instead.
        """
        detector: Any = self.detector
        found: Tensor = detector.detect(self._maps(images), images, self.max_detections)
        return found

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the detector's losses of a batch, a scalar.

        Args:
            images: (N, C, H, W), normalised.
            labels: (N, M, 5) rows [class, x1, y1, x2, y2]; class -1 in rows without a box.
        """
        images = images.to(next(self.parameters()).dtype)
        return self._summed(self._maps(images), images, targets_of(labels))

    def losses_of_each(self, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Return (N,) the sum of the detector's losses of each image, as if it were a batch of its own.

        In evaluation mode the value of an image does not depend on the others of its batch.

        Args:
            images: (N, C, H, W), normalised.
            labels: (N, M, 5), as in `losses`.
            seed: The global generators are set to it before every image; it decides what two-stage detectors look at.
        """
        images = images.to(next(self.parameters()).dtype)
        maps = self._maps(images)
        found = []
        for place, target in enumerate(targets_of(labels)):
            torch.manual_seed(seed)
            only = slice(place, place + 1)
            found.append(self._summed([each[only] for each in maps], images[only], [target]))
        return torch.stack(found)

    def _summed(self, maps: list[Tensor], images: Tensor, targets: list[Target]) -> Tensor:
        detector: Any = self.detector
        each: dict[str, Tensor] = detector.losses(maps, images, targets)
        return torch.stack([loss.float() for loss in each.values()]).sum()

    def _maps(self, images: Tensor) -> list[Tensor]:
        given = self.encoder(images)
        return list(self.pyramid(OrderedDict((str(level), given[level]) for level in self._levels)).values())


def targets_of(labels: Tensor) -> list[Target]:
    """Return what is in each image of padded rows (N, M, 5), as torchvision has it; classes count from 0."""
    kept = [rows[rows[:, 0] >= 0] for rows in labels]
    return [{"boxes": rows[:, 1:].float(), "labels": rows[:, 0].long()} for rows in kept]


def build_detection_network(
    settings: Backbone,
    detector: Detector,
    in_channels: int,
    classes: int,
    resolution: int,
    pretrained: bool | None = None,
) -> tuple[DetectionNetwork, TransferReport | None]:
    """Build a backbone with a detector, and give the backbone its first weights.

    The backbone is built by `build_network`, so pretrained weights are transferred as there; its classifier is then
    left out, and so is the dropout in front of it.

    Args:
        settings: Name, stem and weights of the backbone.
        detector: The detector's settings.
        in_channels: Channels of the images.
        classes: Number of classes K.
        resolution: Height and width of the images in pixels.
        pretrained: Overrides `settings.pretrained`; False when a checkpoint will bring the weights.

    Returns:
        The network, and what became of the pretrained tensors; None without pretrained weights.

    Raises:
        SettingsError: If the backbone is unknown, gives no feature maps, or cannot be built for these images.
        WeightsError: If pretrained weights are missing or do not fit.
    """
    entry = backbone_entry(settings.name)
    require_maps(entry, 2, _NEEDED_BY)
    network, report = build_network(settings, in_channels, classes, resolution, pretrained, 2)
    with building(entry, (in_channels, resolution, resolution)):
        found, strides = _with_detector(network, entry, detector, in_channels, classes, resolution)
    leave_out(report, network)
    log.info("%s: strides of the maps for %s: %s", settings.name, detector.name, ", ".join(map(str, strides)))
    return found, report


def require_brought_detection(
    settings: Backbone,
    detector: Detector,
    in_channels: int,
    classes: int,
    resolution: int,
    brought: Mapping[str, Tensor],
) -> None:
    """Check that a network is not much larger than the weights that a file brings for it, before it is built.

    Args:
        settings: Name and stem of the backbone, which the file may have named.
        detector: The detector's settings, which the file may have named.
        in_channels: Channels of the images.
        classes: Number of classes K.
        resolution: Height and width of the images in pixels.
        brought: What the file holds.

    Raises:
        WeightsError: If it is.
        SettingsError: If the backbone is unknown, or known to give no feature maps.
    """
    entry = backbone_entry(settings.name)
    require_maps(entry, 2, _NEEDED_BY)
    asked = (in_channels, classes, resolution)

    def build_above(network: nn.Module) -> nn.Module:
        return _with_detector(network, entry, detector, *asked)[0]

    require_brought_above(settings, (*asked, 2), brought, build_above)


def _with_detector(
    network: nn.Module, entry: BackboneEntry, detector: Detector, in_channels: int, classes: int, resolution: int
) -> tuple[DetectionNetwork, list[int]]:
    """Return a network whose encoder is a backbone with a classifier, which is changed in place, and its strides.

    Raises:
        SettingsError: If the backbone gives no feature maps, or only finer ones than asked for.
    """
    heads = (PYRAMID, DETECTOR)
    encoder, parts = encoder_of(network, entry, in_channels, resolution, 2, heads, _NEEDED_BY)
    levels = tuple(level for level, stride in enumerate(encoder.strides) if stride >= detector.finest_stride)
    if not levels:
        raise SettingsError(
            f"model.detector.finest_stride: {detector.finest_stride} leaves no feature map of {entry.name} at "
            f"{resolution} pixels; at most {encoder.strides[-1]}"
        )
    strides = [encoder.strides[level] for level in levels]
    above = detector.build(strides, classes, resolution)
    found = DetectionNetwork(encoder, levels, detector.width, above, parts, detector.max_detections)
    return found, strides
