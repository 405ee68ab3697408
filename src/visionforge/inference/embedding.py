"""Features of images by a trained network: what its classifier is given."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visionforge.data.archive import channels_of
from visionforge.errors import RunError, SettingsError
from visionforge.inference.loading import device_of, find_target, load_classifier
from visionforge.models.registry import backbone_entry

BATCH = 256


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
    model = load_classifier(target.checkpoint).to(device_of("auto"))
    spec, network = model.spec, model.network
    assert spec is not None
    assert network is not None
    if not spec.kind.calibrates:  # masks and boxes are read from maps
        raise SettingsError(f"embedding: {run} labels no whole images ({spec.task}); name a run that does, or pixels")
    if spec.spatial_dims != 2 or spec.resolution != resolution:
        raise SettingsError(
            f"embedding: {run} takes images of {spec.size_text}, these have {resolution}; name a run that was trained "
            "at this resolution, or pixels"
        )
    head = _last_layer(network, backbone_entry(model.settings.backbone.name).head_of(network))

    def features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        parts: list[Tensor] = []

        def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            parts.append(given[0].flatten(1).float().cpu())

        hook = head.register_forward_pre_hook(keep)
        try:
            with torch.inference_mode():
                for start in range(0, len(images), BATCH):
                    batch = torch.from_numpy(np.array(images[start : start + BATCH]))
                    batch = batch.movedim(-1, 1) if channels_of(images.shape) == 3 else batch[:, None]
                    if batch.shape[1] != spec.channels:
                        batch = batch.expand(-1, 3, -1, -1) if spec.channels == 3 else _grey(batch)
                    model(batch.to(next(model.parameters()).device))
        finally:
            hook.remove()
        found = torch.cat(parts)
        if not bool(torch.isfinite(found).all()):
            raise RunError(f"embedding: the features of {run} are not finite; name another run, or pixels")
        return found.numpy()

    return features


def _grey(batch: Tensor) -> Tensor:
    return batch.float().mean(dim=1, keepdim=True).round().to(torch.uint8)


def _last_layer(network: nn.Module, prefixes: tuple[str, ...]) -> nn.Module:
    """Return the layer of a classifier whose output are the logits.

    Raises:
        SettingsError: If there is none.
    """
    layers = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and any(f"{name}.".startswith(prefix) for prefix in prefixes)
    ]
    if not layers:
        raise SettingsError("embedding: its network has no linear classifier to take features from; name another run")
    return layers[-1]
