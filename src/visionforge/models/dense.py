"""Networks that give logits of every pixel: a backbone's feature maps and a decoder."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visionforge.config.schema import Backbone, Decoder
from visionforge.errors import SettingsError
from visionforge.models.build import build_network, building
from visionforge.models.encoders import encoder_of, leave_out, require_brought_above, require_maps
from visionforge.models.features import FeatureExtractor
from visionforge.models.registry import BackboneEntry, backbone_entry
from visionforge.models.stages import Parts
from visionforge.models.transfer import TransferReport

log = logging.getLogger(__name__)

DECODER = "decoder."
_NEEDED_BY = "a decoder"


class DenseNetwork(nn.Module):
    """A backbone's feature maps, and a decoder that turns them into logits of every pixel.

    Args:
        encoder: Gives the maps.
        decoder: See `Decoder.build`.
        parts: What optimisers and staged unfreezing tell apart, by names in this network.

    Attributes:
        encoder: As given.
        decoder: As given.
        parts: As given.
    """

    def __init__(self, encoder: FeatureExtractor, decoder: nn.Module, parts: Parts) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.parts = parts

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) float32 to logits (N, K, H, W), or (N, C, D, H, W) to (N, K, D, H, W)."""
        logits: Tensor = self.decoder(self.encoder(images), images.shape[2:])
        return logits


def build_dense_network(
    settings: Backbone,
    decoder: Decoder,
    in_channels: int,
    outputs: int,
    resolution: int,
    pretrained: bool | None = None,
    spatial_dims: int = 2,
) -> tuple[DenseNetwork, TransferReport | None]:
    """Build a backbone with a decoder, and give the backbone its first weights.

    The backbone is built by `build_network`, so pretrained weights are transferred as there; its classifier is then
    left out, and so is the dropout in front of it.

    Args:
        settings: Name, stem and weights of the backbone.
        decoder: The decoder's settings.
        in_channels: Channels of the images.
        outputs: Number of logits K of a pixel.
        resolution: Height and width of the images in pixels, or the side of volumes in voxels.
        pretrained: Overrides `settings.pretrained`; False when a checkpoint will bring the weights.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        The network, and what became of the pretrained tensors; None without pretrained weights.

    Raises:
        SettingsError: If the backbone is unknown, gives no feature maps, or cannot be built for these images.
        WeightsError: If pretrained weights are missing or do not fit.
    """
    entry = backbone_entry(settings.name)
    require_maps(entry, spatial_dims, _NEEDED_BY)
    network, report = build_network(settings, in_channels, outputs, resolution, pretrained, spatial_dims)
    with building(entry, (in_channels, *(resolution,) * spatial_dims)):
        found = _with_decoder(network, entry, decoder, in_channels, outputs, resolution, spatial_dims)
        if not type(decoder).__module__.startswith(f"{Decoder.family.package}."):
            _try(found, decoder, in_channels, outputs, resolution, spatial_dims)
    leave_out(report, network)
    maps = zip(found.encoder.channels, found.encoder.strides, strict=True)
    told = ", ".join(f"{channels} at 1/{stride}" for channels, stride in maps)
    log.info("%s: channels of the maps for %s: %s", settings.name, decoder.name, told)
    return found, report


def require_brought_dense(
    settings: Backbone,
    decoder: Decoder,
    in_channels: int,
    outputs: int,
    resolution: int,
    brought: Mapping[str, Tensor],
    spatial_dims: int = 2,
) -> None:
    """Check that a network is not much larger than the weights that a file brings for it, before it is built.

    Args:
        settings: Name and stem of the backbone, which the file may have named.
        decoder: The decoder's settings, which the file may have named.
        in_channels: Channels of the images.
        outputs: Number of logits K of a pixel.
        resolution: Height and width of the images in pixels, or the side of volumes in voxels.
        brought: What the file holds.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        WeightsError: If it is.
        SettingsError: If the backbone is unknown, or known to give no feature maps.
    """
    entry = backbone_entry(settings.name)
    require_maps(entry, spatial_dims, _NEEDED_BY)
    asked = (in_channels, outputs, resolution, spatial_dims)
    require_brought_above(settings, asked, brought, lambda network: _with_decoder(network, entry, decoder, *asked))


def _with_decoder(
    network: nn.Module,
    entry: BackboneEntry,
    decoder: Decoder,
    in_channels: int,
    outputs: int,
    resolution: int,
    spatial_dims: int,
) -> DenseNetwork:
    """Return a network whose encoder is a backbone with a classifier, which is changed in place.

    Raises:
        SettingsError: If the backbone gives no feature maps.
    """
    encoder, parts = encoder_of(network, entry, in_channels, resolution, spatial_dims, (DECODER,), _NEEDED_BY)
    above = decoder.build(encoder.channels, encoder.strides, outputs, spatial_dims)
    return DenseNetwork(encoder, above, parts)


def _try(
    network: DenseNetwork, decoder: Decoder, in_channels: int, outputs: int, resolution: int, spatial_dims: int
) -> None:
    """Send one image or volume through a decoder that we do not know.

    Raises:
        SettingsError: If it does not give the logits of every pixel.
    """
    sides = (resolution,) * spatial_dims
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, in_channels, *sides))
    network.train()
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (1, outputs, *sides):
        raise SettingsError(
            f"model.decoder.name: {decoder.name} gives {shape} for one image, expected {(1, outputs, *sides)}"
        )
