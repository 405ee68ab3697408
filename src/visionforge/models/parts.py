"""A network that is about to be trained, and the names of its parts: what is behind the backbone, stem and stages."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from visionforge.config.schema import Backbone
from visionforge.models.build import build_network, require_brought
from visionforge.models.registry import backbone_entry
from visionforge.models.stages import stage_names
from visionforge.models.transfer import TransferReport


@dataclass(frozen=True)
class BuiltNetwork:
    """A network and what its parameters belong to.

    Attributes:
        network: The network, with its first weights.
        transfer: What became of pretrained weights; None without them.
        head: Beginnings of the names of parameters that are not the backbone's: the classifier, or a decoder.
        stem: Name of the first convolution's weight.
        stages: Names of the modules that make up the backbone, from the input on.
    """

    network: nn.Module
    transfer: TransferReport | None
    head: tuple[str, ...]
    stem: str
    stages: tuple[str, ...]


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
    entry = backbone_entry(settings.name)
    return BuiltNetwork(network, transfer, entry.head_of(network), entry.stem_of(network), stage_names(entry, network))
