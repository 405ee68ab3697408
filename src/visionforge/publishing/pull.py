"""A published network fetched into a folder: only known files, of the size and SHA-256 that are listed, or nothing."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.errors import RunError, SettingsError
from visionforge.fetch import transfer_bar
from visionforge.printable import LONGEST_LINE, printable
from visionforge.publishing import hub
from visionforge.publishing.layout import (
    ARTIFACTS,
    CONTRACT,
    DESCRIPTION,
    LARGEST,
    MOST_TEXT,
    PULLED,
    Description,
    ListedFile,
    read_description,
)
from visionforge.reading import read_text
from visionforge.runs.owned_files import folder_for, sha256_of
from visionforge.runs.paths import shown
from visionforge.runs.staging import staging

_CHUNK_BYTES = 1 << 18
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class PullResult:
    """A network that was fetched.

    Attributes:
        path: The folder.
        model: The file that predicts, for `predict`.
        source: ``OWNER/NAME``, or the folder it came from.
        commit: The commit of a repository; None of a folder.
        fetched: Whether it was written now; False if it was there already, whole.
        content: What `visionforge.json` says.
    """

    path: Path
    model: Path
    source: str
    commit: str | None
    fetched: bool
    content: Description

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        places = {"path": str(self.path), "model": str(self.model)}
        return {**vars(self), **places, "content": self.content.model_dump(mode="json")}

    def __repr__(self) -> str:
        """Return what it is, where it lies, and the command that uses it."""
        content = self.content
        where = self.source if self.commit is None else f"{self.source} at {self.commit[:12]}"
        lines = [
            f"{content.backbone} on {content.dataset} ({content.task}), {content.size / 1e6:,.1f} MB, from {where}",
            f"  {'written to' if self.fetched else 'is there already, and whole:'} {shown(self.path)}",
            f"  visionforge predict --model {shown(self.model)} --images …",
        ]
        return "\n".join(printable(line, LONGEST_LINE) for line in lines)


def pull_network(source: str, *, revision: str | None = None, out: Path | None = None) -> PullResult:
    """Fetch a published network into a new folder.

    Args:
        source: ``OWNER/NAME`` on the Hub; or a folder, as ``./NAME``, ``/…/NAME`` or ``NAME``.
        revision: Branch, tag or commit of a repository; None is its main branch.
        out: The folder, which must not exist, unless it holds the same network; None is NAME in the working folder.

    Raises:
        SettingsError: If a name is not allowed, something else is in the way, or a package is missing.
        RunError: If there is no such network, or what is there is not what it says; nothing is left behind then.
    """
    found = _source(source, revision)
    folder = Path(found.name.rpartition("/")[2]) if out is None else out
    with contextlib.closing(found.parts(DESCRIPTION)) as parts:
        description = b"".join(_bounded(parts, MOST_TEXT, f"{found.name}: {DESCRIPTION}"))
    content = read_description(_text(description, found.name), found.name)
    fetched = True
    if isinstance(found, _Folder) and folder.resolve() == found.path:
        _receive_all(found, content, lambda name: Path(os.devnull))
        fetched = False
    elif os.path.lexists(folder):
        if not _is_same(folder, description, content):
            raise SettingsError(f"out: {shown(folder)} exists, and is not this network; name another with `out`")
        fetched = False
    else:
        _write(found, description, content, folder)
    model = folder / content.artifacts[0]
    return PullResult(folder, model, found.name, found.commit, fetched, content)


# --- sources


def _source(text: str, revision: str | None) -> "_Source":
    """Return where a network comes from; ``OWNER/NAME`` is a repository whatever lies in the working folder."""
    if hub.is_repository(text):
        return _Repository(text, revision)
    path = Path(text).expanduser()
    if not path.is_dir():
        told = "no folder, and not OWNER/NAME of a repository"
        raise SettingsError(f"source: {text} is {told}; name a repository, or a folder as ./NAME")
    if revision is not None:
        raise SettingsError(f"revision: {revision} is of a repository, and {text} is a folder")
    return _Folder(path)


class _Source:
    """What files come from.

    Args:
        name: What people call it; its last part names the folder.
        commit: The commit of a repository.
        facts: What `pulled.json` says of it.
    """

    def __init__(self, name: str, commit: str | None, facts: dict[str, Any]) -> None:
        self.name, self.commit, self.facts = name, commit, facts

    def parts(self, name: str) -> Generator[bytes]:
        """Yield a file, part by part."""
        raise NotImplementedError


class _Folder(_Source):
    """A folder of this machine; links in it are not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        super().__init__(self.path.name, None, {"folder": self.path.name})

    def parts(self, name: str) -> Generator[bytes]:
        """Yield a file, part by part."""
        path = self.path / name
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            if path.is_symlink():  # where the system has no flag for it
                raise RunError(f"{self.name}: {name} is a link, which is not followed; bring the file itself")
            handle = os.open(path, flags)
        except FileNotFoundError:
            raise RunError(_lacks(self.name, name)) from None
        except OSError as error:
            raise RunError(f"{self.name}: {name} cannot be read ({error.strerror})") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise RunError(f"{self.name}: {name} is no file")
        with os.fdopen(handle, "rb") as file:
            while part := file.read(_CHUNK_BYTES):
                yield part


