"""A backbone as the encoder of a larger network, which gives feature maps to a decoder or a detector."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError
from visionforge.models.build import require_size, size_of, untrained_network
from visionforge.models.features import FeatureExtractor
from visionforge.models.registry import BackboneEntry, backbones_with_maps
from visionforge.models.stages import Parts, parts_of
from visionforge.models.transfer import TransferReport
from visionforge.models.weight_files import ENCODER


def encoder_of(
    network: nn.Module,
    entry: BackboneEntry,
    in_channels: int,
    resolution: int,
    spatial_dims: int,
    heads: tuple[str, ...],
    above: str,
) -> tuple[FeatureExtractor, Parts]:
    """Return what gives the feature maps of a backbone, and the parts of the network that it will be in.

    Args:
        network: The backbone with a classifier, which is changed in place.
        entry: Its entry.
        in_channels: Channels of the images.
        resolution: Height and width of the images in pixels, or the side of volumes in voxels.
        spatial_dims: 2 for images, 3 for volumes.
        heads: What the names of the tensors above the encoder begin with.
        above: What needs the maps, for messages.

    Raises:
        SettingsError: If the backbone gives no feature maps.
    """
    before = parts_of(entry, network)
    encoder = FeatureExtractor(network, before.head, in_channels, resolution, spatial_dims)
    if len(encoder.strides) < 2:
        raise SettingsError(_without_maps(entry, spatial_dims, above))
    kept = {name for name, module in network.named_modules() if any(True for _ in module.parameters())}
    stem = f"{ENCODER}{before.stem}" if before.stem else ""
    return encoder, Parts(heads, stem, tuple(f"{ENCODER}{name}" for name in before.stages if name in kept))


def require_brought_above(
    settings: Backbone,
    asked: tuple[int, int, int, int],
    brought: Mapping[str, Tensor],
    build_above: Callable[[nn.Module], nn.Module],
) -> None:
    """Check that a network is not much larger than the weights that a file brings for it, before it is built.

    Args:
        settings: Name and stem of the backbone, which the file may have named.
        asked: Channels of the images, number of outputs, resolution and spatial dimensions.
        brought: What the file holds.
        build_above: Returns the whole network of a backbone with a classifier.

    Raises:
        WeightsError: If it is.
        SettingsError: If the backbone is unknown.
    """

    def backbone() -> nn.Module:
        return untrained_network(settings, *asked)

    # of a backbone that cannot be looked at without memory, the classifier counts too
    size = size_of(lambda: build_above(backbone()), settings.name) or size_of(backbone, settings.name)
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


def require_maps(entry: BackboneEntry, spatial_dims: int, above: str) -> None:
    """Check that a backbone gives feature maps, as far as that is known before it is built.

    Args:
        entry: The backbone.
        spatial_dims: 2 for images, 3 for volumes.
        above: What needs them.

    Raises:
        SettingsError: If it gives none.
    """
    if not entry.feature_maps:
        raise SettingsError(_without_maps(entry, spatial_dims, above))


def _without_maps(entry: BackboneEntry, spatial_dims: int, above: str) -> str:
    """Return the line about a backbone that gives no feature maps."""
    allowed = ", ".join(backbones_with_maps(spatial_dims))
    return (
        f"model.backbone.name: {entry.name} gives no feature maps of falling size, which {above} needs; "
        f"allowed: {allowed}"
    )
