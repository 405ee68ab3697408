"""What a backbone costs and sees: parameters, multiply-adds, and the size of the feature map after every stage."""

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visionforge.config.schema import Backbone, VolumeConvolution
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.models.build import build_network, require_dimensions
from visionforge.models.registry import BackboneEntry, backbone_entry
from visionforge.models.stages import stage_names
from visionforge.models.weight_package import PREFIX, is_installed

RESOLUTIONS = (28, 64, 224)  # at which a backbone is looked at, if none is named
LARGEST_VOLUME = 64  # of these, at which a backbone for volumes is
_DEFAULT = Backbone()


@dataclass(frozen=True)
class Profile:
    """A backbone at one resolution.

    Attributes:
        resolution: Height and width of the images in pixels.
        scale: What the stem's downsampling is divided by.
        parameters: Number of parameters, the classifier's among them.
        multiply_adds: Multiply-adds of convolutions, linear layers and attention for one image or volume.
        maps: (stage, height and width of its feature map, or side of a volume's); None where a stage gives no map.
        spatial_dims: 2 for images, 3 for volumes.
    """

    resolution: int
    scale: int
    parameters: int
    multiply_adds: int
    maps: tuple[tuple[str, int | None], ...]
    spatial_dims: int = 2


def check_resolution(entry: BackboneEntry, resolution: int, adapt_stem: bool, spatial_dims: int = 2) -> None:
    """Raise where a backbone does not take images of a size.

    Raises:
        SettingsError: If it is too small, or no multiple of the patches.
    """
    least = entry.min_resolution if adapt_stem else entry.min_resolution_standard
    multiple = entry.multiple_of(resolution, adapt_stem, spatial_dims)
    if resolution < least or resolution % multiple:
        allowed = f"at least {least}" + (f" and a multiple of {multiple}" if multiple > 1 else "")
        raise SettingsError(f"resolution: {resolution} is not allowed for {entry.name}; {allowed}")


def profile(
    entry: BackboneEntry,
    resolution: int,
    channels: int = 3,
    classes: int = 1000,
    adapt_stem: bool = True,
    spatial_dims: int = 2,
    volume_convolution: VolumeConvolution = _DEFAULT.volume_convolution,
) -> Profile:
    """Build a backbone with random weights and measure one image's way through it, or one volume's.

    Args:
        entry: The backbone.
        resolution: Height and width in pixels.
        channels: Channels of the images.
        classes: Number of logits.
        adapt_stem: Whether small images get the adapted stem.
        spatial_dims: 2 for images, 3 for volumes, cubes of `resolution` voxels a side.
        volume_convolution: What the kernels of a network for volumes are.

    Raises:
        SettingsError: If the backbone does not take images, or volumes, of this size.
    """
    check_resolution(entry, resolution, adapt_stem, spatial_dims)
    settings = Backbone(name=entry.name, pretrained=False, adapt_stem=adapt_stem, volume_convolution=volume_convolution)
    network = build_network(settings, channels, classes, resolution, spatial_dims=spatial_dims)[0].eval()
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
            network(torch.zeros(1, channels, *(resolution,) * spatial_dims))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    return Profile(
        resolution,
        entry.scale(resolution, adapt_stem, spatial_dims),
        sum(p.numel() for p in network.parameters()),
        counter.get_total_flops() // 2,
        tuple(sides.items()),
        spatial_dims,
    )


def profiles_at(
    entry: BackboneEntry,
    resolution: int | None = None,
    channels: int = 3,
    classes: int = 1000,
    adapt_stem: bool = True,
    spatial_dims: int = 2,
    volume_convolution: VolumeConvolution = _DEFAULT.volume_convolution,
) -> list[Profile]:
    """Return the profile at one resolution, or at those of `RESOLUTIONS` that the backbone takes; see `profile`.

    Volumes are looked at up to 64 voxels a side, since one of 224 has eleven million.

    Raises:
        SettingsError: If there is no class, the backbone does not take images, or volumes, of the named size, or no
            volumes at all.
    """
    if classes < 1:
        raise SettingsError(f"classes: {classes} is not allowed; at least 1")
    chosen = Backbone(name=entry.name, pretrained=False, volume_convolution=volume_convolution)
    require_dimensions(entry, chosen, spatial_dims)
    asked = (channels, classes, adapt_stem, spatial_dims, volume_convolution)
    if resolution is not None:
        return [profile(entry, resolution, *asked)]
    found: list[Profile] = []
    for usual in RESOLUTIONS:
        if spatial_dims == 2 or usual <= LARGEST_VOLUME:
            with contextlib.suppress(SettingsError):
                found.append(profile(entry, usual, *asked))
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
        return {**named, "spatial_dims": self.entry.spatial_dims, "profiles": [asdict(each) for each in self.profiles]}


def inspect_backbone(
    name: str,
    resolution: int | None = None,
    channels: int = 3,
    classes: int = 1000,
    adapt_stem: bool = True,
    spatial_dims: int = 2,
    volume_convolution: VolumeConvolution = _DEFAULT.volume_convolution,
) -> Inspection:
    """Look at a backbone; see `profiles_at`.

    Raises:
        SettingsError: If there is no such backbone, no class, or it does not take images, or volumes, of the named
            size.
    """
    entry = backbone_entry(name)
    asked = (channels, classes, adapt_stem, spatial_dims, volume_convolution)
    profiles = profiles_at(entry, resolution, *asked)
    least = entry.min_resolution if adapt_stem else entry.min_resolution_standard
    return Inspection(entry, profiles, weight_names(entry), channels, classes, least)


def _recorder(sides: dict[str, int | None], name: str) -> Any:
    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        sides[name] = _side(output) if isinstance(output, Tensor) else None

    return record


def _side(output: Tensor) -> int | None:
    """Return the height of (N, C, H, W), (N, H, W, C) and (N, C, D, H, W) maps, and of (N, 1 + H², C) tokens."""
    if output.ndim == 5:
        return output.shape[3]
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
    """Return what `model.backbone.weights` takes of published weights, the default first."""
    names: list[str] = []
    if entry.weights:
        import torchvision

        published = getattr(torchvision.models, entry.weights)
        names += [published.DEFAULT.name, *published.__members__]
    if entry.package:
        installed = is_installed(entry.package)
        names.append(f"{PREFIX}{entry.package}" if installed else f"{PREFIX}{entry.package} (not installed)")
    if entry.timm:
        try:
            from visionforge.models.from_timm import tags

            names += tags(entry.timm)
        except VisionForgeError:
            names.append("timm's, with the extra of that name")
    return [name for name in dict.fromkeys(names) if name != "DEFAULT"]
