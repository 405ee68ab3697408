"""What is known of a backbone: its builder and facts, without torch until one is built."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from visionforge.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's published weights
# Pixels; a smaller image gets a stem with less downsampling, until it counts as this large. Volumes: see `scale`
NOMINAL = {2: 112, 3: 56}
MAX_SCALE = 4  # by which the downsampling can be divided: that of a ResNet's or ConvNeXt's whole stem


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return values of red, green and blue for images of 1 or 3 channels; of one it is their mean."""
    return (fmean(values),) if channels == 1 else tuple(values)


class Builder(Protocol):
    """Builds a network that maps (N, C, H, W) float32 to logits (N, K).

    The builder of an entry with 3 among its `spatial_dims` that does not inflate is also given ``spatial_dims``, 2 or
    3; with 3 it builds a network that maps (N, C, D, H, W).
    """

    def __call__(
        self, *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
    ) -> "nn.Module":
        """Build it with random weights.

        `scale` is 1, 2 or 4: what the stem's downsampling is to be divided by; a network that cannot ignores it.
        """


@dataclass(frozen=True)
class BackboneEntry:
    """One backbone.

    Attributes:
        name: Name in the configuration.
        builder: The function, or ``module:function`` to be imported on first use.
        description: One line for lists.
        stride: Input pixels per pixel of the last feature map, with the standard stem.
        adaptable: Whether the stem's downsampling can be divided.
        min_resolution: Smallest height and width with the adapted stem.
        min_resolution_standard: Smallest height and width with the standard stem.
        patch: Height and width must be a multiple of this divided by the scale; 1 allows every size.
        fixed_size: Whether the trained network takes images of its training resolution only.
        weights: Name of torchvision's weight enum, such as ``ResNet18_Weights``; None if there are none.
        timm: Name of the same network in timm, whose weights it can take over by their tags, beside torchvision's;
            None if there is none.
        package: Name of a Python package that brings weights and no code that is needed. They are the default where it
            is installed and torchvision has none.
        stem: Name of the first convolution's weight; empty is the first weight with four dimensions, or five.
        head: Prefix of the classifier's parameters, several where there are several without a common one; empty is the
            last linear layer or convolution.
        fits: Further tensors that a transfer may reshape: (name, ``module:function`` from the pretrained tensor and the
            network's own to the fitted one).
        rename: ``module:function`` that gives pretrained tensors the network's names; None leaves them.
        stages: Names of the modules that staged unfreezing and the tables of map sizes go by; empty is the children.
        spatial_dims: What it takes: 2 is images, 3 volumes. With 3 the builder is given ``spatial_dims``, unless the
            network inflates.
        feature_maps: Whether it gives maps of falling size, which the decoders of tasks with masks need.
        inflates: Whether the network for volumes is made of the one for images, as in `visionforge.models.volumes`;
            `spatial_dims` then has both.
        mean: What the published weights expect to be subtracted from red, green and blue, of values in [0, 1].
        std: What they expect them to be divided by.

    Raises:
        ValueError: If `spatial_dims` has another number, or none.
    """

    name: str
    builder: str | Builder
    description: str
    stride: int = 32
    adaptable: bool = False
    min_resolution: int = 8
    min_resolution_standard: int = 8
    patch: int = 1
    fixed_size: bool = False
    weights: str | None = None
    timm: str | None = None
    package: str | None = None
    stem: str = ""
    head: str | tuple[str, ...] = ""
    fits: tuple[tuple[str, str], ...] = ()
    rename: str | None = None
    stages: tuple[str, ...] = ()
    spatial_dims: tuple[int, ...] = (2,)
    inflates: bool = False
    feature_maps: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        """Check the dimensions."""
        if self.inflates:
            object.__setattr__(self, "spatial_dims", (2, 3))
        if not self.spatial_dims or not set(self.spatial_dims) <= set(NOMINAL):
            raise ValueError(f"spatial_dims: {self.spatial_dims} is not allowed; allowed: (2,), (3,) or (2, 3)")

    def scale(self, resolution: int, adapt_stem: bool, spatial_dims: int = 2) -> int:
        """Return what the stem's downsampling is divided by.

        It is the smallest of 1, 2, 4 that makes an image count as 112 pixels or more, and a volume as 56: half as many,
        because maps of twice the side take eight times the operations of volumes, not four times. A training step of
        ResNet-18 with 8 volumes of 28³ takes on two CPU cores, by the factor:

        - 1: 2 GFLOP a volume and 0.2 s (ACS 0.7 and 0.07 s), but the last stage sees a single voxel.
        - 2, which it gets: 14 GFLOP and 0.4 s (ACS 5 and 0.2 s); the first stage sees 14³ voxels, the last 2³.
        - 4: 106 GFLOP and 2.7 s (ACS 36 and 1.5 s).
        """
        if not (self.adaptable and adapt_stem):
            return 1
        scale = 1
        while scale < MAX_SCALE and resolution * scale < NOMINAL[spatial_dims]:
            scale *= 2
        return scale

    def same_shape(self, one: tuple[int, bool], other: tuple[int, bool], spatial_dims: int = 2) -> bool:
        """Return whether two pairs of (resolution, adapt_stem) give networks that can exchange their weights."""
        scales = [self.scale(*each, spatial_dims) for each in (one, other)]
        return scales[0] == scales[1] and (not self.fixed_size or one[0] == other[0])

    def multiple_of(self, resolution: int, adapt_stem: bool, spatial_dims: int = 2) -> int:
        """Return what the resolution must be a multiple of."""
        return max(1, self.patch // self.scale(resolution, adapt_stem, spatial_dims))

    def final_map(self, resolution: int, adapt_stem: bool, spatial_dims: int = 2) -> int:
        """Return the height and width of the last feature map, rounded up."""
        return -(-resolution * self.scale(resolution, adapt_stem, spatial_dims) // self.stride)

    def pixel_constants(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation per channel that the published weights expect; of one channel the means of them.

        Args:
            channels: 1 or 3.
        """
        return per_channel(self.mean, channels), per_channel(self.std, channels)

    @property
    def is_builtin(self) -> bool:
        """Return whether it is one of our own, whose sizes are known to work."""
        return isinstance(self.builder, str) and self.builder.startswith(f"{__package__}.")

    @property
    def has_published_weights(self) -> bool:
        """Return whether weights can be had without naming a file."""
        return bool(self.published_by)

    @property
    def published_by(self) -> tuple[str, ...]:
        """Return who publishes its weights, the source of the default first."""
        known = {"torchvision": self.weights, "package": self.package, "timm": self.timm}
        return tuple(source for source, name in known.items() if name is not None)

    def load(self) -> Builder:
        """Return the builder, importing it if it is given by name."""
        if not isinstance(self.builder, str):
            return self.builder
        builder: Builder = load_function(self.builder)
        return builder

    def stem_of(self, network: "nn.Module") -> str:
        """Return the name of the first convolution's weight, or nothing."""
        if self.stem:
            return self.stem
        return next((name for name, p in network.named_parameters() if p.ndim in (4, 5)), "")

    def head_of(self, network: "nn.Module") -> tuple[str, ...]:
        """Return the prefixes of the classifier's parameters.

        Raises:
            SettingsError: If the network has no linear layer to go by.
        """
        if self.head:
            return (self.head,) if isinstance(self.head, str) else self.head
        from torch import nn

        kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
        layers = [name for name, module in network.named_modules() if isinstance(module, kinds)]
        if not layers:
            raise SettingsError(f"model.backbone.name: {self.name} has no linear layer; register it with its head")
        return (f"{layers[-1]}.",)


def load_function(name: str) -> Any:
    """Import what ``module:function`` names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)
