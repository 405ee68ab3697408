"""Weights of a repository of the Hugging Face Hub, from its cache folder or downloaded; needs the extra `hub`."""

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionforge.distribution import how_to_install
from visionforge.errors import WeightsError
from visionforge.models.weight_files import MAX_BYTES, SETTING, Pixels, PretrainedState, from_file

log = logging.getLogger(__name__)

PREFIX = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin")  # the first that the repository has
CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20
_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*){0,3}))?",
    re.ASCII,
)


def from_hub(name: str) -> PretrainedState:
    """Read the weights of a repository: what the cache folder has of it, or else what is downloaded into it.

    The cache folder, the address and the token are those of huggingface_hub, with its variables ``HF_HOME``,
    ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``. A branch that is in the cache folder is not asked for again.
    Of the repository's other files only ``config.json`` is read, as data: what the weights expect of pixels.

    Args:
        name: ``OWNER/NAME``, or ``OWNER/NAME@REVISION`` with a branch, tag or commit.

    Raises:
        WeightsError: If there is no such repository or revision, it has no weight file, that is too large or cannot be
            read, or it is neither in the cache folder nor can be downloaded.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise WeightsError(f"{SETTING}: {PREFIX}{name}: allowed is {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise WeightsError(
            f"{SETTING}: {PREFIX}{name}: huggingface_hub is not installed; `{how_to_install('hub')}`"
        ) from error
    repository, revision = match["repository"], match["revision"]
    path = _weight_file(repository, revision)
    commit = path.parent.name  # snapshots/COMMIT/FILE
    found = from_file(path, f"Hugging Face Hub {repository}, {path.name}", commit)
    mean, std = expected_pixels(_config(repository, commit))
    return replace(found, mean=mean, std=std)


def cache_folder_of_hub() -> Path:
    """Return the folder in which huggingface_hub keeps what it has downloaded."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def expected_pixels(config: Mapping[str, Any]) -> tuple[Pixels | None, Pixels | None]:
    """Return the mean and standard deviation in a repository's configuration; nothing where they are not usable.

    timm keeps them as ``mean`` and ``std`` in ``pretrained_cfg``, others as ``image_mean`` and ``image_std``.
    """
    inner = config.get("pretrained_cfg")
    for section in (inner if isinstance(inner, Mapping) else {}, config):
        for names in (("mean", "std"), ("image_mean", "image_std")):
            mean, std = (_three_numbers(section.get(name)) for name in names)
            if mean is not None and std is not None and min(std) > 0:
                return mean, std
    return None, None


def _three_numbers(value: Any) -> Pixels | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        return None
    first, second, third = (float(number) if abs(number) < 1e6 else math.nan for number in value)
    return (first, second, third) if math.isfinite(first + second + third) else None


# --- files of a repository


def _weight_file(repository: str, revision: str | None) -> Path:
    """Return the weight file of a repository on this machine."""
    for name in FILES:
        if (path := _cached(repository, name, revision)) is not None:
            return path
    for name in FILES:
        if (found := _downloaded(repository, name, revision, MAX_BYTES)) is not None:
            return found
    at = "" if revision is None else f" at {revision}"
    raise WeightsError(f"{SETTING}: {PREFIX}{repository}{at} has neither {' nor '.join(FILES)}")


def _config(repository: str, commit: str) -> Mapping[str, Any]:
    """Return the repository's configuration of a commit as plain values; an empty one where none can be had."""
    try:
        path = _cached(repository, CONFIG, commit) or _downloaded(repository, CONFIG, commit, MAX_CONFIG_BYTES)
        if path is None or path.stat().st_size > MAX_CONFIG_BYTES:
            return {}
        content = json.loads(path.read_bytes())
    except (WeightsError, OSError, ValueError, RecursionError) as error:
        log.debug("%s of %s: not read (%s)", CONFIG, repository, error)
        return {}
    return content if isinstance(content, dict) else {}


def _cached(repository: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repository, name, revision=revision)
    except (ValueError, OSError) as error:  # a name that the hub does not allow; a folder that may not be read
        raise WeightsError(f"{SETTING}: {PREFIX}{repository}: {str(error).splitlines()[0][:160]}") from error
    return Path(found) if isinstance(found, str) else None


def _downloaded(repository: str, name: str, revision: str | None, max_bytes: int) -> Path | None:
    """Return a file of a repository, downloaded into the cache folder; None if the repository has none of that name.

    Raises:
        WeightsError: If it cannot be downloaded, or is too large.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    shown = f"{SETTING}: {PREFIX}{repository}"
    try:
        size = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).size
        if size is None or size > max_bytes:
            told = "of unknown size" if size is None else f"of {size:,} bytes"
            raise WeightsError(f"{shown}: {name} is {told}; at most {max_bytes:,} are taken")
        return Path(hf_hub_download(repository, name, revision=revision))
    except WeightsError:
        raise
    except RevisionNotFoundError as error:
        raise WeightsError(f"{shown} has no revision {revision or 'main'}") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{shown}: there is no such repository, or it is not public; its name is OWNER/NAME, and HF_TOKEN opens "
            "those that are yours"
        ) from error
    except EntryNotFoundError as error:
        if type(error).__name__ != "LocalEntryNotFoundError":
            return None
        raise _unreachable(repository, error) from error
    except Exception as error:  # the hub's client and the libraries below it raise many kinds
        raise _unreachable(repository, error) from error


def _unreachable(repository: str, error: Exception) -> WeightsError:
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return WeightsError(
        f"{SETTING}: {PREFIX}{repository} is not in {cache_folder_of_hub()} and cannot be downloaded ({reason}); run "
        f"`hf download {repository}` where there is a network and bring that folder, name a weight file, or set "
        "model.backbone.pretrained to false"
    )
