"""Where the published files of a data set are on this machine, and how missing ones are got."""

import hashlib
import logging
import os
from contextlib import ExitStack
from pathlib import Path

from visionforge.data.fetch_once import fetch_once
from visionforge.data.formats.pool import READ_ERRORS, open_unpacked
from visionforge.data.info import DatasetInfo
from visionforge.data.originals import Original, OriginalFile
from visionforge.errors import DataError
from visionforge.fetch import Retries
from visionforge.runs.paths import shown

log = logging.getLogger(__name__)

ENVIRONMENT = "VISIONFORGE_ORIGINALS"  # further folders with published files
MAX_UNPACKED = 100  # times the bytes of a .gz file; images of clothes unpack to twice as many
_CHUNK = 1 << 20


def published_files(
    info: DatasetInfo, original: Original, folder: Path, download: bool, retries: Retries
) -> dict[str, Path]:
    """Return where the published files are, by their names; missing ones are downloaded if that is allowed.

    They are looked for in the folder of the archives, in a folder there that is named after the data set, in those of
    $VISIONFORGE_ORIGINALS, and where packages of an operating system put them.

    Args:
        info: The data set.
        original: What its entry says of the files.
        folder: Folder of the archives.
        download: Download what is missing.
        retries: How often and how patiently that is tried.

    Raises:
        DataError: If one is missing or is not what the catalog says; the message says how to place it by hand.
    """
    own = folder / info.name
    found = {file.file: _find(file, [own, folder, *_elsewhere(original)], own) for file in original.published}
    missing = [file for file in original.published if found[file.file] is None]
    if missing and not download:
        instead = _by_hand(missing, original, own)
        raise DataError(f"{own / missing[0].file}: missing, and data.download is false; {instead}")
    for place, file in enumerate(missing):
        target = own / file.file
        by_hand = _by_hand(missing[place:], original, own)
        fetch_once(file.url, target, file.checksum, file.max_bytes, by_hand, retries)
        found[file.file] = target
    return {name: path for name, path in found.items() if path is not None}


def _elsewhere(original: Original) -> list[Path]:
    own = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
    return [Path(text).expanduser().absolute() for text in own if text] + [Path(text) for text in original.folders]


def _by_hand(missing: list[OriginalFile], original: Original, own: Path) -> str:
    """Return what to do where files are missing."""
    first, rest = missing[0], [file.file for file in missing[1:]]
    text = f"place {first.url} (at most {first.max_bytes / 1e6:,.1f} MB, {first.checksum.name} {first.checksum.value})"
    text += f" in {own}" + (f", and from there {', '.join(rest)}, too" if rest else "")
    return text + (f", or install the package {original.package}" if original.package else "")


def _find(file: OriginalFile, folders: list[Path], own: Path) -> Path | None:
    """Return where a file is.

    Raises:
        DataError: If that of the data set's own folder is another one.
    """
    for folder in folders:
        path = folder / file.file
        try:
            if not path.is_file():
                continue
            problem = _problem(path, file)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
        if problem is None:
            log.info("%s is used", shown(path))
            return path
        if folder == own:
            raise DataError(f"{path}: {problem}; delete it and get it again")
        log.info("%s is not used: %s", path, problem)  # another data set may have files of that name
    return None


def _problem(path: Path, file: OriginalFile) -> str | None:
    """Return a line if a file is not the published one, nor what that unpacks to packed in another way."""
    size = path.stat().st_size
    if size <= file.max_bytes and (actual := file.checksum.of(path)) == file.checksum.value:
        return None
    if file.content_md5 is not None and size <= 2 * file.max_bytes:
        try:
            if _content_md5(path, MAX_UNPACKED * file.max_bytes) == file.content_md5:
                return None
        except READ_ERRORS as error:
            return f"is damaged ({error})"
    if size > file.max_bytes:
        return f"has {size:,} bytes, more than {file.max_bytes:,}"
    return f"{file.checksum.name} is {actual}, the catalog says {file.checksum.value}"


def _content_md5(path: Path, most: int) -> str | None:
    """Return the MD5 of what a file unpacks to, or None if that is more than so many bytes."""
    digest = hashlib.md5(usedforsecurity=False)
    with ExitStack() as files:
        source = open_unpacked(path, files)
        while chunk := source.read(_CHUNK):
            most -= len(chunk)
            if most < 0:
                return None
            digest.update(chunk)
    return digest.hexdigest()
