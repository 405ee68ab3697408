"""Any model of timm as a backbone, unchanged but for input channels and classifier; needs the extra `timm`."""

from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from typing import Any

from torch import nn

from visionforge.distribution import how_to_install
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.entry import IMAGENET_MEAN, IMAGENET_STD, BackboneEntry
from visionforge.models.weight_files import Pixels, PretrainedState
from visionforge.models.weight_hub import cache_folder_of_hub

try:
    import timm
except ImportError as error:
    raise SettingsError(
        f"model.backbone.name: timm is not installed; `{how_to_install('timm')}`, or choose another backbone"
    ) from error


@cache
def names() -> list[str]:
    """Return the names of timm's models, without their tags."""
    found: list[str] = timm.list_models()
    return found


def tags(model: str) -> list[str]:
    """Return the tags of a model's weights, the default first."""
    architecture = model.partition(".")[0]
    config = timm.models.get_pretrained_cfg(architecture)
    default = None if config is None else config.tag
    known = [name.partition(".")[2] for name in timm.list_pretrained(architecture)]
    return sorted(known, key=lambda tag: (tag != default, tag))


def _config(model: str) -> Any:
    architecture, _, tag = model.partition(".")
    try:
        return timm.models.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise SettingsError(
            f"model.backbone.name: timm/{architecture} has no weights tagged {tag!r}; "
            f"allowed: {', '.join(tags(architecture))}"
        ) from error


def entry(model: str) -> BackboneEntry:
    """Return the registry entry of a model by its timm name, with or without a tag.

    Raises:
        SettingsError: If there are no weights of that tag.
    """
    config = _config(model)
    architecture = model.partition(".")[0]

    def build(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> nn.Module:
        size: dict[str, Any] = {"img_size": resolution} if config.fixed_input_size else {}
        network: nn.Module = timm.create_model(
            architecture, in_chans=in_channels, num_classes=num_classes, drop_rate=dropout, **size
        )
        return network

    first = config.first_conv
    return BackboneEntry(
        name=f"timm/{model}",
        builder=build,
        description=f"timm's {architecture}, its stem unchanged",
        fixed_size=bool(config.fixed_input_size),
        timm=model if timm.list_pretrained(architecture) else None,
        stem=f"{first}.weight" if isinstance(first, str) else "",
        head=_head(config.classifier),
        mean=_pixels(config.mean, IMAGENET_MEAN),
        std=_pixels(config.std, IMAGENET_STD),
    )


def _head(classifier: str | Sequence[str] | None) -> str | tuple[str, ...]:
    """Return the prefix of the classifier's parameters, for two classifiers (distillation, scales) their common one.

    Where they have none in common, as in VOLO, whose second one looks at the patches, it is both.
    """
    names = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier or ()))
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same) or names


def published_state(model: str, tag: str | None, resolution: int) -> PretrainedState:
    """Return timm's pretrained tensors, positions resampled to the resolution where the size is fixed.

    Args:
        model: timm's name; a tag in it counts unless `tag` is given.
        tag: Tag of the weights; None is the model's own or timm's default.
        resolution: Height and width in pixels.

    Raises:
        WeightsError: If there is no such tag, or the weights are not on this machine and cannot be downloaded.
    """
    architecture = model.partition(".")[0]
    name = f"{architecture}.{tag}" if tag else model
    if tag and name not in timm.list_pretrained(architecture):
        raise WeightsError(
            f"model.backbone.weights: timm has no {name}; "
            f"allowed: a local weight file or one of {', '.join(tags(architecture))}"
        )
    config = _config(name)
    size: dict[str, Any] = {"img_size": resolution} if config.fixed_input_size else {}
    try:
        network = timm.create_model(name, pretrained=True, **size)
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).splitlines()[0][:160]
        raise WeightsError(
            f"model.backbone.weights: timm {name} is not in {cache_folder_of_hub()} and cannot be downloaded "
            f"({reason}); name a local file in model.backbone.weights, or set model.backbone.pretrained to false"
        ) from error
    mean, std = _pixels(config.mean, IMAGENET_MEAN), _pixels(config.std, IMAGENET_STD)
    return PretrainedState(network.state_dict(), f"timm {name}", mean=mean, std=std)


def hub_repository(model: str) -> str:
    """Return the repository of the Hugging Face Hub that has the weights of a model."""
    return str(_config(model).hf_hub_id or f"timm/{model}")


def _pixels(values: Sequence[float] | None, otherwise: Pixels) -> Pixels:
    """Return what weights expect of red, green and blue; what others expect where they are not of three channels."""
    return (values[0], values[1], values[2]) if values is not None and len(values) == 3 else otherwise
