"""Write a sharded archive: from one that is here, or from blocks of images of any number that come one by one."""

import filecmp
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import check_labels
from visionforge.data.download import data_root
from visionforge.data.import_files import LOCK_TIMEOUT_S, check_free, entry_path, write_entry, write_npz
from visionforge.data.info import SHARDS, SPLITS, Archive, DatasetInfo, Split, Splits
from visionforge.data.npy import npy_header
from visionforge.data.registry import is_builtin
from visionforge.data.shard_index import FORMAT, LABELS, MAX_INDEX, MAX_SHARDS, shard_folder
from visionforge.data.side_table import SideTable, side_members
from visionforge.data.source import load_split, offered_resolution, prepare, stored_side_table
from visionforge.errors import DataError, SettingsError
from visionforge.fetch import OBJECT_STORES, Checksum, transfer_bar
from visionforge.runs.files import write_atomic
from visionforge.runs.locks import LockedError, held
from visionforge.runs.paths import shown

log = logging.getLogger(__name__)

SHARD_MB = 64
MIN_SHARD_MB, MAX_SHARD_MB = 0.01, 4096
READ_BYTES = 1 << 24  # of images that are copied together
_NAME = re.compile(r"[a-z0-9_]{1,60}")
Block = tuple[Split, npt.NDArray[np.uint8], npt.NDArray[Any]]


@dataclass(frozen=True)
class Sharded:
    """A sharded archive that was written.

    Attributes:
        info: The catalog entry.
        index: Its index.
        entry: The file of the catalog entry.
        shards: Number of its shards.
        size: Bytes of all files of its folder.
    """

    info: DatasetInfo
    index: Path
    entry: Path
    shards: int
    size: int

    def lines(self) -> list[str]:
        """Return it as a terminal shows it."""
        archive = next(iter(self.info.archives.values()))
        where = [] if archive.url is None else [f"  put {shown(self.index)} and its folder where {archive.url} says"]
        return [
            f"✓ {shown(self.index)}: {self.info.images:,} images in {self.shards:,} files, {self.size:,} bytes",
            f"✓ {self.entry}",
            *where,
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.info.name,
            "index": str(self.index),
            "entry": str(self.entry),
            "images": self.info.splits.model_dump(),
            "shards": self.shards,
            "bytes": self.size,
        }


