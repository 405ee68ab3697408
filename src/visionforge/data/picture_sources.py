"""Which pictures folders, files and archives hold; nothing is decoded here, and nothing of it needs torch."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from visionforge.config.schema.data import MAX_VOLUME_RESOLUTION
from visionforge.data.dicom import is_dicom, pydicom_problem
from visionforge.data.dicom_series import stand_ins
from visionforge.data.info import SPLITS, Split
from visionforge.data.nifti import nibabel_problem
from visionforge.data.npy import read_header
from visionforge.data.pictures import SUFFIXES
from visionforge.data.volume_files import VOLUME_SUFFIXES, is_volume
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError, SettingsError

MAX_ARCHIVE_PIXELS = 1 << 24  # of one image in an archive, of which some are in memory at a time: 4096 × 4096
JUNK = frozenset(  # beside what is hidden: left by macOS, Windows, Linux and disk stations; lower case
    (
        *("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("lost+found", "@eadir", "#recycle", "__pycache__"),
    )
)


@dataclass(frozen=True)
class PictureFiles:
    """Picture files, in the order in which they are read.

    Attributes:
        paths: The files, as text, which takes less memory than `Path` objects.
        of_folder: They were found in a folder; else they were named.
    """

    paths: Sequence[str]
    of_folder: bool = False

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ArchiveImages:
    """One array of images in an NPZ archive, of which the header has been checked.

    Attributes:
        path: The archive.
        member: Name of the array, for instance `test_images`.
        shape: (N, H, W) or (N, H, W, C) with C 1 or 3; of cubic volumes (N, R, R, R) or (N, R, R, R, C).
    """

    path: Path
    member: str
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def spatial_dims(self) -> int:
        """Return 2 for images, 3 for volumes."""
        return _spatial_dims(self.shape)

    def name(self, row: int) -> str:
        """Return what a table calls an image, for instance ``archive.npz:test/000123``."""
        return f"{self.path}:{self.member.removesuffix('_images')}/{row:06d}"


def list_pictures(
    sources: Sequence[Path], split: Split | None = None, where: str = "pictures", own: Path | None = None
) -> list[PictureFiles | ArchiveImages]:
    """Return what folders, files and archives hold, in the order in which they are given.

    A folder gives the files in it and below whose names end as those of pictures or volumes, sorted by name, of which
    `read_by` leaves one kind; hidden files and folders are skipped, and links to folders are not followed, which might
    lead in circles. A file is taken whatever its suffix, but an `.npz` archive gives its images: those of `split`, else
    the array `images` or the only one.

    Args:
        sources: Folders, files and archives.
        split: Split of archives that have several; None prefers `test`, and takes an archive without splits, too.
        where: What the sources were given as, for messages.
        own: A folder of what is about to be written, of which nothing is taken where it lies in one of the sources.

    Raises:
        SettingsError: If there is no such split.
        DataError: If one does not exist, cannot be listed, holds no pictures, or is NIfTI without the package for it.
    """
    if split is not None and split not in SPLITS:
        raise SettingsError(f"split: {split} is not allowed; allowed: {', '.join(SPLITS)}")
    listed: list[PictureFiles | ArchiveImages] = []
    problems: list[str] = []
    for source in sources:
        try:
            if source.is_dir():
                found = [path for path in walk_files(source, own) if is_picture(path) or is_volume(path)]
                listed.append(PictureFiles(found, of_folder=True))
                if not listed[-1]:
                    suffixes = ", ".join(sorted({*SUFFIXES, *VOLUME_SUFFIXES}))
                    problems.append(f"{where}: {source} holds no pictures ({suffixes})")
            elif not source.is_file():
                what = "is neither a file nor a folder" if source.exists() else "does not exist"
                problems.append(f"{where}: {source} {what}")
            elif source.suffix.lower() == ".npz":
                listed.append(open_images(source, split, where))
            else:
                listed.append(PictureFiles([str(source)]))
        except DataError as error:
            problems += error.problems
        except OSError as error:
            problems.append(f"{where}: {error.filename or source}: {(error.strerror or str(error)).lower()}")
    paths = [path for source in listed if isinstance(source, PictureFiles) for path in source.paths]
    problems += [f"{where}: {problem}" for problem in (nibabel_problem(paths), pydicom_problem(paths)) if problem]
    if problems:
        raise DataError(problems)
    return listed


def read_by(listed: Sequence[PictureFiles | ArchiveImages], spatial_dims: int) -> list[PictureFiles | ArchiveImages]:
    """Return what a network reads: of folders with pictures and volumes one of both, of a DICOM series its first slice.

    What was named is read in any case, so that it is told why it cannot be.

    Args:
        listed: What `list_pictures` has found.
        spatial_dims: Those of the network: 2 takes pictures, 3 volumes, of which slices are a part.
    """
    fits = is_picture if spatial_dims == 2 else _is_of_volume
    files = [each for each in listed if isinstance(each, PictureFiles)]
    lists = [
        [path for path in each.paths if fits(path)] or each.paths if each.of_folder else each.paths for each in files
    ]
    if spatial_dims == 3:  # slices of a series may have been named one by one
        stands = iter([k == first for k, first in enumerate(stand_ins([path for paths in lists for path in paths]))])
        lists = [[path for path in paths if next(stands)] for paths in lists]
    found = iter([PictureFiles(paths) for paths in lists])
    return [next(found) if isinstance(each, PictureFiles) else each for each in listed]


def _is_of_volume(path: str) -> bool:
    return is_volume(path) or is_dicom(path)


def is_junk(name: str) -> bool:
    """Return whether a file or folder is hidden, or one of those that systems leave beside people's own."""
    return name.startswith(".") or name.casefold() in JUNK


