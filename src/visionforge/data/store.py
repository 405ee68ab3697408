"""From an archive to memory-mapped arrays: unpacked once, verified, and mapped ever after.

A compressed archive is unpacked into a folder of ``.npy`` files with a manifest; an archive whose members are stored
uncompressed is mapped in place. The folder is written beside its final place under a lock and renamed, so it is there
whole or not at all; it is rebuilt when the archive has changed or a member is damaged.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import (
    SplitArrays,
    check_labels,
    check_split_labels,
    md5_of,
    verify_archive,
)
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.mapped_labels import check_mapped, write_as_bytes
from visionforge.data.npy import read_header
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError
from visionforge.reading import read_json
from visionforge.runs.files import write_atomic
from visionforge.runs.locks import LockedError, held
from visionforge.runs.paths import cache_folder

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest; another one is rebuilt
CHUNK_BYTES = 1 << 22
WHOLE_BYTES = 1 << 24  # up to here a member's checksum is computed at every opening; that takes about 10 ms
PROBES, PROBE_BYTES = 64, 1 << 16  # above, so many blocks of that size are checked, evenly spread
LOCK_TIMEOUT_S = 3600.0  # another process is unpacking the same archive
SPARE_BYTES = 64 << 20  # disk that is left for everybody else
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # of a ZIP member; the last two are the lengths of name and extra field


class StoreError(DataError):
    """The unpacked arrays cannot be written; the archive itself is good."""


@dataclass(frozen=True)
class Member:
    """Where one array lies.

    Attributes:
        path: The file.
        offset: Bytes before the first element.
        shape: Shape of the array.
        dtype: Type of its elements.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def map(self) -> npt.NDArray[Any]:
        """Return the array as a read-only memory map."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)


def store_folder() -> Path:
    """Return the folder of unpacked arrays: $VISIONFORGE_CACHE, or else the user's cache folder."""
    return cache_folder() / "arrays"


def open_split(path: Path, info: DatasetInfo, resolution: int, split: Split) -> SplitArrays:
    """Return one split of an archive as memory maps; labels are in memory, unless they are as large as the images.

    Masks of a larger type than uint8 were unpacked as that.

    Args:
        path: The archive.
        info: Its catalog entry.
        resolution: Height and width of the images, and depth of volumes.
        split: Which split.

    Raises:
        DataError: If the archive is not what the catalog says, or cannot be unpacked.
    """
    members = open_archive(path, info, resolution)
    images, labels = (members[f"{split}_{kind}"].map() for kind in ("images", "labels"))
    task = task_named(info.task)
    if task.maps_labels:  # their values were checked when they were unpacked
        bytewise = labels.dtype == np.uint8  # as the batches of a map are read; tasks of others may keep other types
        return SplitArrays(images, labels if bytewise else task.stored(np.asarray(labels), len(images)))
    return SplitArrays(images, check_labels(np.array(labels), info, f"{path}: {split}_labels", len(images), resolution))


def open_archive(path: Path, info: DatasetInfo, resolution: int) -> dict[str, Member]:
    """Return where the six arrays of an archive lie, unpacking and verifying it at its first use.

    Raises:
        DataError: If the archive is not what the catalog says, or cannot be unpacked.
        StoreError: If there is no room, or no permission, for the unpacked arrays.
    """
    folder = unpacked_folder(path)
    expected = info.archives[resolution].md5 if resolution in info.archives else None
    members = _read_store(folder, path, expected)
    if members is not None:
        return members
    verify_archive(path, info, resolution)
    if not task_named(info.task).maps_labels:  # those are looked at where they lie
        for split in SPLITS:
            check_split_labels(path, info, split, resolution)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(Path(f"{folder}.lock"), f"{path}: unpacking", LOCK_TIMEOUT_S):
            members = _read_store(folder, path, expected)  # another process may have been faster
            return members if members is not None else _build_store(folder, path, info, resolution)
    except LockedError as error:
        owner = error.owner or "another process"
        raise StoreError(f"{folder}: {owner} has held its lock for {LOCK_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise StoreError(
            f"{folder}: the unpacked arrays cannot be written ({error.strerror or error}); "
            "set the environment variable VISIONFORGE_CACHE to a folder with room"
        ) from error


