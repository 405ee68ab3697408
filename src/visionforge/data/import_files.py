"""The two files of an imported data set, archive and catalog entry, which belong together whatever happens.

The archive's name carries a digest of its content, so that a new one never takes the place of an old one. The entry,
which names its archive, is written last; then the old archive is removed. A process that is killed before leaves the
old pair as it was, and an archive with a mark beside it, which the next import of that name removes.
"""

import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from visionforge.data.archive import md5_of
from visionforge.data.info import Archive, DatasetInfo
from visionforge.data.registry import catalog_folder, dataset_info, dataset_names
from visionforge.errors import DataError
from visionforge.runs.files import write_atomic
from visionforge.runs.locks import held

DIGEST = 12  # hexadecimal digits
MARK = ".unfinished"  # beside an archive whose entry has not been written yet
LOCK_TIMEOUT_S = 600.0  # another import is writing


def entry_path(name: str) -> Path:
    """Return where the catalog entry of an imported data set lies."""
    return catalog_folder() / f"{name}.yaml"


def is_imported(info: DatasetInfo) -> bool:
    """Return whether archives and entry of a data set were written by an import: a digest is in the archives' names."""
    files = {info.archive_name(resolution): archive.url for resolution, archive in info.archives.items()}
    ours = bool(files) and all(
        url is None and _is_ours(file, info.name) and re.search("-[0-9a-f]+[.]npz$", file)
        for file, url in files.items()
    )
    return ours and entry_path(info.name).is_file()


def held_for_import(name: str, folder: Path) -> contextlib.AbstractContextManager[None]:
    """Return a context in which no import of that name writes into a folder of archives."""
    return held(folder / f".{name}.import.lock", f"name: {name!r}", LOCK_TIMEOUT_S)


def check_free(name: str, replace: bool) -> None:
    """Raise DataError if an entry of that name is there and must not be replaced."""
    entry = entry_path(name)
    if entry.exists() and not replace:
        raise DataError(f"name: {name!r} exists already ({entry}); choose another name, or add `replace`")


def write_pair(
    info: DatasetInfo, resolution: int, content: Mapping[str, npt.NDArray[Any]], folder: Path, replace: bool
) -> tuple[DatasetInfo, Path]:
    """Write archive and entry, and remove what they replace.

    Args:
        info: The entry, without its archive.
        resolution: Height and width of the images.
        content: The arrays by name.
        folder: Where archives lie.
        replace: An entry of that name may be there.

    Returns:
        The entry as it was written, and the path of the archive.

    Raises:
        DataError: If the name has been taken meanwhile, or a file cannot be written.
    """
    entry = entry_path(info.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entry.parent.mkdir(parents=True, exist_ok=True)
        with held_for_import(info.name, folder):
            _remove_unfinished(info.name, folder)
            check_free(info.name, replace)
            with _archive(info, resolution, content, folder) as path:
                archive = Archive(url=None, md5=md5_of(path), file=path.name)
                places = {"archives": {resolution: archive}, "resolutions": (resolution,), "original": None}
                info = info.model_copy(update=places)  # it is made of nothing else now
                with held(Path(f"{entry}.lock"), f"name: {info.name!r}", LOCK_TIMEOUT_S):
                    check_free(info.name, replace)
                    old = _archives_of_entry(info.name)
                    write_entry(info)
            for name in old - {path.name}:
                if _is_ours(name, info.name) and name not in named_by_entries():
                    (folder / name).unlink(missing_ok=True)
            return info, path
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from error


def write_entry(info: DatasetInfo) -> None:
    """Write an entry into the user's catalog."""
    text = yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=118)
    write_atomic(entry_path(info.name), text)


@contextlib.contextmanager
def _archive(
    info: DatasetInfo, resolution: int, content: Mapping[str, npt.NDArray[Any]], folder: Path
) -> Iterator[Path]:
    """Put an archive in its place, marked until the block ends; an error in the block takes it away again."""
    temporary = _temporary(info.name, folder)
    try:
        write_npz(temporary, content)
        stem = info.archive_name(resolution).removesuffix(".npz")
        path = folder / f"{stem}-{md5_of(temporary)[:DIGEST]}.npz"
        mark, new = path.with_name(path.name + MARK), not path.exists()
        mark.touch()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        yield path
    except BaseException:
        if new:
            path.unlink(missing_ok=True)
        raise
    finally:
        mark.unlink(missing_ok=True)


def _temporary(name: str, folder: Path) -> Path:
    return folder / f".{name}.writing.npz"


def write_npz(path: Path, content: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an NPZ: images and labels uncompressed, since they are mapped in place later, and texts compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in content.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # without the time, so that equal content gives equal bytes
            member.compress_type = zipfile.ZIP_DEFLATED if array.dtype.kind == "U" else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


# --- what was there before


def _remove_unfinished(name: str, folder: Path) -> None:
    """Remove what a killed import of that name left; whoever calls holds its lock."""
    _temporary(name, folder).unlink(missing_ok=True)
    named = None
    for mark in folder.glob(f"{name}*{MARK}"):
        path = mark.with_name(mark.name.removesuffix(MARK))
        if not _is_ours(path.name, name):
            continue
        named = named_by_entries() if named is None else named
        if path.name not in named:
            path.unlink(missing_ok=True)
        mark.unlink()


def _is_ours(file: str, name: str) -> bool:
    """Return whether a file has the name of an archive that an import of that name writes, or once wrote."""
    return re.fullmatch(rf"{re.escape(name)}(_[0-9]+)?(-[0-9a-f]{{{DIGEST}}})?\.npz", file) is not None


def _archives_of_entry(name: str) -> set[str]:
    try:
        info = dataset_info(name)
    except (
        Exception
    ):  # none, or one that cannot be read and so names nothing; that of another package may raise anything
        return set()
    return {info.archive_name(resolution) for resolution in info.archives}


def named_by_entries(but: str | None = None) -> set[str]:
    """Return the archives that entries name, those of one data set left out."""
    return {file for name in dataset_names() if name != but for file in _archives_of_entry(name)}
