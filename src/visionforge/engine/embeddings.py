"""Features of a data set's images, or of anybody's pictures, as arrays and as a file."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from visionforge.config.loading import RawConfig
from visionforge.data.info import SPLITS, Split
from visionforge.data.picture_sources import ArchiveImages, PictureFiles, list_pictures, read_by
from visionforge.data.source import fingerprint
from visionforge.data.stream import picture_batches
from visionforge.distribution import own_version
from visionforge.engine.embedding import Features, network_fingerprint, split_features
from visionforge.engine.embedding_files import columns_of, frame_of, require_output, write_embeddings
from visionforge.engine.feature_cache import features_folder
from visionforge.engine.frozen import Frozen, FrozenNetwork, frozen_network, names_network, picture_network
from visionforge.engine.picture_outputs import Failures, errors_of, is_error_table
from visionforge.errors import RunError, SettingsError
from visionforge.inference.loading import Target, find_target
from visionforge.printable import LONGEST_LINE, printable
from visionforge.runs.logfile import LEVELS, RunLog
from visionforge.runs.owned_files import folder_for
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import describe

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
CHOICES = (*SPLITS, ALL)
MOST_THREADS = 8  # that decode pictures
_NAME = "embeddings.npz"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of images, what is known of these, and where the features are from.

    Attributes:
        features: (N, D) float32, what the last layer of the network is given.
        labels: (N,) int64 classes, or (N, L) labels 0/1; None of pictures.
        splits: (N,) name of the split of each image; None of pictures.
        names: (N,) name of each image, or path of each picture; None where the archive has none.
        metadata: Network, weights, data and preprocessing, as plain values.
        path: The file; None if none was written.
        errors: Table of the pictures that could not be read; None if all could, or no file was written.
        failed: How many pictures could not be read.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[Any] | None
    splits: npt.NDArray[np.str_] | None
    names: npt.NDArray[np.str_] | None
    metadata: Mapping[str, Any]
    path: Path | None = None
    errors: Path | None = None
    failed: int = 0

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A row per image: its name, split and label as far as they are known, and its features."""
        return frame_of(columns_of(self))

    def as_dict(self) -> dict[str, Any]:
        """Return as plain values what is known of them, without the features."""
        places = {"path": self.path, "errors": self.errors}
        count, size = self.features.shape
        return {
            **{name: None if path is None else str(path) for name, path in places.items()},
            "images": count,
            "features": size,
            "failed": self.failed,
            **self.metadata,
        }

    def __repr__(self) -> str:
        """Return how many images have how many features, of which network, and where they are."""
        count, size = self.features.shape
        line = f"{count:,} images, {size:,} features each, of {self.metadata['network']['name']}"
        if self.path is not None:
            line += f": {shown(self.path)}"
        if self.failed:
            line += f"; {self.failed:,} of {count + self.failed:,} files could not be read"
            line += "" if self.errors is None else f": {shown(self.errors)}"
        return printable(line, LONGEST_LINE)