def stored_md5(path: Path) -> str:
    """Return the MD5 of an archive, from its manifest if that is current."""
    try:
        manifest = read_json(unpacked_folder(path) / MANIFEST)
        stat = path.stat()
        if (manifest["size"], manifest["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return str(manifest["md5"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is no usable manifest
    return md5_of(path)


def unpacked_folder(path: Path) -> Path:
    """Return where an archive's arrays are unpacked; archives of the same name in other places have their own."""
    return store_folder() / f"{path.stem}-{hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()}"


# --- reading


def _read_store(folder: Path, source: Path, expected_md5: str | None) -> dict[str, Member] | None:
    """Return the members of a store that is there, current and undamaged; None otherwise."""
    try:
        manifest = read_json(folder / MANIFEST)
        stat = source.stat()
        current = (manifest["format"], manifest["size"], manifest["mtime_ns"]) == (
            FORMAT,
            stat.st_size,
            stat.st_mtime_ns,
        )
        if not current or (expected_md5 is not None and manifest["md5"] != expected_md5):
            log.info("%s has changed; its arrays are unpacked again", source.name)
            return None
        members = {}
        for name, entry in manifest["members"].items():
            path = source if entry["in_place"] else folder / f"{name}.npy"
            member = Member(path, int(entry["offset"]), tuple(entry["shape"]), np.dtype(entry["dtype"]))
            if not entry["in_place"] and _checksum(member) != entry["checksum"]:
                log.warning("%s: %s is damaged; the arrays are unpacked again", folder, name)
                return None
            members[name] = member
        return members
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s: unreadable (%s); the arrays are unpacked again", folder, error)
        return None


def _checksum(member: Member) -> int:
    """Return the CRC-32 of a member's file: of all of it, or of evenly spread blocks if it is large."""
    size = member.path.stat().st_size
    wanted = member.offset + int(np.prod(member.shape)) * member.dtype.itemsize
    if size != wanted:
        return -1
    with member.path.open("rb") as file:
        if size <= WHOLE_BYTES:
            return zlib.crc32(file.read())
        value = 0
        for position in np.linspace(0, size - PROBE_BYTES, PROBES).astype(np.int64).tolist():
            file.seek(position)
            value = zlib.crc32(file.read(PROBE_BYTES), value)
        return value


# --- building


def _build_store(folder: Path, source: Path, info: DatasetInfo, resolution: int) -> dict[str, Member]:
    """Unpack what is compressed in a verified archive, and write the manifest; the folder appears whole.

    Raises:
        DataError: If labels that are as large as images are not what the catalog says; others were looked at before.
    """
    stat, maps_labels = source.stat(), task_named(info.task).maps_labels
    with open_zip(source) as archive:
        names = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
        stored = [archive.getinfo(f"{name}.npy").compress_type == zipfile.ZIP_STORED for name in names]
        needed = sum(
            archive.getinfo(f"{name}.npy").file_size for name, mapped in zip(names, stored, strict=True) if not mapped
        )
        if shutil.disk_usage(folder.parent).free < needed + SPARE_BYTES:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:,.0f} MB are needed")
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            members, entries = {}, {}
            for name, plain in zip(names, stored, strict=True):
                info_zip = archive.getinfo(f"{name}.npy")
                member = _locate(source, info_zip) if plain else _unpack(archive, info_zip, work / f"{name}.npy")
                if maps_labels and name.endswith("_labels"):
                    check_mapped(member.map(), info, f"{source}: {name}", resolution)
                    member = _as_bytes(member, info, work / f"{name}.npy")
                there = member.path == source
                entries[name] = {
                    "in_place": there,
                    "offset": member.offset,
                    "shape": list(member.shape),
                    "dtype": member.dtype.str,
                    "checksum": None if there else _checksum(member),
                }
                members[name] = (
                    member if there else Member(folder / f"{name}.npy", member.offset, member.shape, member.dtype)
                )
            manifest = {
                "format": FORMAT,
                "source": source.name,
                "size": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "md5": md5_of(source),
                "members": entries,
            }
            write_atomic(work / MANIFEST, json.dumps(manifest, indent=1))
            _replace_folder(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    in_place = all(entry["in_place"] for entry in entries.values())
    log.info("%s: %s", source.name, "mapped in place" if in_place else f"unpacked once to {folder}")
    return members


def _as_bytes(member: Member, info: DatasetInfo, target: Path) -> Member:
    """Return labels as bytes in a file of their own, or as they are if that is what they are."""
    beside = target.with_suffix(".tmp")
    offset = write_as_bytes(member.map(), info, beside)
    if offset is None:
        return member
    beside.replace(target)
    return Member(target, offset, member.shape, np.dtype(np.uint8))


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> Member:
    """Copy one member to a file in pieces; the ZIP's own checksum is verified on the way."""
    try:
        with archive.open(member) as source, target.open("wb") as file:
            shape, dtype = read_header(source)
            offset = source.tell()
            source.seek(0)
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the archive
            raise
        raise _damaged(archive, member, error) from error
    except READ_ERRORS as error:
        raise _damaged(archive, member, error) from error
    return Member(target, offset, shape, dtype)


def _damaged(archive: zipfile.ZipFile, member: zipfile.ZipInfo, error: Exception) -> DataError:
    name = member.filename.removesuffix(".npy")
    return DataError(f"{archive.filename}: {name} cannot be unpacked ({error}); delete the file and get it again")


def _locate(source: Path, member: zipfile.ZipInfo) -> Member:
    """Return where the data of an uncompressed member lies inside the archive."""
    with source.open("rb") as file:
        file.seek(member.header_offset)
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        file.seek(start)
        shape, dtype = read_header(file)
        crc, remaining = 0, member.file_size
        offset = file.tell()
        file.seek(start)
        while remaining and (chunk := file.read(min(CHUNK_BYTES, remaining))):
            crc, remaining = zlib.crc32(chunk, crc), remaining - len(chunk)
    if crc != member.CRC:
        name = member.filename.removesuffix(".npy")
        raise DataError(f"{source}: {name} is damaged (checksum); delete the file and get it again")
    return Member(source, offset, shape, dtype)


def _replace_folder(new: Path, folder: Path) -> None:
    """Put a folder in the place of another; processes that have mapped the old files keep them."""
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