def is_picture(path: str | Path) -> bool:
    """Return whether a file's name ends as that of a picture, or it is one of DICOM without such a name."""
    return Path(path).suffix.lower() in SUFFIXES or is_dicom(path)


def walk_pictures(folder: Path) -> Iterator[str]:
    """Yield the pictures of a folder and of those below it, each folder sorted by name; see `walk_files`."""
    return filter(is_picture, walk_files(folder))


def walk_volumes(folder: Path) -> Iterator[str]:
    """Yield the volumes of a folder and of those below it, each folder sorted by name; see `walk_files`."""
    return filter(is_volume, walk_files(folder))


def walk_files(folder: Path, without: Path | None = None) -> Iterator[str]:
    """Yield the files of a folder and of those below it, each folder sorted by name.

    What is hidden, or left by a system, is skipped; links to folders are not followed.

    Args:
        folder: The folder.
        without: A folder below it that is left out.
    """
    left_out = None if without is None else without.absolute()
    open_folders = [iter(_entries(str(folder)))]  # a stack of our own: folders may be nested deeper than calls may be
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif entry.is_dir(follow_symlinks=False):
            if Path(entry.path).absolute() != left_out:
                open_folders.append(iter(_entries(entry.path)))
        elif _is_file(entry):
            yield str(Path(entry.path))  # without the ./ of the working folder


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle, or where nobody may look
        return False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_junk(entry.name)), key=lambda entry: entry.name)


def open_images(path: Path, split: Split | None = None, where: str = "pictures") -> ArchiveImages:
    """Choose and check the images of an archive, without unpacking them.

    Args:
        path: The archive; it may come from strangers.
        split: See `list_pictures`.
        where: What it was given as, for messages.

    Raises:
        DataError: If it is no archive, or has no such array of uint8 images.
    """
    try:
        with open_zip(path) as archive:
            member = _choose(archive, split, where)
            entry = archive.getinfo(f"{member}.npy")
            with archive.open(entry) as file:
                shape, dtype = read_header(file)
                size = file.tell() + prod(shape) * dtype.itemsize
    except zipfile.BadZipFile as error:
        raise DataError(f"{where}: {path} is no complete NPZ archive") from error
    except READ_ERRORS as error:
        raise DataError(f"{where}: {path} cannot be read as an NPZ archive ({error})") from error
    problem = None
    if dtype != np.uint8:
        kind = "Python objects, which are never loaded" if dtype.hasobject else str(dtype)
        problem = f"holds {kind}; images are uint8"
    elif not _spatial_dims(shape):
        problem = f"has the shape {shape}; images are (N, H, W) or (N, H, W, 3), volumes (N, R, R, R)"
    elif _spatial_dims(shape) == 3 and shape[1] > MAX_VOLUME_RESOLUTION:
        problem = f"has volumes of {shape[1]} voxels along each axis, more than {MAX_VOLUME_RESOLUTION}"
    elif shape[1] * shape[2] > MAX_ARCHIVE_PIXELS:
        problem = f"has images of {shape[2]}×{shape[1]} pixels, more than {MAX_ARCHIVE_PIXELS:,}"
    elif entry.file_size != size:
        problem = f"unpacks to {entry.file_size:,} bytes, expected {size:,}"
    if problem:
        raise DataError(f"{where}: {path}: {member} {problem}")
    return ArchiveImages(path, member, shape)


def _spatial_dims(shape: tuple[int, ...]) -> int:
    """Return what an array holds: 2 for images, 3 for volumes, which are cubes, 0 for neither."""
    if min(shape, default=0) < 1:
        return 0
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)):
        return 2
    cubes = len(shape) in (4, 5) and shape[1] == shape[2] == shape[3]
    return 3 if cubes and (len(shape) == 4 or shape[4] in (1, 3)) else 0


def _choose(archive: zipfile.ZipFile, split: Split | None, where: str) -> str:
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    wanted = f"{split or 'test'}_images"
    if wanted in names:
        return wanted
    splits = [name for name in SPLITS if f"{name}_images" in names]
    if split is None and not splits and ("images" in names or len(names) == 1):
        return "images" if "images" in names else names[0]
    hint = f"; choose with `split`: {', '.join(splits)}" if splits else ""
    present = ", ".join(sorted(names)[:8]) or "none"
    raise DataError(f"{where}: {archive.filename} has no array {wanted} (it has: {present}){hint}")
