"""The registry of backbones: names and facts without torch, builders loaded on first use."""

from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from visionforge.config.problems import nearest
from visionforge.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

STEM_THRESHOLD = 64  # pixels; from here on the standard, downsampling stem is kept


class Builder(Protocol):
    """Builds a network that maps (N, C, H, W) float32 to logits (N, K)."""

    def __call__(self, *, in_channels: int, num_classes: int, dropout: float, small: bool) -> "nn.Module":
        """Build it with random weights; `small` asks for the stem that keeps the resolution."""


@dataclass(frozen=True)
class BackboneEntry:
    """One backbone.

    Attributes:
        name: Name in the configuration.
        builder: The function, or ``module:function`` to be imported on first use.
        description: One line for lists.
        min_resolution: Smallest height and width with the adapted stem.
        min_resolution_standard: Smallest height and width with the standard stem.
        stride: Input pixels per pixel of the last feature map, with the adapted stem.
        stride_standard: The same with the standard stem.
        weights: Name of torchvision's weight enum, such as ``ResNet18_Weights``; None if there are none.
        stem: Parameter name of the first convolution's weight, for weight transfer.
        head: Prefix of the classifier's parameters.
    """

    name: str
    builder: str | Builder
    description: str
    min_resolution: int
    min_resolution_standard: int
    stride: int
    stride_standard: int
    weights: str | None = None
    stem: str = ""
    head: str = ""

    def is_small(self, resolution: int, adapt_stem: bool) -> bool:
        """Return whether the adapted stem is used at this resolution."""
        return adapt_stem and resolution < STEM_THRESHOLD

    def load(self) -> Builder:
        """Return the builder, importing it if it is given by name."""
        if not isinstance(self.builder, str):
            return self.builder
        module, _, function = self.builder.partition(":")
        builder: Builder = getattr(import_module(module), function)
        return builder


_ENTRIES: dict[str, BackboneEntry] = {}


def register_backbone(entry: BackboneEntry) -> None:
    """Add a backbone under its name.

    Raises:
        ValueError: If the name is taken.
    """
    if entry.name in _ENTRIES:
        raise ValueError(f"a backbone named {entry.name!r} is registered already")
    _ENTRIES[entry.name] = entry


def backbone_names(pattern: str = "*") -> list[str]:
    """Return the registered names that match a glob pattern, sorted."""
    return sorted(name for name in _ENTRIES if fnmatch(name, pattern))


def backbone_entry(name: str) -> BackboneEntry:
    """Return a registered backbone.

    Raises:
        SettingsError: If there is none of that name; the nearest names are in the message.
    """
    if name not in _ENTRIES:
        close = nearest(name, _ENTRIES) or backbone_names()
        raise SettingsError(f"model.backbone.name: {name!r} is unknown; nearest: {', '.join(close)}")
    return _ENTRIES[name]


def _register_builtin() -> None:
    register_backbone(
        BackboneEntry(
            name="resnet18",
            builder="visionforge.models.resnet:build_resnet18",
            description="ResNet-18 (He et al., 2016); 3×3 stem without pooling below 64 pixels",
            min_resolution=8,
            min_resolution_standard=32,
            stride=8,
            stride_standard=32,
            weights="ResNet18_Weights",
            stem="conv1.weight",
            head="fc.",
        )
    )
    register_backbone(
        BackboneEntry(
            name="mini_cnn",
            builder="visionforge.models.mini_cnn:build_mini_cnn",
            description="Three 3×3 convolution blocks, 94,000 parameters; for quick searches and tests",
            min_resolution=8,
            min_resolution_standard=8,
            stride=4,
            stride_standard=4,
            stem="features.0.weight",
            head="head.",
        )
    )


_register_builtin()
