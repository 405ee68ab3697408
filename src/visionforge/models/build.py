"""From backbone settings to a network with its first weights."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from visionforge.config.schema import Backbone
from visionforge.config.volumes import dimension_problems
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.entry import BackboneEntry, load_function
from visionforge.models.first_weights import is_pretrained
from visionforge.models.key_mapping import map_keys
from visionforge.models.registry import backbone_entry, backbones_taking
from visionforge.models.transfer import Fit, TransferReport, fit_convolution, transfer_weights
from visionforge.models.volumes import to_volumes
from visionforge.models.weights import pretrained_state

log = logging.getLogger(__name__)

MOST_TIMES = 4  # as large as the weights that a file brings; those of half precision become twice as large
COMPUTED = ("relative_coords_table", "relative_position_index")  # what Swin derives from its windows


def build_network(
    settings: Backbone,
    in_channels: int,
    num_classes: int,
    resolution: int,
    pretrained: bool | None = None,
    spatial_dims: int = 2,
) -> tuple[nn.Module, TransferReport | None]:
    """Build a backbone and give it its first weights.

    Args:
        settings: Name, stem, dropout and weights.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        resolution: Height and width of the images in pixels, or the side of volumes in voxels; below 112 or 56 the stem
            may be adapted.
        pretrained: Overrides `settings.pretrained`; False when a checkpoint will bring the weights. Where nobody says,
            `auto` asks whether they can be had.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        A network from (N, in_channels, H, W) float32, or (N, in_channels, D, H, W), to logits (N, K), and what became
        of the pretrained tensors; None without pretrained weights.

    Raises:
        SettingsError: If the backbone is unknown, or cannot be built for these images or volumes.
        WeightsError: If pretrained weights are missing or do not fit.
    """
    entry = backbone_entry(settings.name)
    brings = is_pretrained(settings, in_channels)[0] if pretrained is None else pretrained
    require_dimensions(entry, settings, spatial_dims)
    with building(entry, (in_channels, *(resolution,) * spatial_dims)):
        network = _untrained(settings, in_channels, num_classes, resolution, spatial_dims)
        converts = entry.inflates and spatial_dims == 3
        if converts and not brings:
            to_volumes(network, settings.volume_convolution, inflated=False)
        if not entry.is_builtin and not (converts and brings):
            _try(network, in_channels, num_classes, resolution, spatial_dims)
    if not brings:
        return network, None
    found = pretrained_state(entry, settings.weights, resolution)
    tensors = load_function(entry.rename)(found.tensors) if entry.rename else found.tensors
    of_volumes = any(tensor.ndim == 5 for tensor in tensors.values())  # of a network that was one for volumes already
    inflated: list[str] = []
    with building(entry, (in_channels, *(resolution,) * spatial_dims)):
        if converts and of_volumes:
            to_volumes(network, settings.volume_convolution, inflated=False)
        own, head, fits = network.state_dict(), entry.head_of(network), _fits(entry, network)
        mapping = map_keys(tensors, own, head, tuple(fits), COMPUTED)
        try:
            state, report = transfer_weights(mapping.tensors, own, head, fits, COMPUTED)
        except WeightsError as error:
            reasons = [*error.problems[:3], *([mapping.problem] if mapping.problem else [])]
            raise WeightsError(f"model.backbone.weights: {found.source}: {'; '.join(reasons)}") from error
        network.load_state_dict(state)
        if converts and not of_volumes:
            inflated = to_volumes(network, settings.volume_convolution, inflated=True)
        if converts and not entry.is_builtin:
            _try(network, in_channels, num_classes, resolution, spatial_dims)
    report.source, report.sha256, report.revision = found.source, found.sha256, found.revision
    report.mapping, report.alike, report.inflated = mapping.by, mapping.alike, inflated
    report.mean, report.std = ([] if values is None else list(values) for values in (found.mean, found.std))
    log.info("%s: weights of %s: %s", settings.name, found.source, report)
    return network, report


def require_dimensions(entry: BackboneEntry, settings: Backbone, spatial_dims: int) -> None:
    """Check that a backbone takes images or volumes, and the settings that are for volumes only.

    Args:
        entry: The backbone.
        settings: Its settings.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        SettingsError: If it does not.
    """
    takers = backbones_taking(spatial_dims)
    problems = dimension_problems(settings, spatial_dims, entry.spatial_dims, entry.inflates, takers)
    if found := list(problems):
        raise SettingsError(found)


@contextmanager
def building(entry: BackboneEntry, shape: tuple[int, ...]) -> Iterator[None]:
    """Say in one line that a network cannot be built for images or volumes of a shape."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        if "deterministic implementation" in str(error):  # strict mode's, which says more
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = "images" if len(shape) == 3 else "volumes"
        raise SettingsError(
            f"model.backbone.name: {entry.name} cannot be built for {'×'.join(map(str, shape))} {what}: {reason}"
        ) from error


