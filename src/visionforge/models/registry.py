"""The registry of backbones: names and facts without torch, builders loaded on first use.

A backbone comes from the built-in table, from `register_backbone`, from another package's entry point in the group
`visionforge.backbones`, or, under the prefixes ``torchvision/`` and ``timm/``, from one of those libraries.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from visionforge.config.problems import nearest
from visionforge.config.registration import origin, same_definition
from visionforge.errors import SettingsError, VisionForgeError

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "visionforge.backbones"
LIBRARIES = ("torchvision", "timm")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's published weights
# Pixels; a smaller image gets a stem with less downsampling, until it counts as this large. Volumes: see `scale`
NOMINAL = {2: 112, 3: 56}
MAX_SCALE = 4  # by which the downsampling can be divided: that of a ResNet's or ConvNeXt's whole stem


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
        timm: Name of the same network in timm, whose weights it can take over; None if there is none.
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
        if channels == 1:
            return (fmean(self.mean),), (fmean(self.std),)
        return self.mean, self.std

    @property
    def is_builtin(self) -> bool:
        """Return whether it is one of our own, whose sizes are known to work."""
        return isinstance(self.builder, str) and self.builder.startswith(f"{__package__}.")

    @property
    def has_published_weights(self) -> bool:
        """Return whether weights can be had without naming a file."""
        return self.weights is not None or self.timm is not None

    @property
    def published_by(self) -> str | None:
        """Return which library publishes its weights; None if none does."""
        return "torchvision" if self.weights else "timm" if self.timm else None

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


_ENTRIES: dict[str, BackboneEntry] = {}


def register_backbone(entry: BackboneEntry, replace: bool = False) -> None:
    """Add a backbone under its name; the same again, as when a notebook cell is run twice, takes its own place.

    Args:
        entry: The backbone. Two builders are the same if module, name and code are.
        replace: Take the place of another builder that was registered under this name before.

    Raises:
        ValueError: If the name is taken, or has the form of a library's.
    """
    if "/" in entry.name:
        raise ValueError(f"a backbone's name has no slash: {entry.name!r}")
    known = _ENTRIES.get(entry.name)
    if known is not None and known.is_builtin:
        raise ValueError(f"a backbone named {entry.name!r} is registered already: it is built in")
    if known is not None and not replace and not same_definition(known.builder, entry.builder):
        raise ValueError(
            f"a backbone named {entry.name!r} is registered already, with another builder ({origin(known.builder)}); "
            "choose another name, or give replace=True"
        )
    _ENTRIES[entry.name] = entry


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def backbone_names(pattern: str = "*") -> list[str]:
    """Return the names that match a glob pattern, sorted; a library's only if the pattern begins with its prefix."""
    names = {*_ENTRIES, *_entry_points()}
    library = pattern.partition("/")[0]
    if library in LIBRARIES and "/" in pattern:
        names |= {f"{library}/{name}" for name in _library(library).names()}
    return sorted(name for name in names if fnmatch(name, pattern))


def backbones_taking(spatial_dims: int) -> list[str]:
    """Return the names of the registered backbones that take images (2) or volumes (3), sorted; of another package's
    entry points only those that are loaded already, and none of a library's.
    """  # noqa: D205
    return sorted(name for name, entry in _ENTRIES.items() if spatial_dims in entry.spatial_dims)


def backbones_with_maps(spatial_dims: int) -> list[str]:
    """Return those of `backbones_taking` that give feature maps of falling size."""
    return [name for name in backbones_taking(spatial_dims) if _ENTRIES[name].feature_maps]


def described_backbones(pattern: str = "*") -> tuple[list[str], list[BackboneEntry], list[str]]:
    """Return the names that match a glob pattern, their entries, and a line for each problem of another package's.

    A library has hundreds of models, each of which would have to be looked up; those have no entry here.

    Raises:
        SettingsError: If no name matches.
    """
    names = backbone_names(pattern)
    if not names:
        known = ", ".join(backbone_names())
        raise SettingsError(f"models list: no backbone matches {pattern!r}; registered: {known}")
    entries: list[BackboneEntry] = []
    problems: list[str] = []
    for name in names:
        if name.startswith(tuple(f"{library}/" for library in LIBRARIES)):
            continue
        try:
            entries.append(backbone_entry(name))
        except VisionForgeError as error:
            problems += error.problems
    return names, entries, problems


def backbone_entry(name: str) -> BackboneEntry:
    """Return a backbone by its name.

    Raises:
        SettingsError: If there is none of that name; the nearest names are in the message.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    library, slash, model = name.partition("/")
    if slash and library in LIBRARIES:
        return _library_entry(library, model)
    points = _entry_points()
    if name in points:
        return _load_entry_point(points[name])
    close = nearest(name, [*_ENTRIES, *points]) or backbone_names()
    raise SettingsError(
        f"model.backbone.name: {name!r} is unknown; nearest: {', '.join(close)} "
        "(`visionforge models list` shows all; torchvision/NAME and timm/NAME take theirs)"
    )


def _load_entry_point(point: EntryPoint) -> BackboneEntry:
    """Load what another package offers: a BackboneEntry, or a builder function."""
    try:
        offered: BackboneEntry | Builder = point.load()
    except Exception as error:  # the other package's code may raise anything
        raise SettingsError(f"model.backbone.name: {point.name} ({point.value}) cannot be loaded: {error}") from error
    if isinstance(offered, BackboneEntry):
        return replace(offered, name=point.name)
    if not callable(offered):
        raise SettingsError(
            f"model.backbone.name: {point.name} ({point.value}) is neither a function nor a BackboneEntry"
        )
    return BackboneEntry(
        point.name, offered, (getattr(offered, "__doc__", None) or point.value).strip().splitlines()[0]
    )


class Library(Protocol):
    """What a module for another library's models has."""

    names: Callable[[], list[str]]
    entry: Callable[[str], BackboneEntry]


