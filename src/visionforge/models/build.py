"""From backbone settings to a network with its first weights."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.registry import BackboneEntry, backbone_entry, load_function
from visionforge.models.transfer import Fit, TransferReport, fit_convolution, transfer_weights
from visionforge.models.weights import pretrained_state

log = logging.getLogger(__name__)

MOST_TIMES = 4  # as large as the weights that a file brings; those of half precision become twice as large
COMPUTED = ("relative_coords_table", "relative_position_index")  # what Swin derives from its windows


def build_network(
    settings: Backbone, in_channels: int, num_classes: int, resolution: int, pretrained: bool | None = None
) -> tuple[nn.Module, TransferReport | None]:
    """Build a backbone and give it its first weights.

    Args:
        settings: Name, stem, dropout and weights.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        resolution: Height and width of the images in pixels; below 112 the stem may be adapted.
        pretrained: Overrides `settings.pretrained`; False when a checkpoint will bring the weights.

    Returns:
        A network from (N, in_channels, H, W) float32 to logits (N, K), and what became of the pretrained tensors; None
        without pretrained weights.

    Raises:
        SettingsError: If the backbone is unknown, or cannot be built for these images.
        WeightsError: If pretrained weights are missing or do not fit.
    """
    entry = backbone_entry(settings.name)
    try:
        network = _untrained(settings, in_channels, num_classes, resolution)
        if not entry.is_builtin:
            _try(network, in_channels, num_classes, resolution)
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        if "deterministic implementation" in str(error):  # strict mode's, which says more
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"model.backbone.name: {entry.name} cannot be built for {in_channels}×{resolution}×{resolution} images: "
            f"{reason}"
        ) from error
    if not (settings.pretrained if pretrained is None else pretrained):
        return network, None
    found = pretrained_state(entry, settings.weights, resolution)
    tensors = load_function(entry.rename)(found.tensors) if entry.rename else found.tensors
    try:
        state, report = transfer_weights(
            tensors, network.state_dict(), entry.head_of(network), _fits(entry, network), COMPUTED
        )
    except WeightsError as error:
        raise WeightsError(f"model.backbone.weights: {found.source}: {'; '.join(error.problems[:3])}") from error
    network.load_state_dict(state)
    report.source, report.sha256 = found.source, found.sha256
    log.info("%s: weights of %s: %s", settings.name, found.source, report)
    return network, report


def require_brought(
    settings: Backbone, in_channels: int, num_classes: int, resolution: int, brought: Mapping[str, Tensor]
) -> None:
    """Check that a network is not much larger than the weights that a file brings for it, before it is built.

    Args:
        settings: Name, stem and dropout, which the file may have named.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        resolution: Height and width of the images in pixels.
        brought: What the file holds.

    Raises:
        WeightsError: If it is.
        SettingsError: If the backbone is unknown.
    """
    size = _size_of(settings, in_channels, num_classes, resolution)
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in brought.values()}
    if size > MOST_TIMES * sum(storages.values()):
        raise WeightsError(
            f"its tensors are not those of {settings.name}: they have {sum(storages.values()):,} bytes, that network "
            f"{size:,}; name a file that a training of it has written"
        )


def _size_of(settings: Backbone, in_channels: int, num_classes: int, resolution: int) -> int:
    """Return the bytes of a network's weights, of which none are allocated; 0 if it cannot be built like that."""
    for without_memory in (_Unallocated(), torch.device("meta")):
        try:
            with without_memory:
                network = _untrained(settings, in_channels, num_classes, resolution)
            return sum(value.nbytes for value in network.state_dict().values())
        except Exception as error:  # whatever keeps it from being built is told where it is built in earnest
            log.debug("%s: cannot be measured (%s)", settings.name, error)
    return 0


def _untrained(settings: Backbone, in_channels: int, num_classes: int, resolution: int) -> nn.Module:
    """Return the network with the first weights that its builder gives it."""
    entry = backbone_entry(settings.name)
    return entry.load()(
        in_channels=in_channels,
        num_classes=num_classes,
        dropout=settings.dropout,
        resolution=resolution,
        scale=entry.scale(resolution, settings.adapt_stem),
    )


class _Unallocated(TorchFunctionMode):
    """Gives new tensors a shape and no memory; sequences of numbers, which builders compute with, are real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            kwargs = {**(kwargs or {}), "device": "meta"}
        return func(*args, **(kwargs or {}))


def _try(network: nn.Module, in_channels: int, num_classes: int, resolution: int) -> None:
    """Send one image through a network that we do not know.

    Raises:
        ValueError: If it does not give one logit per class.
    """
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, in_channels, resolution, resolution))
    network.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        raise ValueError(f"gives {shape} for one image, expected (1, {num_classes})")


def _fits(entry: BackboneEntry, network: nn.Module) -> dict[str, Fit]:
    """Return the tensors that may change their shape, and how."""
    return {entry.stem_of(network): fit_convolution, **{name: load_function(fit) for name, fit in entry.fits}}
