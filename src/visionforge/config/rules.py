"""The rules that span several settings, all in one place; they run before anything is downloaded or built."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from visionforge.config.schema import RunSettings


@dataclass(frozen=True)
class DatasetFacts:
    """What the rules need to know of the data set.

    Attributes:
        name: Catalog name.
        channels: 1 or 3.
        train: Number of training images.
        resolutions: Offered resolutions; None means any.
    """

    name: str
    channels: int
    train: int
    resolutions: tuple[int, ...] | None


@dataclass(frozen=True)
class BackboneFacts:
    """What the rules need to know of the backbone.

    Attributes:
        name: Registered name.
        min_resolution: Smallest supported height and width.
        has_published_weights: Whether weights can be had without a local file.
        final_map: Height and width of the last feature map at the configured resolution.
    """

    name: str
    min_resolution: int
    has_published_weights: bool
    final_map: int


@dataclass(frozen=True)
class DeviceFacts:
    """What the rules need to know of the training device.

    Attributes:
        name: Device as a person knows it, for messages.
        float16: Whether training in float16 works on it.
        bfloat16: Whether training in bfloat16 works on it.
    """

    name: str
    float16: bool
    bfloat16: bool


@dataclass(frozen=True)
class Facts:
    """Everything outside the settings that a rule may look at; None where it is unknown or not needed."""

    dataset: DatasetFacts | None = None
    backbone: BackboneFacts | None = None
    device: DeviceFacts | None = None


def check_rules(settings: RunSettings, facts: Facts, stage: str = "fit") -> list[str]:
    """Return one line for every broken rule, none if all hold.

    Args:
        settings: Complete settings.
        facts: What the rules need to know beyond them.
        stage: `fit` checks all rules; `validate`, `test` and `predict` only those that matter without training.
    """
    rules = RULES if stage == "fit" else EVALUATION_RULES
    return [problem for rule in rules for problem in rule(settings, facts)]


def _learning_rates(settings: RunSettings, facts: Facts) -> Iterator[str]:
    low, high = settings.model.schedule.min_lr, settings.model.optimizer.learning_rate
    if low >= high:
        yield (
            f"model.schedule.min_lr: {low:g} is not allowed; it must be below model.optimizer.learning_rate ({high:g})"
        )


def _mixup_epochs(settings: RunSettings, facts: Facts) -> Iterator[str]:
    epochs, longest = settings.model.mixup.mixup_epochs, settings.trainer.max_epochs
    if epochs is not None and epochs > longest:
        yield f"model.mixup.mixup_epochs: {epochs} is not allowed; at most trainer.max_epochs ({longest})"


def _pretrained_weights(settings: RunSettings, facts: Facts) -> Iterator[str]:
    backbone = settings.model.backbone
    if backbone.weights is not None and not backbone.pretrained:
        yield (
            "model.backbone.weights: given, but model.backbone.pretrained is false; "
            "set pretrained to true, or leave weights out"
        )
    if not backbone.pretrained:
        return
    if facts.dataset and facts.dataset.channels == 1 and not settings.data.force_rgb:
        yield (
            f"model.backbone.pretrained: pretrained weights need 3 channels, {facts.dataset.name} has 1; "
            "set data.force_rgb to true, or pretrained to false"
        )
    if facts.backbone and not facts.backbone.has_published_weights and backbone.weights is None:
        yield (
            f"model.backbone.pretrained: there are no published weights for {facts.backbone.name}; "
            "name a local file in model.backbone.weights, or set pretrained to false"
        )


def _resolution(settings: RunSettings, facts: Facts) -> Iterator[str]:
    resolution = settings.data.resolution
    if facts.dataset and facts.dataset.resolutions and resolution not in facts.dataset.resolutions:
        offered = ", ".join(str(r) for r in facts.dataset.resolutions)
        yield f"data.resolution: {resolution} is not offered by {facts.dataset.name}; allowed: {offered}"
    if facts.backbone and resolution < facts.backbone.min_resolution:
        adapt = "" if settings.model.backbone.adapt_stem else " with model.backbone.adapt_stem false"
        yield (
            f"data.resolution: {resolution} is too small for {facts.backbone.name}{adapt}; "
            f"at least {facts.backbone.min_resolution}"
        )


def _precision(settings: RunSettings, facts: Facts) -> Iterator[str]:
    precision = str(settings.trainer.precision)
    if facts.device is None:
        return
    if precision.startswith("16") and not facts.device.float16:
        yield (
            f"trainer.precision: {precision!r} needs a GPU, the device is {facts.device.name}; "
            "use 32-true" + (" or bf16-mixed" if facts.device.bfloat16 else "")
        )
    if precision.startswith("bf16") and not facts.device.bfloat16:
        yield (
            f"trainer.precision: {precision!r} needs bfloat16, which {facts.device.name} lacks; "
            "use 32-true" + (" or 16-mixed" if facts.device.float16 else "")
        )


def _steps_per_epoch(settings: RunSettings, facts: Facts) -> Iterator[str]:
    data, trainer = settings.data, settings.trainer
    if facts.dataset is None:
        return
    devices = trainer.devices if isinstance(trainer.devices, int) and trainer.devices > 0 else 1
    ranks = devices * trainer.num_nodes
    images = min(facts.dataset.train, data.max_samples or facts.dataset.train)
    if images < data.batch_size * ranks:
        shared = f" on each of {ranks} devices" if ranks > 1 else ""
        reason = "data.max_samples leaves" if data.max_samples else f"{facts.dataset.name} has"
        yield (
            f"data.batch_size: {data.batch_size}{shared} leaves no training step, {reason} {images} training images; "
            f"at most {images // ranks}"
        )
    if facts.backbone and facts.backbone.final_map <= 1 and data.batch_size == 1:
        yield (
            f"data.batch_size: 1 is too small for {facts.backbone.name} at {data.resolution} pixels, where batch "
            "normalisation sees a single value; at least 2"
        )


EVALUATION_RULES: tuple[Callable[[RunSettings, Facts], Iterator[str]], ...] = (_resolution, _precision)
RULES = (_learning_rates, _mixup_epochs, _pretrained_weights, *EVALUATION_RULES, _steps_per_epoch)