def embed(
    raw: RawConfig,
    *,
    interruption: Interruption,
    split: str | None = None,
    pictures: Sequence[Path] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    cache: bool = True,
    write: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Embeddings:
    """Return the features of images, and write them into a file.

    Args:
        raw: Settings, with `run` or `ckpt_path` for a trained network; see `frozen.frozen_network`.
        interruption: Handles the signals; nothing is left behind.
        split: `train`, `val`, `test`, or `all`, which None is; of pictures the part of `.npz` archives.
        pictures: Folders, picture files and `.npz` archives, instead of a data set's images.
        output: The file, `.npz`, `.parquet`, `.csv` or `.jsonl`; None is one in the run, or in the working folder.
        overwrite: Replace a file that exists.
        cache: Take the features from the user's cache folder if they are there, and keep them there.
        write: Write a file even if `output` is None.
        progress: Told how many images are done, and how many there are.
        warn: Told of the first pictures that could not be read.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
        Interrupted: If a signal ended it.
    """
    if split is not None and split not in CHOICES:
        raise SettingsError(f"split: {split} is not allowed; allowed: {', '.join(CHOICES)}")
    if pictures is not None and split == ALL:
        raise SettingsError(f"split: {ALL} is of a data set; of pictures it is the part of .npz archives")
    target = None
    if names_network(raw):
        target = find_target("embed", raw.values.get("run"), raw.values.get("ckpt_path"))
    elif pictures is not None and "dataset" not in (raw.values.get("data") or {}):
        raise SettingsError(
            "pictures: a pretrained backbone does not say how pictures are scaled and normalised; name the data set "
            "that they are like with --data.dataset, or a trained network with --run RUN"
        )
    file = output if output is not None else _default_output(target, split, pictures) if write else None
    if file is not None:
        require_output(file, overwrite, made=output is None, pictures=pictures is not None)
    listed = None if pictures is None else list_pictures(pictures, cast("Split | None", split))
    if listed is not None and split is not None and not any(isinstance(each, ArchiveImages) for each in listed):
        raise SettingsError("split: chooses a part of .npz archives; `pictures` names none")
    level = raw.values.get("log_level")
    with RunLog(level if level in LEVELS else "info"), interruption.deferred(), contextlib.ExitStack() as stack:
        network = picture_network(raw) if listed is not None and target is not None else frozen_network(raw)
        if file is not None:
            stack.enter_context(folder_for(file.absolute().parent))
        if listed is not None:
            made = _of_pictures(network, listed, file, interruption, progress, warn)
        else:
            assert isinstance(network, Frozen)
            wanted = SPLITS if split in (None, ALL) else (cast("Split", split),)
            made = _of_splits(network, wanted, cache, interruption, progress)
        if file is not None:
            try:
                made = write_embeddings(made, file)
                if listed is not None and not made.failed and is_error_table(errors_of(file)):
                    errors_of(file).unlink()  # of the file that was replaced
            except OSError as error:
                raise RunError(f"output: {shown(file)} cannot be written ({describe(error)})") from error
    return made


def _default_output(target: "Target | None", split: str | None, pictures: Sequence[Path] | None) -> Path:
    if target is None or target.run is None:
        return Path(_NAME)
    what = "images" if pictures is not None else split or ALL
    return target.run.path / "evaluations" / f"embed_{target.checkpoint.stem}_{what}" / _NAME


# --- images of a data set


def _of_splits(
    frozen: Frozen,
    splits: Sequence[Split],
    cache: bool,
    interruption: Interruption,
    progress: Callable[[int, int], None],
) -> Embeddings:
    model, datamodule = frozen.model, frozen.datamodule
    sizes = [len(datamodule.dataset_for(split)) for split in splits]
    folder = features_folder() if cache else None

    def told(before: int) -> Callable[[int, int], None]:
        return lambda done, _: progress(before + done, sum(sizes))

    found = Features.joined(
        [
            split_features(
                model, datamodule, split, cache=folder, check=interruption.check, progress=told(sum(sizes[:place]))
            )
            for place, split in enumerate(splits)
        ]
    )
    names = None if found.names is None else np.array(found.names, dtype=np.str_)
    metadata = {**_metadata(frozen), "data": _data(frozen, splits)}
    return Embeddings(found.values, found.labels, found.splits, names, metadata)


def _data(frozen: Frozen, splits: Sequence[Split]) -> dict[str, Any]:
    settings, info = frozen.datamodule.settings, frozen.datamodule.info
    named = ("resolution", "max_samples", "folds", "fold", "fold_pool", "fold_repeats", "fold_seed")
    return {
        "dataset": info.name,
        "archive_md5": fingerprint(info, settings.resolution, settings.root),
        "splits": list(splits),
        **{name: getattr(settings, name) for name in named},
    }


# --- pictures


def _of_pictures(
    network: FrozenNetwork,
    listed: Sequence[PictureFiles | ArchiveImages],
    file: Path | None,
    interruption: Interruption,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> Embeddings:
    from visionforge.inference.embedding import batch_size, finite_features

    spec = network.model.spec
    assert spec is not None
    listed = read_by(listed, spec.spatial_dims)
    total = sum(map(len, listed))
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    batches = picture_batches(
        listed, spec.resolution, spec.channels, batch_size(spec), threads, spec.spatial_dims, spec.fit, spec.intensity
    )
    errors = None if file is None else errors_of(file)
    parts: list[npt.NDArray[np.float32]] = []
    names: list[str] = []
    with contextlib.ExitStack() as stack:
        failures = Failures(errors, warn, stack)
        progress(0, total)
        for batch in stack.enter_context(contextlib.closing(batches)):
            interruption.check()
            failures.add(batch.failures)
            if batch.names:
                parts.append(finite_features(network.model, batch.images, "embed", network.name))
                names += batch.names
            progress(len(names) + failures.count, total)
        failures.require_any_read(total)
    metadata = {**_metadata(network), "data": {"pictures": len(names), "failed": failures.count}}
    found = errors if failures.count else None
    return Embeddings(
        np.concatenate(parts), None, None, np.array(names, dtype=np.str_), metadata, None, found, failures.count
    )


# --- where they are from


def _metadata(network: FrozenNetwork) -> dict[str, Any]:
    """Return version, network, weights, preprocessing and task as plain values."""
    model, target = network.model, network.target
    spec, transfer = model.spec, model.transfer
    assert spec is not None
    weights = {"fingerprint": network_fingerprint(model)}
    if target is None:
        assert transfer is not None
        weights |= {"source": transfer.source, "sha256": transfer.sha256 or ""}
    else:
        weights |= {"checkpoint": target.checkpoint.name, "run": "" if target.run is None else target.run.path.name}
        weights |= {"config_hash": target.config_hash or ""}
    return {
        "visionforge": own_version(),
        "network": {
            "name": network.name,
            "backbone": model.settings.backbone.model_dump(mode="json", exclude={"weights"}),
        },
        "weights": weights,
        "preprocessing": spec.model_dump(mode="json", exclude={"dataset", "task", "classes", "flags", "positive"}),
        "task": spec.task,
        "classes": list(spec.classes),
    }