def _library(name: str) -> Library:
    module: Library = import_module(f"visionforge.models.from_{name}")
    return module


@cache
def _library_entry(library: str, model: str) -> BackboneEntry:
    module = _library(library)
    known = module.names()
    if model.partition(".")[0] not in known and model not in known:
        close = [f"{library}/{name}" for name in nearest(model, known)]
        hint = f"nearest: {', '.join(close)}" if close else f'`visionforge models list "{library}/*"` shows all'
        raise SettingsError(f"model.backbone.name: {library} has no classification model {model!r}; {hint}")
    return module.entry(model)


def _register_builtin() -> None:
    package = "visionforge.models"
    resnet = {
        "adaptable": True,
        "min_resolution_standard": 16,
        "stem": "conv1.weight",
        "head": "fc.",
        "stages": ("layer1", "layer2", "layer3", "layer4"),
        "inflates": True,
    }
    for depth in (18, 34, 50):
        register_backbone(
            BackboneEntry(
                name=f"resnet{depth}",
                builder=f"{package}.resnet:build_resnet{depth}",
                description=f"ResNet-{depth} (He et al., 2016)",
                weights=f"ResNet{depth}_Weights",
                **resnet,  # type: ignore[arg-type]
            )
        )
    register_backbone(
        BackboneEntry(
            name="efficientnet_b0",
            builder=f"{package}.efficientnet:build_efficientnet_b0",
            description="EfficientNet-B0 (Tan and Le, 2019)",
            adaptable=True,
            min_resolution_standard=16,
            weights="EfficientNet_B0_Weights",
            stem="features.0.0.weight",
            head="classifier.1.",
            stages=tuple(f"features.{i}" for i in range(1, 9)),
            inflates=True,
        )
    )
    register_backbone(
        BackboneEntry(
            name="efficientnet_v2_s",
            builder=f"{package}.efficientnet:build_efficientnet_v2_s",
            description="EfficientNetV2-S (Tan and Le, 2021)",
            adaptable=True,
            min_resolution_standard=16,
            weights="EfficientNet_V2_S_Weights",
            stem="features.0.0.weight",
            head="classifier.1.",
            stages=tuple(f"features.{i}" for i in range(1, 8)),
            inflates=True,
        )
    )
    register_backbone(
        BackboneEntry(
            name="convnext_tiny",
            builder=f"{package}.convnext:build_convnext_tiny",
            description="ConvNeXt-T (Liu et al., 2022)",
            adaptable=True,
            min_resolution_standard=32,  # four floor divisions leave nothing of less
            weights="ConvNeXt_Tiny_Weights",
            stem="features.0.0.weight",
            head="classifier.2.",
            stages=tuple(f"features.{i}" for i in (1, 3, 5, 7)),
        )
    )
    register_backbone(
        BackboneEntry(
            name="swin_v2_t",
            builder=f"{package}.swin:build_swin_v2_t",
            description="Swin Transformer V2-T (Liu et al., 2022)",
            adaptable=True,
            min_resolution_standard=16,
            patch=4,
            fixed_size=True,
            weights="Swin_V2_T_Weights",
            stem="features.0.0.weight",
            head="head.",
            stages=tuple(f"features.{i}" for i in (1, 3, 5, 7)),
        )
    )
    register_backbone(
        BackboneEntry(
            name="vit_tiny",
            builder=f"{package}.vit:build_vit_tiny",
            description="ViT-Ti/16 (Touvron et al., 2021), learned class token and positions",
            stride=16,
            adaptable=True,
            min_resolution_standard=16,
            patch=16,
            fixed_size=True,
            timm="vit_tiny_patch16_224",
            stem="conv_proj.weight",
            head="heads.head.",
            fits=(
                ("conv_proj.weight", f"{package}.transfer:fit_patches"),
                ("encoder.pos_embedding", f"{package}.vit:fit_positions"),
            ),
            rename=f"{package}.vit:rename_timm",
            stages=tuple(f"encoder.layers.encoder_layer_{i}" for i in range(12)),
            feature_maps=False,
        )
    )
    register_backbone(
        BackboneEntry(
            name="mini_cnn",
            builder=f"{package}.mini_cnn:build_mini_cnn",
            description="Three 3×3 convolution blocks, 94,000 parameters; for quick searches and tests",
            stride=4,
            stem="features.0.weight",
            head="head.",
            stages=("features.0", "features.4", "features.8"),
            inflates=True,
        )
    )


_register_builtin()
