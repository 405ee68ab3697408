"""From backbone settings to a network with its first weights."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from visionforge.config.schema import Backbone
from visionforge.errors import WeightsError
from visionforge.models.registry import BackboneEntry, backbone_entry
from visionforge.models.transfer import transfer_weights

log = logging.getLogger(__name__)


def build_network(
    settings: Backbone, in_channels: int, num_classes: int, resolution: int, pretrained: bool | None = None
) -> nn.Module:
    """Build a backbone and give it its first weights.

    Args:
        settings: Name, stem, dropout and weights.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        resolution: Height and width of the images in pixels; below 64 the stem may be adapted.
        pretrained: Overrides `settings.pretrained`; False when a checkpoint will bring the weights.

    Returns:
        A network from (N, in_channels, H, W) float32 to logits (N, K).

    Raises:
        SettingsError: If the backbone is unknown.
        WeightsError: If pretrained weights are missing or do not fit.
    """
    entry = backbone_entry(settings.name)
    small = entry.is_small(resolution, settings.adapt_stem)
    network = entry.load()(in_channels=in_channels, num_classes=num_classes, dropout=settings.dropout, small=small)
    if settings.pretrained if pretrained is None else pretrained:
        source, origin = pretrained_state(entry, settings.weights)
        try:
            state, report = transfer_weights(source, network.state_dict(), entry.stem, entry.head)
        except WeightsError as error:
            raise WeightsError(f"model.backbone.weights: {origin}: {'; '.join(error.problems[:3])}") from error
        network.load_state_dict(state)
        log.info("%s: weights of %s: %s", settings.name, origin, report)
    return network


def pretrained_state(entry: BackboneEntry, weights: str | None) -> tuple[Mapping[str, Tensor], str]:
    """Return pretrained tensors and a description of where they came from.

    Args:
        entry: The backbone.
        weights: A local file, a name of torchvision's weight enum, or None for the enum's default.

    Raises:
        WeightsError: If the file or name does not exist, or the weights cannot be downloaded.
    """
    published = getattr(torchvision.models, entry.weights) if entry.weights else None
    names = list(published.__members__) if published else []
    if published and (weights is None or weights in names):
        chosen = published[weights] if weights else published.DEFAULT
        return _published_state(chosen), f"torchvision {entry.weights}.{chosen.name}"
    path = Path(str(weights)).expanduser()
    if not path.is_file():
        known = f" or one of {', '.join(names)}" if names else ""
        raise WeightsError(f"model.backbone.weights: {weights!r} is no file; allowed: a local weight file{known}")
    return read_weight_file(path), str(path)


def _published_state(chosen: Any) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
        raise WeightsError(
            f"model.backbone.weights: {chosen} is not on this machine and cannot be downloaded "
            f"({getattr(error, 'reason', error)}); place {chosen.url} at {file}, "
            "or set model.backbone.pretrained to false"
        ) from error
    return state


def read_weight_file(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict from a `.pth` file; only tensors are loaded, never code.

    Raises:
        WeightsError: If the file cannot be read that way.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"model.backbone.weights: {path} is no weight file ({reason})") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        raise WeightsError(f"model.backbone.weights: {path} holds no state dict (names with tensors)")
    return state
