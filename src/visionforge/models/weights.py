"""Where pretrained weights come from: a library's tag, an address, a file, or another run. Only tensors are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torchvision
from torch import Tensor

from visionforge.errors import DataError, WeightsError
from visionforge.fetch import Checksum, fetch
from visionforge.models.registry import BackboneEntry
from visionforge.models.tensor_files import load_tensors
from visionforge.redaction import redact_url
from visionforge.runs.locks import LockedError, held
from visionforge.runs.paths import cache_folder, is_anchored, resolve

LOCK_TIMEOUT_S = 3600.0  # another process is downloading the same file
MAX_DOWNLOAD_BYTES = 4_000_000_000  # larger than any network for small images
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
ENCODER = "encoder.network."  # in front of the names of a backbone that has a decoder or a detector
_SETTING = "model.backbone.weights"


@dataclass(frozen=True)
class PretrainedState:
    """Pretrained tensors.

    Attributes:
        tensors: State dict.
        source: Where it came from, for people.
        sha256: SHA-256 of the file, if it came from a file.
    """

    tensors: Mapping[str, Tensor]
    source: str
    sha256: str | None = None


def pretrained_state(entry: BackboneEntry, weights: str | None, resolution: int) -> PretrainedState:
    """Return pretrained tensors for a backbone.

    Args:
        entry: The backbone.
        weights: A tag of torchvision's or timm's weights, ``https://HOST/FILE#sha256=DIGEST``, a `.pth` or
            `.safetensors` file, a run folder or a checkpoint; None is the backbone's default.
        resolution: Height and width of the images in pixels, to which timm resamples positions.

    Raises:
        WeightsError: If they do not exist, cannot be downloaded, or are not what they should be.
    """
    published = getattr(torchvision.models, entry.weights) if entry.weights else None
    names = list(published.__members__) if published else []
    if published and (weights is None or weights in names):
        chosen = published[weights] if weights else published.DEFAULT
        return PretrainedState(_published_state(chosen), f"torchvision {entry.weights}.{chosen.name}")
    if weights is not None and "://" in weights and not is_anchored(weights):
        return _from_file(_downloaded(weights), redact_url(weights))
    path = None if weights is None else resolve(weights) if is_anchored(weights) else Path(weights).expanduser()
    if path is not None and path.is_dir():
        return _from_file(_checkpoint_of(path), str(path))
    if path is not None and path.is_file():
        return _from_file(path, str(path))
    is_path = path is not None and (len(path.parts) > 1 or path.suffix in WEIGHT_SUFFIXES)
    if entry.timm and not is_path:
        return _from_timm(entry.timm, weights, resolution)
    known = f" or one of {', '.join(names)}" if names else ""
    raise WeightsError(
        f"{_SETTING}: {weights!r} does not exist; allowed: a .pth or .safetensors file, a run folder, a checkpoint, "
        f"https://HOST/FILE#sha256=DIGEST{known}"
    )


def _published_state(chosen: Any) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no connection, or a damaged file, of which the reader may raise almost anything
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
        if file.is_file():
            raise WeightsError(f"{_SETTING}: {file} is damaged; delete it, and it is downloaded anew") from error
        raise WeightsError(
            f"{_SETTING}: {chosen} is not on this machine and cannot be downloaded "
            f"({getattr(error, 'reason', error)}); place {chosen.url} at {file}, "
            "or set model.backbone.pretrained to false"
        ) from error
    return state


def _from_timm(model: str, tag: str | None, resolution: int) -> PretrainedState:
    try:
        from visionforge.models.from_timm import published_state
    except ImportError as error:
        raise WeightsError(f"{_SETTING}: timm is not installed; `pip install 'visionforge[timm]'`") from error
    tensors, source = published_state(model, tag, resolution)
    return PretrainedState(tensors, source)


def _downloaded(address: str) -> Path:
    """Return the file of an address, downloading it if it is not in the user's cache folder yet.

    Raises:
        WeightsError: If the address names no SHA-256, or the file cannot be had.
    """
    url, _, fragment = address.partition("#")
    digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    name = Path(urlsplit(url).path).name
    if digest is None or not name:
        raise WeightsError(
            f"{_SETTING}: {address}: an address needs its file's SHA-256: https://HOST/FILE#sha256=DIGEST"
        )
    checksum = Checksum("sha256", digest[1].lower())
    path = cache_folder() / "weights" / f"{checksum.value[:16]}-{name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(Path(f"{path}.lock"), str(path), LOCK_TIMEOUT_S):
            if not path.is_file() or not checksum.fits(path):
                fetch(url, path, checksum, MAX_DOWNLOAD_BYTES)
    except (DataError, LockedError) as error:
        raise WeightsError([f"{_SETTING}: {problem}" for problem in error.problems]) from error
    except OSError as error:
        raise WeightsError(
            f"{_SETTING}: {url} cannot be downloaded ({getattr(error, 'reason', error)}); place it at {path}"
        ) from error
    return path


def _checkpoint_of(folder: Path) -> Path:
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise WeightsError(f"{_SETTING}: {folder} is no run with a checkpoint: it has no checkpoints/best.ckpt")
    return checkpoint


def _from_file(path: Path, source: str) -> PretrainedState:
    return PretrainedState(read_weight_file(path), source, Checksum("sha256", "").of(path))


def read_weight_file(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict from a `.pth` or `.safetensors` file or a checkpoint of ours; only tensors, never code.

    Raises:
        WeightsError: If the file cannot be read that way.
    """
    try:
        content: Any = load_tensors(path)
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{_SETTING}: {path} is no weight file ({reason})") from error
    state: Any = content.get("state_dict", content) if isinstance(content, dict) else content
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not named or not state:
        raise WeightsError(f"{_SETTING}: {path} holds no state dict (names with tensors)")
    if all(name.startswith(("network.", "cumulative.")) for name in state):  # a checkpoint of an ImageClassifier
        state = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    if any(name.startswith(ENCODER) for name in state):  # of a network with a decoder or a detector
        return {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}
    return dict(state)
