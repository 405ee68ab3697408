"""Features kept in the user's cache folder: a file per network and images, bounded in size, the oldest removed first.

A file is named after what its features are a function of, and says so inside, with their SHA-256. What cannot prove by
that to have been written here is never removed; what is damaged is made anew.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.npy import read_array, read_header
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.reading import read_json_text
from visionforge.runs.files import replacing
from visionforge.runs.locks import LockedError, held
from visionforge.runs.paths import cache_folder

log = logging.getLogger(__name__)

VERSION = 1  # of what features are computed with; files of another are not found
MOST_BYTES = 4 << 30  # of all files together: a million images with a thousand features each
LOCK_TIMEOUT_S = 60.0  # another process is writing a file, or removing old ones
_MOST_TEXT = 1 << 16  # bytes of what a file says of itself
_VALUES, _TEXT = "features.npy", "about.json"
_NAME = re.compile(r"([0-9a-f]{64})\.npz")
Values = npt.NDArray[np.float32]


def features_folder() -> Path:
    """Return the folder of the features: `features` in the user's cache folder."""
    return cache_folder() / "features"


def key_of(facts: dict[str, Any]) -> str:
    """Return the key of features: a digest of what they are a function of."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class FeatureCache:
    """A folder of features.

    Args:
        folder: The folder, which need not exist.
        most: Bytes of all its files together.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most

    def path(self, key: str) -> Path:
        """Return where the features of a key lie."""
        return self._folder / f"{key}.npz"

    def read(self, key: str, shape: tuple[int, int]) -> Values | None:
        """Return features, which are then the youngest; None if they are not there, or damaged.

        Args:
            key: What they are a function of.
            shape: (N, D) that they must have.
        """
        path = self.path(key)
        if path.is_symlink() or not path.is_file():
            return None
        values = _read(path, key, shape)
        if values is None:
            log.warning("%s: is damaged, or was not written by visionforge; the features are computed anew", path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return values

    def write(self, key: str, values: Values) -> None:
        """Keep features (N, D), and remove the oldest that are too much then; a folder that cannot be used has none."""
        if values.nbytes > self._most:
            log.info("features of %d bytes are not kept: more than %d", values.nbytes, self._most)
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with held(self._folder / ".lock", str(self._folder), LOCK_TIMEOUT_S):
                _write(self.path(key), key, values)
                self._make_room(key)
        except (OSError, LockedError) as error:
            log.warning("%s: features are not kept (%s)", self._folder, error)

    def _make_room(self, newest: str) -> None:
        """Remove the oldest files that are ours until the others fit."""
        files = []
        for path in self._folder.iterdir():
            if _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                stat = path.stat()
                files.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._most:
                return
            if path.stem != newest and _read(path, path.stem, None) is not None:
                path.unlink()
                total -= size


def _write(path: Path, key: str, values: Values) -> None:
    values = np.ascontiguousarray(values, dtype=np.float32)
    about = {"written_by": "visionforge", "key": key, "shape": list(values.shape), "sha256": _digest(values)}
    with replacing(path) as (file, _), zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_TEXT, json.dumps(about))
        with archive.open(_VALUES, "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values, allow_pickle=False)


def _read(path: Path, key: str, shape: tuple[int, int] | None) -> Values | None:
    """Return the features of a file; None if they are not those of a key, or not as they were written.

    Args:
        path: The file.
        key: What they must be a function of.
        shape: That they must have; None takes the one that the file names.
    """
    try:
        with open_zip(path) as archive:
            text = archive.getinfo(_TEXT)
            if text.file_size > _MOST_TEXT:
                return None
            about = read_json_text(archive.read(text).decode())
            if about["written_by"] != "visionforge" or about["key"] != key:
                return None
            member = archive.getinfo(_VALUES)
            with archive.open(member) as file:
                found, dtype = read_header(file)
            if dtype != np.float32 or len(found) != 2 or (shape is not None and found != shape):
                return None
            if member.compress_type != zipfile.ZIP_STORED:  # what is not packed has the size of the file at most
                return None
            with archive.open(member) as file:
                values: Values = read_array(file, member.file_size, path.stat().st_size)
    except (*READ_ERRORS, TypeError, UnicodeDecodeError):
        return None
    return values if _digest(values) == about["sha256"] else None


def _digest(values: Values) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