class _Repository(_Source):
    """A repository of the Hub at one commit."""

    def __init__(self, name: str, revision: str | None) -> None:
        hub.require_hub(name, revision)
        commit = hub.commit_of(name, DESCRIPTION, revision)
        if commit is None:
            raise RunError(_lacks(name, DESCRIPTION))
        facts = {"hub": hub.endpoint(), "repository": name, "revision": revision or hub.MAIN, "commit": commit}
        super().__init__(name, commit, facts)
        self._commit = commit

    def parts(self, name: str) -> Generator[bytes]:
        """Yield a file, part by part."""
        return hub.received(self.name, name, self._commit)


def _lacks(source: str, name: str) -> str:
    if name == DESCRIPTION:
        return f"{source}: has no {DESCRIPTION}, so it is no network that `visionforge push` has published"
    return f"{source}: has no {name}, which {DESCRIPTION} lists, so it is not whole"


# --- files


def _bounded(parts: Iterator[bytes], most: int, what: str) -> Iterator[bytes]:
    """Yield parts as long as they are not too many."""
    count = 0
    for part in parts:
        count += len(part)
        if count > most:
            raise RunError(f"{what} is larger than the {most:,} bytes that it may have")
        yield part


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{source}: {DESCRIPTION} is no text in UTF-8") from error


def _write(source: _Source, description: bytes, content: Description, folder: Path) -> None:
    """Write the files beside the folder's place, look at them, and put them there."""
    try:
        with folder_for(folder.parent), staging(folder, _ours) as staged:
            free = shutil.disk_usage(staged).free
            if content.size > free:
                raise RunError(
                    f"out: {shown(folder)} needs {content.size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
                )
            _receive_all(source, content, lambda name: staged / name)
            _check_contract(staged, content, source.name)
            (staged / DESCRIPTION).write_bytes(description)
            (staged / PULLED).write_text(json.dumps(source.facts, indent=2) + "\n", encoding="utf-8")
            staged.rename(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"out: {shown(folder)} cannot be written ({reason}); name another with `out`") from error


def _ours(path: Path) -> bool:
    return path.name in (*LARGEST, DESCRIPTION, PULLED)


def _receive_all(source: _Source, content: Description, place: Callable[[str], Path]) -> None:
    for each in content.files:
        with contextlib.closing(source.parts(each.file)) as parts:
            _receive(parts, each, place(each.file), source.name)


def _receive(parts: Iterator[bytes], listed: ListedFile, path: Path, source: str) -> None:
    """Write a file, and compare it with what is listed while it comes."""
    digest, count, first = hashlib.sha256(), 0, b""
    with path.open("wb") as file, transfer_bar(listed.file, listed.bytes) as advance:
        for part in _bounded(parts, listed.bytes, f"{source}: {listed.file}"):
            first = first or part
            count += len(part)
            digest.update(part)
            file.write(part)
            advance(len(part))
    if count != listed.bytes:
        hint = "; it is a pointer of Git LFS: run `git lfs pull`" if first.startswith(_POINTER) else ""
        raise RunError(f"{source}: {listed.file} has {count:,} bytes, not {listed.bytes:,} as {DESCRIPTION} says{hint}")
    if digest.hexdigest() != listed.sha256:
        raise RunError(f"{source}: {listed.file} has another SHA-256 than {DESCRIPTION} says, so it was changed")


def _check_contract(folder: Path, content: Description, source: str) -> None:
    """Check that the contract is one that this version knows, and that of the weights.

    Raises:
        RunError: If it is not.
    """
    from visionforge.inference.artifacts import contract_of_weights
    from visionforge.inference.contract import read_contract

    contract = read_contract(read_text(folder / CONTRACT, MOST_TEXT), f"{source}: {CONTRACT}")
    weights = ARTIFACTS["safetensors"]
    if weights in content.artifacts and contract_of_weights(folder / weights, f"{source}: {weights}") != contract:
        raise RunError(f"{source}: {CONTRACT} is not the contract in {weights}, so one of them was changed")


def _is_same(folder: Path, description: bytes, content: Description) -> bool:
    """Return whether a folder holds a network already, every file of it as it is listed."""
    own = folder / DESCRIPTION
    if any(path.is_symlink() or not path.is_file() for path in (own, *(folder / each.file for each in content.files))):
        return False
    if own.stat().st_size != len(description) or own.read_bytes() != description:
        return False
    return all(
        (path := folder / each.file).stat().st_size == each.bytes and sha256_of(path) == each.sha256
        for each in content.files
    )
