"""Features of images by a trained network: what its classifier is given."""

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.data.archive import channels_of
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError, SettingsError
from visionforge.inference.loading import device_of, find_target, load_network
from visionforge.training.task_network import TaskNetwork

MOST = 256  # images at once
PIXELS = 1 << 20  # or, of larger ones, so many pixels of one channel: some hundred MiB of a network's maps


def network_features(run: str | Path, resolution: int) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Return what makes (N, D) features of images (N, R, R) or (N, R, R, 3) uint8.

    Args:
        run: A trained run, by folder or name, or a checkpoint file.
        resolution: Height and width R of the images.

    Raises:
        SettingsError: If the network takes other images, or labels no whole images.
        RunError: If the run cannot be used.
    """
    is_file = Path(run).is_file()
    try:
        target = find_target("embedding", None if is_file else str(run), str(run) if is_file else None)
    except RunError as error:
        raise RunError([f"embedding: {problem.removeprefix('--run: ')}" for problem in error.problems]) from error
    model = load_network(target.checkpoint).to(device_of("auto"))
    require_features(model, "embedding", str(run))
    spec = model.spec
    assert spec is not None
    if spec.spatial_dims != 2 or spec.resolution != resolution:
        raise SettingsError(
            f"embedding: {run} takes images of {spec.size_text}, these have {resolution}; name a run that was trained "
            "at this resolution, or pixels"
        )

    def features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        parts, size = [], batch_size(spec)
        for start in range(0, len(images), size):
            batch = torch.from_numpy(np.array(images[start : start + size]))
            batch = batch.movedim(-1, 1) if channels_of(images.shape) == 3 else batch[:, None]
            if batch.shape[1] == 3 and spec.channels == 1:
                batch = _grey(batch)
            parts.append(finite_features(model, batch, "embedding", str(run)))
        return np.concatenate(parts)

    return features


def require_features(model: TaskNetwork, told: str, name: str) -> None:
    """Check that a network has features of whole images.

    Args:
        model: The network, built.
        told: What an error begins with.
        name: What the error calls the network.

    Raises:
        SettingsError: If it has none.
    """
    spec = model.spec
    assert spec is not None
    if not spec.kind.calibrates:  # masks and boxes are read from maps
        raise SettingsError(f"{told}: {name} labels no whole images ({spec.task}); name a network that does")
    if model.last_layer_name is None:
        what = "joins several networks, which have features each" if model.members else "has no linear classifier"
        raise SettingsError(f"{told}: {name} {what}, so there are none to take; name another network")


def batch_size(spec: TaskSpec) -> int:
    """Return how many images or volumes go through a network at once."""
    return max(1, min(MOST, PIXELS // prod([spec.network_resolution] * spec.spatial_dims)))


def finite_features(model: TaskNetwork, images: Tensor, told: str, name: str) -> npt.NDArray[np.float32]:
    """Return (N, D) features of images (N, C, R, R), or volumes (N, C, R, R, R), uint8.

    Raises:
        RunError: If they are not finite; see `require_features` for what it says.
    """
    found: npt.NDArray[np.float32] = model.features(images).cpu().numpy()
    if not np.isfinite(found).all():
        raise RunError(f"{told}: the features of {name} are not finite; name another network")
    return found


def _grey(batch: Tensor) -> Tensor:
    return batch.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
