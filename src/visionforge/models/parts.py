"""A network that is about to be trained: a backbone with a classifier, a decoder or a detector."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from visionforge.config.schema import Backbone, Decoder, Detector
from visionforge.models.build import build_network, require_brought
from visionforge.models.dense import build_dense_network, require_brought_dense
from visionforge.models.registry import backbone_entry
from visionforge.models.stages import Parts, parts_of
from visionforge.models.transfer import TransferReport


@dataclass(frozen=True)
class BuiltNetwork:
    """A network and what is known of it.

    Attributes:
        network: The network, with its first weights.
        transfer: What became of pretrained weights; None without them.
        parts: What optimisers and staged unfreezing tell apart.
    """

    network: nn.Module
    transfer: TransferReport | None
    parts: Parts


def classifying_network(
    settings: Backbone,
    channels: int,
    outputs: int,
    resolution: int,
    spatial_dims: int = 2,
    pretrained: bool | None = None,
    brought: Mapping[str, Tensor] | None = None,
) -> BuiltNetwork:
    """Build a backbone with a classifier on top.

    Args:
        settings: Name, stem, dropout and weights.
        channels: Channels of the images.
        outputs: Number of logits.
        resolution: Height and width in pixels, or side of volumes in voxels.
        spatial_dims: 2 for images, 3 for volumes.
        pretrained: Read pretrained weights; None as the settings say.
        brought: The tensors of a file that are about to be loaded, which are not to be much smaller than the network.

    Raises:
        SettingsError: If the backbone is unknown, or cannot be built for these images or volumes.
        WeightsError: If pretrained weights are missing or do not fit, or those of the file are too few.
    """
    if brought is not None:
        require_brought(settings, channels, outputs, resolution, brought, spatial_dims)
    network, transfer = build_network(settings, channels, outputs, resolution, pretrained, spatial_dims)
    return BuiltNetwork(network, transfer, parts_of(backbone_entry(settings.name), network))


def decoding_network(
    settings: Backbone,
    decoder: Decoder,
    channels: int,
    outputs: int,
    resolution: int,
    spatial_dims: int = 2,
    pretrained: bool | None = None,
    brought: Mapping[str, Tensor] | None = None,
) -> BuiltNetwork:
    """Build a backbone with a decoder, from images (N, C, R, R) to logits (N, K, R, R), or likewise of volumes.

    Args:
        settings: Name, stem and weights of the backbone.
        decoder: The decoder's settings.
        channels: Channels of the images.
        outputs: Number of logits K of a pixel.
        resolution: Height and width R in pixels, or side of volumes in voxels.
        spatial_dims: 2 for images, 3 for volumes.
        pretrained: Read pretrained weights; None as the settings say.
        brought: The tensors of a file that are about to be loaded, which are not to be much smaller than the network.

    Raises:
        SettingsError: If the backbone is unknown, gives no feature maps, or cannot be built for these images.
        WeightsError: If pretrained weights are missing or do not fit, or those of the file are too few.
    """
    if brought is not None:
        require_brought_dense(settings, decoder, channels, outputs, resolution, brought, spatial_dims)
    network, transfer = build_dense_network(settings, decoder, channels, outputs, resolution, pretrained, spatial_dims)
    return BuiltNetwork(network, transfer, network.parts)


def detecting_network(
    settings: Backbone,
    detector: Detector,
    channels: int,
    classes: int,
    resolution: int,
    pretrained: bool | None = None,
    brought: Mapping[str, Tensor] | None = None,
) -> BuiltNetwork:
    """Build a backbone with a detector, from images (N, C, R, R) to boxes (N, D, 6).

    Args:
        settings: Name, stem and weights of the backbone.
        detector: The detector's settings.
        channels: Channels of the images.
        classes: Number of classes K.
        resolution: Height and width R in pixels.
        pretrained: Read pretrained weights; None as the settings say.
        brought: The tensors of a file that are about to be loaded, which are not to be much smaller than the network.

    Raises:
        SettingsError: If the backbone is unknown, gives no feature maps, or cannot be built for these images.
        WeightsError: If pretrained weights are missing or do not fit, or those of the file are too few.
    """
    from visionforge.models.detection import build_detection_network, require_brought_detection  # torchvision's

    if brought is not None:
        require_brought_detection(settings, detector, channels, classes, resolution, brought)
    network, transfer = build_detection_network(settings, detector, channels, classes, resolution, pretrained)
    return BuiltNetwork(network, transfer, network.parts)
