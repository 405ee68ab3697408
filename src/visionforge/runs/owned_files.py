"""Folders in which a command replaces and removes only the files that it can prove it wrote; the others are the user's.

A description in the folder lists the files of a command with their SHA-256. What still is as it is listed there may be
replaced or removed; everything else stays, and where it is in the way, the command refuses before it works.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from visionforge.errors import RunError, SettingsError
from visionforge.printable import printable
from visionforge.reading import read_text
from visionforge.runs.files import umask
from visionforge.runs.locks import held
from visionforge.runs.paths import shown, writable

MOST_BYTES = 4_000_000  # of a description; one of a thousand overlays has a twentieth
_CHUNK_BYTES = 1 << 20
_PLAIN_NAME = re.compile(r"[^/\\\0]{1,255}")
Listed = Mapping[str, str | None]  # name → SHA-256, or None where an earlier version listed the name alone
Read = Callable[[str], Listed]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()


def described(path: Path) -> dict[str, Any]:
    """Return name, size in bytes and SHA-256 of a file, as descriptions list it."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


class OwnedFolder:
    """A folder that a command shares with its user.

    Args:
        folder: The folder, which need not exist; a link to one means that one.
        description: Name of the file that lists the others; it is written last.
        read: Returns what a description lists; it raises ValueError, KeyError or TypeError where it is none.
        ours: What the names of the files look like that the command writes; others are not removed, whatever the
            description says, which may come from a stranger.
        name: The argument that names the folder, for messages.
    """

    def __init__(self, folder: Path, description: str, read: Read, ours: str, name: str = "out") -> None:
        self.path = Path(os.path.realpath(folder))
        self._shown = printable(shown(folder))
        self._description = description
        self._read = read
        self._ours = re.compile(ours)
        self._name = name

    def require(self, names: Iterable[str], overwrite: bool) -> None:
        """Check that files can be written without losing any, before there is work to lose.

        Args:
            names: What will be written beside the description.
            overwrite: Whether files that the command wrote earlier may be replaced.

        Raises:
            SettingsError: If a file would be lost.
            RunError: If the folder cannot be written, or is a run.
        """
        if not self.path.is_dir() and os.path.lexists(self.path):
            raise SettingsError(f"{self._name}: {self._shown} is a file; name a folder")
        if (self.path / "run.json").exists():
            raise RunError(f"{self._name}: {self._shown} is the folder of a run; name another, or a new one in it")
        if not writable(self.path):
            raise RunError(f"{self._name}: {self._shown} cannot be written; name another folder")
        there = [name for name in (self._description, *names) if os.path.lexists(self.path / name)]
        if there and not overwrite:
            raise SettingsError(
                f"{self._name}: {self._shown} has a {printable(there[0])} already; name another folder, or add "
                "`overwrite`"
            )
        listed = self._listed()
        for name in there:
            if name != self._description and not self._is_ours(name, listed):
                raise SettingsError(
                    f"{self._name}: {self._shown}/{printable(name)} is not as this command wrote it, so it is not "
                    "replaced; move it away, or name another folder"
                )

    @contextlib.contextmanager
    def writing(self, overwrite: bool) -> Iterator[Path]:
        """Yield an empty folder; what is in it when the block ends without an error takes its place in this one.

        Files of an earlier call that are not among them are removed, and nothing else is. Nobody else can write at the
        same time. If the block fails, everything is as it was.

        Args:
            overwrite: Whether files that the command wrote earlier may be replaced.

        Raises:
            RunError: If somebody else is writing there, or the folder cannot be written.
            SettingsError: If a file would be lost.
        """
        with contextlib.ExitStack() as stack:
            with self._told():
                stack.enter_context(folder_for(self.path))
                stack.enter_context(held(self.path / f".{self._description}.lock", self._shown, wait_s=0))
                self.require([], overwrite)
                beside = tempfile.TemporaryDirectory(prefix=f".{self._description}.", dir=self.path)
                staged = Path(stack.enter_context(beside))
            yield staged
            with self._told():
                written = sorted(path.name for path in staged.iterdir())
                self.require([name for name in written if name != self._description], overwrite)
                self._take(staged, written)

    def _take(self, staged: Path, written: list[str]) -> None:
        """Move the staged files into their places, the description last."""
        before = self._listed()
        stale = [name for name in before if name not in written and self._is_ours(name, before)]
        for name in sorted(written, key=lambda name: name == self._description):
            (staged / name).chmod(0o666 & ~umask())  # some writers make files that nobody else may read
            if name == self._description:
                for old in stale:
                    (self.path / old).unlink()
            (staged / name).replace(self.path / name)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn an error of the file system into one that names the folder."""
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RunError(f"{self._name}: {self._shown} cannot be written ({reason}); name another folder") from error

    def _listed(self) -> Listed:
        """Return what the description lists; nothing if there is none, or it is somebody else's file.

        Raises:
            SettingsError: If a file of its name is none.
        """
        path = self.path / self._description
        if not os.path.lexists(path):
            return {}
        try:
            if path.is_symlink():
                raise ValueError("no description")
            listed = self._read(read_text(path, MOST_BYTES))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(
                f"{self._name}: {self._shown}/{self._description} was not written by this command, so it is not "
                "replaced; name another folder"
            ) from error
        return {name: digest for name, digest in listed.items() if _PLAIN_NAME.fullmatch(name)}

    def _is_ours(self, name: str, listed: Listed) -> bool:
        """Return whether a file is as the description lists it."""
        path = self.path / name
        if name not in listed or not self._ours.fullmatch(name) or path.is_symlink() or not path.is_file():
            return False
        digest = listed[name]
        return digest is None or sha256_of(path) == digest


@contextlib.contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """Make a folder; if the block fails, remove what was made of it and is empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