def shard_dataset(
    info: DatasetInfo,
    name: str,
    *,
    resolution: int | None = None,
    root: str | Path | None = None,
    output: str | Path | None = None,
    shard_mb: float = SHARD_MB,
    url: str | None = None,
    replace: bool = False,
) -> Sharded:
    """Copy a data set into shards, as a data set of another name; an archive is not read into memory.

    Args:
        info: The data set.
        name: Catalog name of the copy.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.
        output: Folder of the copy; None is `root`.
        shard_mb: Size of a shard, in 10⁶ bytes, 0.01 to 4096.
        url: Address of the folder into which the copy will be put on a server, for the catalog entry.
        replace: A catalog entry of that name may be there, and is written anew; its files are kept.

    Raises:
        SettingsError: If an argument is not allowed.
        DataError: If the archive is missing or damaged, the name is taken, or a file cannot be written.
    """
    size = offered_resolution(info, resolution)
    where = None if root is None else str(root)
    _check_arguments(name, shard_mb, url)
    _require_labels(info)
    check_free(name, replace)
    prepare(info, size, where, download=False)

    def blocks() -> Iterator[Block]:
        for split in SPLITS:
            arrays = load_split(info, size, where, split)
            step = max(1, READ_BYTES // info.image_bytes(size))
            for start in range(0, len(arrays.images), step):
                yield split, np.asarray(arrays.images[start : start + step]), arrays.labels[start : start + step]

    tables = {split: stored_side_table(info, size, where, split) for split in SPLITS}
    copy = info.model_copy(update={"name": name, "title": f"{info.title}, sharded"})
    return write_shards(
        copy, size, blocks(), output=output or where, shard_mb=shard_mb, url=url, replace=replace, tables=tables
    )


def write_shards(
    info: DatasetInfo,
    resolution: int,
    blocks: Iterable[Block],
    *,
    output: str | Path | None = None,
    shard_mb: float = SHARD_MB,
    url: str | None = None,
    replace: bool = False,
    tables: Mapping[Split, SideTable] | None = None,
) -> Sharded:
    """Write blocks of images as a sharded archive and its entry; in memory are a shard of each split and labels.

    Nothing is visible under its name before it is whole, and what a killed process left is removed by the next one of
    that name. The same images in the same order give the same files, however they are divided into blocks.

    Args:
        info: The catalog entry; number of images and archives are those of what is written.
        resolution: Height and width R of the images, and depth of volumes.
        blocks: Split, images (N, R, R) or (N, R, R, 3) uint8, of volumes (N, R, R, R[, 3]), and their labels as an
            archive has them; in any order, any number.
        output: Folder of the archive; None is where archives lie by default.
        shard_mb: Size of a shard, in 10⁶ bytes, 0.01 to 4096.
        url: Address of the folder into which the files will be put on a server, for the catalog entry.
        replace: A catalog entry of that name may be there, and is written anew; its files are kept.
        tables: Names, groups and columns of all images of each split.

    Raises:
        SettingsError: If an argument is not allowed.
        DataError: If images or labels are not what the entry says, a split is empty, the name is taken, or a file
            cannot be written.
    """
    _check_arguments(info.name, shard_mb, url)
    _require_labels(info)
    check_free(info.name, replace)
    folder = data_root(None if output is None else str(output))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / f".{info.name}.import.lock", f"name: {info.name!r}", LOCK_TIMEOUT_S):
            work = folder / f".{info.name}.writing.shards"
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; nothing else has this name
            work.mkdir()
            try:
                return _write(work, info, resolution, blocks, int(shard_mb * 1e6), url, replace, tables or {})
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except LockedError as error:
        raise DataError(f"{folder}: {error.problems[0]}") from error
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from error


def _check_arguments(name: str, shard_mb: float, url: str | None) -> None:
    if not _NAME.fullmatch(name) or is_builtin(name):
        allowed = "it is built in" if is_builtin(name) else "allowed: small letters, digits and _, at most 60"
        raise SettingsError(f"name: {name!r} is not allowed; {allowed}")
    if not MIN_SHARD_MB <= shard_mb <= MAX_SHARD_MB:
        raise SettingsError(f"shard_mb: {shard_mb:g} is not allowed; allowed: {MIN_SHARD_MB} to {MAX_SHARD_MB}")
    if url is not None and (urlsplit(url).scheme not in ("https", *OBJECT_STORES) or urlsplit(url).query):
        schemes = ", ".join(("https", *OBJECT_STORES))
        raise SettingsError(f"url: {url!r} is not allowed; allowed: the address of a folder, by {schemes}")


def _require_labels(info: DatasetInfo) -> None:
    forms = task_named(info.task).forms
    if not {"classes", "labels"} & set(forms):
        raise SettingsError(
            f"{info.name}: its images have {forms[0]}; only data sets with classes or labels are sharded"
        )


@dataclass
class _Split:
    """What was written of a split: its shards and labels, and the images of the next shard."""

    waiting: npt.NDArray[np.uint8]
    held: int = 0  # images that wait
    images: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)
    labels: list[npt.NDArray[Any]] = field(default_factory=list)


