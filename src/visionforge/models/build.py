"""From backbone settings to a network with its first weights."""

import logging

import torch
from torch import nn

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.registry import BackboneEntry, backbone_entry, load_function
from visionforge.models.transfer import Fit, TransferReport, fit_convolution, transfer_weights
from visionforge.models.weights import pretrained_state

log = logging.getLogger(__name__)

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
    scale = entry.scale(resolution, settings.adapt_stem)
    try:
        network = entry.load()(
            in_channels=in_channels,
            num_classes=num_classes,
            dropout=settings.dropout,
            resolution=resolution,
            scale=scale,
        )
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
