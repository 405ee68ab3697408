"""Features of the images of a data set by a frozen network, computed once: what its last layer is given."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.info import SPLITS, Split
from visionforge.data.source import fingerprint
from visionforge.engine.feature_cache import FeatureCache, key_of

if TYPE_CHECKING:
    import torch

    from visionforge.data.batches import ArrayDataset
    from visionforge.data.datamodule import ImageDataModule
    from visionforge.training.classifier import ImageClassifier

log = logging.getLogger(__name__)

_NOT_READ = {"dataset", "task", "classes", "flags", "positive"}  # of a task: features are no function of these
_NOT_BUILT = {"pretrained", "weights", "dropout"}  # of a backbone: nor of these, once it has its weights
_AT_ONCE = 1 << 26  # bytes of images that are hashed at once


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the images of one split or several, in the order of the archive.

    Attributes:
        values: (N, D) float32.
        labels: As the task keeps them: (N,) int64 classes, or (N, L) uint8 labels 0/1.
        names: Name of each image, where the archive has them; None if it has none.
        splits: (N,) name of the split that each image is of.
    """

    values: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    names: tuple[str, ...] | None
    splits: npt.NDArray[np.str_]

    @classmethod
    def joined(cls, parts: "list[Features]") -> "Features":
        """Return several one after the other; names are known if they are of all."""
        names = [part.names for part in parts]
        known = None if None in names else tuple(name for each in names for name in each or ())
        values, labels, splits = (
            np.concatenate([getattr(part, field) for part in parts]) for field in ("values", "labels", "splits")
        )
        return cls(values, labels, known, splits)


def split_features(
    model: "ImageClassifier",
    datamodule: "ImageDataModule",
    split: Split,
    *,
    cache: Path | None,
    device: "torch.device | None" = None,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Return the features of a split: in evaluation mode, each image as it is, in whole batches.

    Args:
        model: The network, built; see `frozen.frozen_network`.
        datamodule: The images.
        split: `train`, `val` or `test`; of `train` those that `data.max_samples` keeps.
        cache: Folder in which they are kept, such as `feature_cache.features_folder()`; None keeps none.
        device: Where they are computed; None is where the network is.
        check: Called between batches; what it raises ends the work.
        progress: Told how many images are done, and how many there are.

    Raises:
        SettingsError: If the network has no features of whole images.
        RunError: If they are not finite.
        DataError: If the images cannot be read.
    """
    import torch

    from visionforge.inference.embedding import batch_size, finite_features, require_features

    require_features(model, "features", model.settings.backbone.name)
    if device is not None:
        model.to(device)
    dataset = datamodule.dataset_for(split)
    labels = dataset.labels.cpu().numpy()
    names = datamodule.side_table(split).names
    splits = np.full(len(dataset), split, dtype=f"<U{max(map(len, SPLITS))}")
    kept = None if cache is None else FeatureCache(cache)
    key = "" if kept is None else key_of(feature_facts(model, datamodule, split, dataset))
    values = None if kept is None else kept.read(key, (len(dataset), feature_count(model)))
    if values is not None:
        log.info("%s %s split: features from the cache", datamodule.info.name, split)
        progress(len(dataset), len(dataset))
        return Features(values, labels, names, splits)
    values = np.empty((len(dataset), feature_count(model)), dtype=np.float32)
    assert model.spec is not None
    size = batch_size(model.spec)
    for start in range(0, len(dataset), size):
        check()
        stop = min(len(dataset), start + size)
        images: torch.Tensor = dataset.__getitems__(list(range(start, stop)))[0]
        values[start:stop] = finite_features(model, images, "features", model.settings.backbone.name)
        progress(stop, len(dataset))
    if kept is not None:
        kept.write(key, values)
    return Features(values, labels, names, splits)


def feature_count(model: "ImageClassifier") -> int:
    """Return the number D of features of a network."""
    layer = model.last_layer
    assert layer is not None, "`require_features` has been asked"
    return layer.in_features


# --- what features are a function of


def feature_facts(
    model: "ImageClassifier", datamodule: "ImageDataModule", split: Split, dataset: "ArrayDataset | None" = None
) -> dict[str, Any]:
    """Return what the features of a split are a function of, as plain values.

    Args:
        model: The network.
        datamodule: The images.
        split: The split.
        dataset: Its images, if they are loaded already.
    """
    return {
        "network": network_fingerprint(model),
        "images": images_fingerprint(datamodule, split, dataset or datamodule.dataset_for(split)),
        "device": model.device.type,  # whose arithmetic differs in the last digits
    }


def network_fingerprint(model: "ImageClassifier") -> str:
    """Return a digest of what makes features of images: tensors, backbone settings and preprocessing.

    The last layer is not part of it, which features do not go through.
    """
    import torch

    assert model.spec is not None
    assert model.network is not None
    built = {
        "backbone": model.settings.backbone.model_dump(mode="json", exclude=_NOT_BUILT),
        "spec": model.spec.model_dump(mode="json", exclude=_NOT_READ),
    }
    digest = hashlib.sha256(json.dumps(built, sort_keys=True).encode())
    head = f"{model.last_layer_name}."
    for name, tensor in sorted(model.network.state_dict().items()):
        if name.startswith(head) or name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def images_fingerprint(datamodule: "ImageDataModule", split: Split, dataset: "ArrayDataset") -> str:
    """Return a digest of the images of a split and their order: archive, splits of it, and positions there.

    Images that no archive has are hashed themselves.
    """
    settings, positions = datamodule.settings, dataset.positions
    archive = fingerprint(datamodule.info, settings.resolution, settings.root)
    facts = {"dataset": datamodule.info.name, "resolution": settings.resolution, "archive": archive}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    if archive is None:
        step = max(1, _AT_ONCE // dataset.__getitems__([0])[0].nbytes)
        for start in range(0, len(dataset), step):
            images = dataset.__getitems__(list(range(start, min(len(dataset), start + step))))[0]
            digest.update(images.cpu().contiguous().numpy().data)
        return digest.hexdigest()
    for member, chosen in datamodule.source.members(split):
        digest.update(f"\n{member} {'all' if chosen is None else len(chosen)}\n".encode())
        digest.update(b"" if chosen is None else np.ascontiguousarray(chosen, dtype=np.int64).data)
    digest.update(f"\n{'all' if positions is None else len(positions)}\n".encode())
    digest.update(b"" if positions is None else np.ascontiguousarray(positions, dtype=np.int64).data)
    return digest.hexdigest()
