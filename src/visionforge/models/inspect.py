"""What a backbone costs and sees: parameters, multiply-adds, and the size of the feature map after every stage."""

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visionforge.config.schema import Backbone
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.models.build import build_network
from visionforge.models.registry import BackboneEntry, backbone_entry
from visionforge.models.stages import stage_names

RESOLUTIONS = (28, 64, 224)  # at which a backbone is looked at, if none is named


@dataclass(frozen=True)
class Profile:
    """A backbone at one resolution.

    Attributes:
        resolution: Height and width of the images in pixels.
        scale: What the stem's downsampling is divided by.
        parameters: Number of parameters, the classifier's among them.
        multiply_adds: Multiply-adds of convolutions, linear layers and attention for one image.
        maps: (stage, height and width of its feature map); None where a stage gives no map.
    """

    resolution: int
    scale: int
    parameters: int
    multiply_adds: int
    maps: tuple[tuple[str, int | None], ...]


def check_resolution(entry: BackboneEntry, resolution: int, adapt_stem: bool) -> None:
    """Raise where a backbone does not take images of a size.

    Raises:
        SettingsError: If it is too small, or no multiple of the patches.
    """
    least = entry.min_resolution if adapt_stem else entry.min_resolution_standard
    multiple = entry.multiple_of(resolution, adapt_stem)
    if resolution < least or resolution % multiple:
        allowed = f"at least {least}" + (f" and a multiple of {multiple}" if multiple > 1 else "")
        raise SettingsError(f"resolution: {resolution} is not allowed for {entry.name}; {allowed}")


def profile(
    entry: BackboneEntry, resolution: int, channels: int = 3, classes: int = 1000, adapt_stem: bool = True
) -> Profile:
    """Build a backbone with random weights and measure one image's way through it.

    Args:
        entry: The backbone.
        resolution: Height and width in pixels.
        channels: Channels of the images.
        classes: Number of logits.
        adapt_stem: Whether small images get the adapted stem.

    Raises:
        SettingsError: If the backbone does not take images of this size.
    """
    check_resolution(entry, resolution, adapt_stem)
    settings = Backbone(name=entry.name, pretrained=False, adapt_stem=adapt_stem)
    network = build_network(settings, channels, classes, resolution)[0].eval()
    sides: dict[str, int | None] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(_recorder(sides, name))
        for name in stage_names(entry, network)
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused kernel is not counted
    try:
        # attention as plain matrix products: not every torch counts its fused kernels
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, channels, resolution, resolution))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    return Profile(
        resolution,
        entry.scale(resolution, adapt_stem),
        sum(p.numel() for p in network.parameters()),
        counter.get_total_flops() // 2,
        tuple(sides.items()),
    )


def profiles_at(
    entry: BackboneEntry,
    resolution: int | None = None,
    channels: int = 3,
    classes: int = 1000,
    adapt_stem: bool = True,
) -> list[Profile]:
    """Return the profile at one resolution, or at those of `RESOLUTIONS` that the backbone takes; see `profile`.

    Raises:
        SettingsError: If there is no class, or the backbone does not take images of the named size.
    """
    if classes < 1:
        raise SettingsError(f"classes: {classes} is not allowed; at least 1")
    if resolution is not None:
        return [profile(entry, resolution, channels, classes, adapt_stem)]
    found: list[Profile] = []
    for usual in RESOLUTIONS:
        with contextlib.suppress(SettingsError):
            found.append(profile(entry, usual, channels, classes, adapt_stem))
    return found


@dataclass(frozen=True)
class Inspection:
    """What a backbone costs and sees.

    Attributes:
        entry: The backbone.
        profiles: It at each resolution.
        weights: Tags of the published weights, the default first.
        channels: Channels of the images.
        classes: Number of logits.
        min_resolution: Smallest height and width in pixels.
    """

    entry: BackboneEntry
    profiles: list[Profile]
    weights: list[str]
    channels: int
    classes: int
    min_resolution: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        named = {"name": self.entry.name, "description": self.entry.description, "weights": self.weights}
        return {**named, "profiles": [asdict(each) for each in self.profiles]}


def inspect_backbone(
    name: str, resolution: int | None = None, channels: int = 3, classes: int = 1000, adapt_stem: bool = True
) -> Inspection:
    """Look at a backbone; see `profiles_at`.

    Raises:
        SettingsError: If there is no such backbone, no class, or it does not take images of the named size.
    """
    entry = backbone_entry(name)
    profiles = profiles_at(entry, resolution, channels, classes, adapt_stem)
    least = entry.min_resolution if adapt_stem else entry.min_resolution_standard
    return Inspection(entry, profiles, weight_names(entry), channels, classes, least)


def _recorder(sides: dict[str, int | None], name: str) -> Any:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        sides[name] = _side(output) if isinstance(output, Tensor) else None

    return record


def _side(output: Tensor) -> int | None:
    """Return the height of (N, C, H, W) and (N, H, W, C) maps, and of (N, 1 + H², C) tokens."""
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        return output.shape[1] if channels_last else output.shape[2]
    if output.ndim == 3:
        return int((output.shape[1] - 1) ** 0.5)
    return None


def map_sizes(profile: Profile) -> str:
    """Return the map sizes after each stage; equal ones in a row are counted."""
    parts: list[tuple[str, int]] = []
    for _, side in profile.maps:
        shown = "–" if side is None else str(side)
        if parts and parts[-1][0] == shown:
            parts[-1] = (shown, parts[-1][1] + 1)
        else:
            parts.append((shown, 1))
    return " → ".join(shown if count == 1 else f"{shown} (×{count})" for shown, count in parts)


def weight_names(entry: BackboneEntry) -> list[str]:
    """Return the tags of the published weights, the default first."""
    if entry.weights:
        import torchvision

        published = getattr(torchvision.models, entry.weights)
        names = [published.DEFAULT.name, *published.__members__]
        return [name for name in dict.fromkeys(names) if name != "DEFAULT"]
    if entry.timm:
        try:
            from visionforge.models.from_timm import tags
        except VisionForgeError:
            return ["timm's, with the extra of that name"]
        return tags(entry.timm)
    return []