def require_brought(
    settings: Backbone,
    in_channels: int,
    num_classes: int,
    resolution: int,
    brought: Mapping[str, Tensor],
    spatial_dims: int = 2,
) -> None:
    """Check that a network is not much larger than the weights that a file brings for it, before it is built.

    Args:
        settings: Name, stem and dropout, which the file may have named.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        resolution: Height and width of the images in pixels, or the side of volumes in voxels.
        brought: What the file holds.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        WeightsError: If it is.
        SettingsError: If the backbone is unknown.
    """
    asked = (settings, in_channels, num_classes, resolution, spatial_dims)
    require_size(settings.name, size_of(lambda: untrained_network(*asked), settings.name), brought)


def require_size(name: str, size: int, brought: Mapping[str, Tensor]) -> None:
    """Check that a network is not much larger than the weights that a file brings for it.

    Args:
        name: Of the backbone.
        size: Bytes of the network's weights.
        brought: What the file holds.

    Raises:
        WeightsError: If it is.
    """
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in brought.values()}
    if size > MOST_TIMES * sum(storages.values()):
        raise WeightsError(
            f"its tensors are not those of {name}: they have {sum(storages.values()):,} bytes, that network "
            f"{size:,}; name a file that a training of it has written"
        )


def size_of(build: Callable[[], nn.Module], name: str) -> int:
    """Return the bytes of a network's weights, of which none are allocated; 0 if it cannot be built like that.

    Args:
        build: Builds the network.
        name: Of the backbone, for the log.
    """
    for without_memory in (_Unallocated(), torch.device("meta")):
        try:
            with without_memory:
                network = build()
            return sum(value.nbytes for value in network.state_dict().values())
        except Exception as error:  # whatever keeps it from being built is told where it is built in earnest
            log.debug("%s: cannot be measured (%s)", name, error)
    return 0


def untrained_network(
    settings: Backbone, in_channels: int, num_classes: int, resolution: int, spatial_dims: int
) -> nn.Module:
    """Return the network with random weights, as `build_network` does, without having tried it."""
    network = _untrained(settings, in_channels, num_classes, resolution, spatial_dims)
    if backbone_entry(settings.name).inflates and spatial_dims == 3:
        to_volumes(network, settings.volume_convolution, inflated=False)
    return network


def _untrained(settings: Backbone, in_channels: int, num_classes: int, resolution: int, spatial_dims: int) -> nn.Module:
    """Return the network with the first weights that its builder gives it; that for images if it is to be inflated."""
    entry = backbone_entry(settings.name)
    build: Any = entry.load()
    scale = entry.scale(resolution, settings.adapt_stem, spatial_dims)
    if 3 in entry.spatial_dims and not entry.inflates:
        build = partial(build, spatial_dims=spatial_dims)
    network: nn.Module = build(
        in_channels=in_channels,
        num_classes=num_classes,
        dropout=settings.dropout,
        resolution=resolution,
        scale=scale,
    )
    return network


class _Unallocated(TorchFunctionMode):
    """Gives new tensors a shape and no memory; sequences of numbers, which builders compute with, are real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            kwargs = {**(kwargs or {}), "device": "meta"}
        return func(*args, **(kwargs or {}))


def _try(network: nn.Module, in_channels: int, num_classes: int, resolution: int, spatial_dims: int) -> None:
    """Send one image or volume through a network that we do not know.

    Raises:
        ValueError: If it does not give one logit per class.
    """
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, in_channels, *(resolution,) * spatial_dims))
    network.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        what = "image" if spatial_dims == 2 else "volume"
        raise ValueError(f"gives {shape} for one {what}, expected (1, {num_classes})")


def _fits(entry: BackboneEntry, network: nn.Module) -> dict[str, Fit]:
    """Return the tensors that may change their shape, and how."""
    return {entry.stem_of(network): fit_convolution, **{name: load_function(fit) for name, fit in entry.fits}}