def _write(
    work: Path,
    info: DatasetInfo,
    resolution: int,
    blocks: Iterable[Block],
    shard_bytes: int,
    url: str | None,
    replace: bool,
    tables: Mapping[Split, SideTable],
) -> Sharded:
    shape = info.image_shape(resolution)
    each = max(1, shard_bytes // prod(shape))
    parts: dict[Split, _Split] = {split: _Split(np.empty((each, *shape), np.uint8)) for split in SPLITS}
    with transfer_bar(info.name, None) as advance:
        for split, images, labels in blocks:
            _check_block(split, images, labels, shape)
            part = parts[split]
            part.labels.append(np.array(labels))  # whoever yields may use the array again
            part.images += len(images)
            for start in range(0, len(images), each):
                for some in np.split(images[start : start + each], [each - part.held]):
                    part.waiting[part.held : part.held + len(some)] = some
                    part.held += len(some)
                    if part.held == each:
                        _flush(work, split, part, advance)
        for split, part in parts.items():
            _flush(work, split, part, advance)
    if empty := [split for split in SPLITS if not parts[split].images]:
        raise DataError(f"{info.name}: there is no image of {', '.join(empty)}; each split needs one")
    content: dict[str, npt.NDArray[Any]] = {}
    notes: list[str] = []
    for split, part in parts.items():
        labels = np.concatenate(part.labels)
        part.labels = []
        check_labels(labels, info, f"{info.name}: labels of {split}", len(labels), resolution)
        content[f"{split}_labels"] = labels.astype(np.uint8 if labels.max(initial=0) < 1 << 8 else np.int64)
        content |= side_members(tables[split], split, notes) if split in tables else {}
    write_npz(work / LABELS, content)
    files: dict[str, list[dict[str, Any]]] = {split: part.shards for split, part in parts.items()}
    index: dict[str, Any] = {"format": FORMAT, "shape": list(shape), "labels": _described(work / LABELS), **files}
    text = json.dumps(index) + "\n"
    md5 = hashlib.md5(text.encode()).hexdigest()
    target = work.with_name(f"{info.name}-{md5[:12]}{SHARDS}")
    if len(text) > MAX_INDEX:
        raise DataError(f"{info.name}: {sum(map(len, files.values())):,} shards are too many; raise shard_mb")
    kept = shard_folder(target)
    if not kept.exists():
        work.replace(kept)
    elif not all(filecmp.cmp(file, kept / file.name, shallow=False) for file in work.iterdir()):
        raise DataError(f"{kept}: is there already, with other content; move it away")
    write_atomic(target, text)
    address = None if url is None else f"{url.rstrip('/')}/{target.name}"
    counts = Splits(train=parts["train"].images, val=parts["val"].images, test=parts["test"].images)
    entry = info.model_copy(
        update={
            "splits": counts,
            "archives": {resolution: Archive(url=address, md5=md5, file=target.name)},
            "resolutions": (resolution,),
            "original": None,
            "source": "archive",
        }
    )
    for note in notes:
        log.warning("%s: %s", info.name, note)
    entry_path(info.name).parent.mkdir(parents=True, exist_ok=True)
    with held(Path(f"{entry_path(info.name)}.lock"), f"name: {info.name!r}", LOCK_TIMEOUT_S):
        check_free(info.name, replace)
        write_entry(entry)
    shards = list(chain(*files.values()))
    total = sum(shard["bytes"] for shard in shards) + index["labels"]["bytes"]
    return Sharded(entry, target, entry_path(info.name), len(shards), total)


def _check_block(split: str, images: npt.NDArray[Any], labels: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if split not in SPLITS:
        raise DataError(f"split: {split!r} is not allowed; allowed: {', '.join(SPLITS)}")
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise DataError(
            f"{split}: images of {images.dtype} with the shape {images.shape}, expected uint8 (N, "
            f"{', '.join(map(str, shape))})"
        )
    if len(labels) != len(images):
        raise DataError(f"{split}: {len(labels):,} labels for {len(images):,} images")


def _flush(work: Path, split: str, part: _Split, advance: Callable[[int], None]) -> None:
    """Write the images that wait as a shard."""
    if not part.held:
        return
    if len(part.shards) == MAX_SHARDS:
        raise DataError(f"{split}: more than {MAX_SHARDS:,} shards; raise shard_mb")
    images = part.waiting[: part.held]
    path, header = work / f"{split}-{len(part.shards):06d}.npy", npy_header(images.shape, images.dtype)
    with path.open("wb") as file:
        file.write(header)
        file.write(images.data)
    part.shards.append({**_described(path), "images": part.held, "offset": len(header)})
    part.held = 0
    advance(images.nbytes)


def _described(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": Checksum("sha256", "").of(path)}
