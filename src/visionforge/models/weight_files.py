"""Weight files on this machine: only tensors are read, never code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from visionforge.errors import WeightsError
from visionforge.fetch import Checksum
from visionforge.models.tensor_files import load_tensors

SETTING = "model.backbone.weights"
MAX_BYTES = 4_000_000_000  # of a download: larger than any network for small images
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
ENCODER = "encoder.network."  # in front of the names of a backbone that has a decoder or a detector

Pixels = tuple[float, float, float]


@dataclass(frozen=True)
class PretrainedState:
    """Pretrained tensors.

    Attributes:
        tensors: State dict.
        source: Where it came from, for people.
        sha256: SHA-256 of the file, if it came from a file.
        revision: Version of the package, or commit of the repository, that the file came from.
        mean: What the weights expect to be subtracted from red, green and blue, of values in [0, 1], if it is known.
        std: What they expect them to be divided by.
    """

    tensors: Mapping[str, Tensor]
    source: str
    sha256: str | None = None
    revision: str | None = None
    mean: Pixels | None = None
    std: Pixels | None = None


def from_file(path: Path, source: str, revision: str | None = None) -> PretrainedState:
    """Read a weight file, whatever it is named for.

    Args:
        path: The file.
        source: Where it came from, for people.
        revision: Version or commit that it belongs to.

    Raises:
        WeightsError: If it is none.
    """
    return PretrainedState(read_weight_file(path), source, Checksum("sha256", "").of(path), revision)


def checkpoint_of(folder: Path) -> Path:
    """Return the best checkpoint of a run.

    Raises:
        WeightsError: If the folder has none.
    """
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise WeightsError(f"{SETTING}: {folder} is no run with a checkpoint: it has no checkpoints/best.ckpt")
    return checkpoint


def read_weight_file(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict from a `.pth` or `.safetensors` file or a checkpoint of ours; only tensors, never code.

    Raises:
        WeightsError: If the file cannot be read that way.
    """
    try:
        content: Any = load_tensors(path)
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{SETTING}: {path} is no weight file ({reason})") from error
    state: Any = content.get("state_dict", content) if isinstance(content, dict) else content
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not named or not state:
        raise WeightsError(f"{SETTING}: {path} holds no state dict (names with tensors)")
    if all(name.startswith(("network.", "cumulative.")) for name in state):  # a checkpoint of an ImageClassifier
        state = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    if any(name.startswith(ENCODER) for name in state):  # of a network with a decoder or a detector
        return {name.removeprefix(ENCODER): value for name, value in state.items() if name.startswith(ENCODER)}
    return dict(state)
