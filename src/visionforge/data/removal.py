"""What a data set takes on the disk, archives, their unpacked arrays and an entry of its own, and its removal."""

import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionforge.data.archive import md5_of
from visionforge.data.download import data_root
from visionforge.data.import_files import entry_path, held_for_import, is_imported, named_by_entries
from visionforge.data.info import DatasetInfo
from visionforge.data.registry import dataset_info
from visionforge.data.shard_index import is_sharded
from visionforge.data.store import unpacked_folder
from visionforge.errors import DataError
from visionforge.runs.files import bytes_of


@dataclass
class Removal:
    """What was found of a data set, and whether it was removed.

    Attributes:
        name: Of the data set.
        sizes: File or folder → its bytes.
        notes: What is kept, and why, a line each.
        removed: It is gone.
    """

    name: str
    sizes: dict[Path, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    removed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        sizes = {str(path): size for path, size in self.sizes.items()}
        return {"name": self.name, "bytes": sizes, "notes": self.notes, "removed": self.removed}


def disk_bytes(info: DatasetInfo, root: str | None = None) -> int:
    """Return how many bytes the archives of a data set and their unpacked arrays take."""
    paths = _archives(info, root)
    return sum(bytes_of(path) + bytes_of(unpacked_folder(path)) for path in paths)


def remove_dataset(
    name: str, *, resolution: int | None = None, root: str | None = None, remove: bool = False
) -> Removal:
    """Find what a data set takes on the disk, and remove it if that is wanted.

    Removed are archives that are what the catalog says, by their MD5, and can be downloaded or made again, or that an
    import of that name has written; their unpacked arrays; and of imported data sets the catalog entry. What another
    entry names, too, is kept, and so are the pictures that an archive was made of.

    Args:
        name: Of the data set.
        resolution: Only this archive; None is all of them.
        root: Folder of the archives.
        remove: Remove it; else it is only found.

    Raises:
        SettingsError: If the data set is unknown.
        DataError: If it has no such archive, consists of shards, or a file cannot be removed.
    """
    info, found, folder = dataset_info(name), Removal(name), data_root(root)
    if resolution is not None and resolution not in info.archives:
        there = ", ".join(map(str, sorted(info.archives)))
        raise DataError(f"resolution: {name} has no archive of {resolution} pixels; it has: {there}")
    with held_for_import(name, folder) if is_imported(info) else contextlib.nullcontext():
        info = dataset_info(name)  # an import may just have written another
        imported, others = is_imported(info), named_by_entries(but=name)
        for side in info.archives if resolution is None else (resolution,):
            _look(found, info, side, folder, imported, others)
        whole = resolution is None or len(info.archives) == 1
        if imported and whole and not found.notes:
            found.sizes[entry_path(name)] = bytes_of(entry_path(name))
        if remove:
            for path in found.sizes:
                _remove(path)
            found.removed = True
    return found


def _look(found: Removal, info: DatasetInfo, side: int, folder: Path, imported: bool, others: set[str]) -> None:
    """Add what an archive takes, or why it is kept."""
    path, archive = folder / info.archive_name(side), info.archives[side]
    if is_sharded(path):
        raise DataError(f"{path}: is the index of shards, whose folder is yours to remove")
    if path.is_file():
        again = archive.url is not None or info.original is not None or imported
        if archive.md5 is None or md5_of(path) != archive.md5:
            found.notes.append(f"{path} is not the archive that the catalog describes")
        elif not again:
            found.notes.append(f"{path} lies on this machine only, and no import has written it")
        elif path.name in others:
            found.notes.append(f"{path} is named by another entry, too")
        else:
            found.sizes[path] = bytes_of(path)
    elif imported:
        found.notes.append(f"{path} is not there, so the entry is kept; name its folder with `root`")
    if (arrays := unpacked_folder(path)).is_dir():
        found.sizes[arrays] = bytes_of(arrays)


def _archives(info: DatasetInfo, root: str | None, resolution: int | None = None) -> list[Path]:
    folder = data_root(root)
    return [folder / info.archive_name(side) for side in info.archives if resolution in (None, side)]


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be removed ({error.strerror or error})") from error
