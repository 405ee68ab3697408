"""Networks that give logits of every pixel: a backbone's feature maps and a decoder."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visionforge.config.schema import Backbone, Decoder
from visionforge.errors import SettingsError
from visionforge.models.build import build_network, building, require_size, size_of, untrained_network
from visionforge.models.features import FeatureExtractor
from visionforge.models.registry import BackboneEntry, backbone_entry, backbones_with_maps
from visionforge.models.stages import Parts, parts_of
from visionforge.models.transfer import TransferReport
from visionforge.models.weights import ENCODER

log = logging.getLogger(__name__)

DECODER = "decoder."


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
    require_maps(entry, spatial_dims)
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
    require_maps(entry, spatial_dims)
    asked = (in_channels, outputs, resolution, spatial_dims)

    def build() -> nn.Module:
        return _with_decoder(untrained_network(settings, *asked), entry, decoder, *asked)

    # of a backbone that cannot be looked at without memory, the classifier counts too
    size = size_of(build, settings.name) or size_of(lambda: untrained_network(settings, *asked), settings.name)
    require_size(settings.name, size, brought)


def leave_out(report: TransferReport | None, network: nn.Module) -> None:
    """Let a report say that what became of a classifier is no longer in the network.

    Args:
        report: What became of pretrained weights, which is changed; None without them.
        network: The backbone after `FeatureExtractor` has taken it.
    """
    if report is not None:
        kept = network.state_dict()
        report.unused += [name for name in (*report.loaded, *report.resampled) if name not in kept]
        for names in (report.loaded, report.resampled, report.new, report.inflated):
            names[:] = [name for name in names if name in kept]


def require_maps(entry: BackboneEntry, spatial_dims: int, above: str = "a decoder") -> None:
    """Check that a backbone gives feature maps, as far as that is known before it is built.

    Args:
        entry: The backbone.
        spatial_dims: 2 for images, 3 for volumes.
        above: What needs them.

    Raises:
        SettingsError: If it gives none.
    """
    if not entry.feature_maps:
        raise SettingsError(without_maps(entry, spatial_dims, above))


def without_maps(entry: BackboneEntry, spatial_dims: int, above: str = "a decoder") -> str:
    """Return the line about a backbone that gives no feature maps."""
    allowed = ", ".join(backbones_with_maps(spatial_dims))
    return (
        f"model.backbone.name: {entry.name} gives no feature maps of falling size, which {above} needs; "
        f"allowed: {allowed}"
    )


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
    before = parts_of(entry, network)
    encoder = FeatureExtractor(network, before.head, in_channels, resolution, spatial_dims)
    if len(encoder.strides) < 2:
        raise SettingsError(without_maps(entry, spatial_dims))
    kept = {name for name, module in network.named_modules() if any(True for _ in module.parameters())}
    parts = Parts(
        (DECODER,),
        f"{ENCODER}{before.stem}" if before.stem else "",
        tuple(f"{ENCODER}{name}" for name in before.stages if name in kept),
    )
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
