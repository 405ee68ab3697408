"""A run's network published: as one commit to a repository of the Hugging Face Hub, or into a folder."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.errors import RunError, SettingsError
from visionforge.exporting.formats import require_packages
from visionforge.printable import LONGEST_LINE, printable
from visionforge.publishing import hub
from visionforge.publishing.contents import Wanted, write_contents
from visionforge.publishing.layout import (
    ARTIFACTS,
    CARD,
    CONTRACT,
    DESCRIPTION,
    LARGEST,
    METRICS,
    MOST_TEXT,
    SETTINGS,
    read_description,
)
from visionforge.reading import read_json_text
from visionforge.runs.owned_files import Listed, OwnedFolder
from visionforge.runs.paths import shown
from visionforge.runs.query import StoredRun, find_run, load_run
from visionforge.runs.session import FOREIGN

_OURS = "|".join(map(re.escape, LARGEST))
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,99}")
_MOST_MESSAGE = 500  # characters


@dataclass(frozen=True)
class PushResult:
    """What was published, or would be.

    Attributes:
        files: Name → bytes of the files.
        repository: ``OWNER/NAME``; None for a folder.
        commit: The commit that the branch is at; None where nothing was sent.
        url: The page of the repository; None where nothing was sent.
        folder: The folder that was written; None for a repository.
        content: What `visionforge.json` says.
        changed: Whether a commit was made; a repository that has all of it already gets none.
    """

    files: dict[str, int]
    repository: str | None
    commit: str | None
    url: str | None
    folder: Path | None
    content: dict[str, Any]
    changed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "folder": None if self.folder is None else str(self.folder)}

    def __repr__(self) -> str:
        """Return where it is."""
        if self.folder is not None:
            text = f"written to {shown(self.folder)}; nothing was sent"
        elif self.commit is None:
            text = "nothing was sent or written"
        else:
            text = f"{self.url} {'is at' if self.changed else 'has all of it already, at'} {self.commit[:12]}"
        return printable(text, LONGEST_LINE)


def push_run(
    run: str,
    repository: str | None = None,
    *,
    formats: Sequence[str] = ("safetensors",),
    folder: Path | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    licence: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    pictures: Sequence[Path] | None = None,
    root: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] = lambda line: None,
) -> PushResult:
    """Publish the network of a complete run, with its card, contract, results and settings; nothing else of the run.

    Args:
        run: The run, by folder or name.
        repository: ``OWNER/NAME``, made if it is not there; with `folder`, what the card calls it.
        formats: Of the network: `safetensors`, `onnx`, or both.
        folder: Write the files there instead of sending them.
        private: Make a new repository private; one that is public is refused.
        revision: The branch, made if it is not there; None is the main one.
        message: Of the commit.
        licence: Identifier of the network's licence, as the Hub has them.
        dry_run: Prove everything and tell what would be sent; send and write nothing.
        overwrite: Replace a card that was edited, and files that no push has written.
        pictures: Folders, files and archives to prove the network on; None is the test split.
        root: Folder of the archives; None is as the run was configured.
        tell: Told what goes where, before anything is sent.
        warn: Told of pictures that could not be read, and what the Hub finds odd.

    Raises:
        SettingsError: If an argument is not allowed, a package is missing, or a file would be lost.
        RunError: If the run is not complete, its network cannot be proven, or the Hub does not take it.
    """
    _check(repository, formats, folder, private, revision, message, licence)
    found = _complete(run)
    wanted = Wanted(found, formats, repository, licence, pictures, root, warn)
    names = [CARD, CONTRACT, SETTINGS, *([METRICS] if found.metrics else []), *(ARTIFACTS[kind] for kind in formats)]
    if folder is not None:
        return _write(wanted, folder, names, overwrite, dry_run, tell)
    assert repository is not None
    branch = revision or hub.MAIN
    remote, stale = None, list[str]()
    if not dry_run:
        hub.require_token(repository)
        remote = hub.look(repository, branch)
        stale = _replaced(repository, remote, private, names, overwrite)
    with tempfile.TemporaryDirectory(prefix="visionforge.") as beside:
        staged = Path(beside)
        content = write_contents(wanted, staged)
        files = _sizes(staged)
        seen = " (private)" if private or (remote is not None and remote.private) else ""
        _tell_files(files, f"{repository}, branch {branch}{seen}", tell, stale)
        if dry_run:
            return PushResult(files, repository, None, None, None, content)
        commit, url = hub.send(
            repository,
            remote,
            [staged / name for name in files],
            stale,
            branch=branch,
            private=private,
            message=message or f"{content['backbone']} on {content['dataset']}: run {content['run']}",
            warn=warn,
        )
    changed = remote is None or commit != remote.commit
    return PushResult(files, repository, commit, url, None, content, changed)


def _check(
    repository: str | None,
    formats: Sequence[str],
    folder: Path | None,
    private: bool,
    revision: str | None,
    message: str | None,
    licence: str | None,
) -> None:
    """Refuse arguments that are not allowed, or do not go together.

    Raises:
        SettingsError: If there is one.
    """
    if not formats or any(kind not in ARTIFACTS for kind in formats) or len(set(formats)) < len(formats):
        raise SettingsError(
            f"formats: {', '.join(formats) or 'none'} is not allowed; allowed: {', '.join(ARTIFACTS)}, each once"
        )
    if licence is not None and _LICENCE.fullmatch(licence) is None:
        raise SettingsError(
            f"licence: {licence} is not allowed; allowed: an identifier of the Hub's, such as mit or cc-by-4.0"
        )
    if message is not None and not 0 < len(message) <= _MOST_MESSAGE:
        raise SettingsError(f"message: has {len(message)} characters; allowed: 1 to {_MOST_MESSAGE}")
    if folder is None and repository is None:
        raise SettingsError("repository: name OWNER/NAME, or a folder to write with `folder`")
    for name, given in (("private", private), ("revision", revision), ("message", message)):
        if folder is not None and given:
            raise SettingsError(f"{name}: is of a repository, and nothing is sent with `folder`; leave it out")
    if repository is not None and folder is None:
        hub.require_hub(repository, revision)
    elif repository is not None and not hub.is_repository(repository):
        raise SettingsError(f"repository: {repository} is not allowed; allowed: OWNER/NAME")
    for kind in formats:
        require_packages(kind)  # type: ignore[arg-type]


def _complete(run: str) -> StoredRun:
    """Return a run that has come to its end, with a network.

    Raises:
        RunError: If it has not.
    """
    workspace = find_run(run, "run")
    found = load_run(workspace)
    if found.manifest.stage == FOREIGN:
        raise RunError(
            f"run: {shown(workspace.path)} was trained by a Trainer with RunFolder, whose network is not described by "
            "settings; publish it by your own means"
        )
    if found.state != "complete":
        raise RunError(
            f"run: {shown(workspace.path)} is {found.state}; a complete run is published "
            f"(`visionforge fit --resume {shown(workspace.path)}`)"
        )
    if not (workspace.checkpoints / "best.ckpt").is_file():
        raise RunError(f"run: {shown(workspace.path)} has no checkpoints/best.ckpt, so there is no trained network")
    return found


def _replaced(
    repository: str, remote: hub.Remote | None, private: bool, names: Sequence[str], overwrite: bool
) -> list[str]:
    """Return which files of an earlier push go away; see that nothing of somebody else is replaced unasked.

    Raises:
        SettingsError: If something would be.
    """
    if private and remote is not None and not remote.private:
        raise SettingsError(
            f"private: {repository} exists, and is public; make it private on its page, or name another repository"
        )
    if remote is None or remote.commit is None:
        return []
    earlier = _earlier(repository, remote)
    if earlier is not None:
        edited = CARD in remote.files and _digest(repository, CARD, remote.commit) != earlier.get(CARD)
        if edited and not overwrite:
            raise SettingsError(
                f"repository: {repository}: {CARD} was edited since it was pushed; `overwrite` replaces it, and its "
                "text stays in the repository's history"
            )
        return sorted(remote.files & set(earlier) - set(names))
    there = sorted(remote.files & {DESCRIPTION, *names})
    if there and not overwrite:
        raise SettingsError(
            f"repository: {repository} has {', '.join(there)}, which no push has written; name another repository, or "
            "add `overwrite`"
        )
    return []


def _earlier(repository: str, remote: hub.Remote) -> dict[str, str] | None:
    """Return name → SHA-256 of what an earlier push has written; None if there was none."""
    assert remote.commit is not None
    if DESCRIPTION not in remote.files:
        return None
    try:
        text = _content(repository, DESCRIPTION, remote.commit).decode("utf-8", "replace")
        return {each.file: each.sha256 for each in read_description(text, repository).files}
    except RunError:
        return None


def _digest(repository: str, name: str, commit: str) -> str:
    return hashlib.sha256(_content(repository, name, commit)).hexdigest()


def _content(repository: str, name: str, commit: str) -> bytes:
    """Return a text file of a repository; of one that is too large, its beginning, which is not what we wrote."""
    data = b""
    for part in hub.received(repository, name, commit):
        data += part
        if len(data) > MOST_TEXT:
            break
    return data


# --- a folder


def _write(
    wanted: Wanted,
    folder: Path,
    names: Sequence[str],
    overwrite: bool,
    dry_run: bool,
    tell: Callable[[str], None],
) -> PushResult:
    """Write the files into a folder, beside whatever else is in it."""
    owned = OwnedFolder(folder, DESCRIPTION, _listed, _OURS, "folder")
    owned.require(names, overwrite)
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="visionforge.") as beside:
            content = write_contents(wanted, Path(beside))
            files = _sizes(Path(beside))
        _tell_files(files, str(shown(folder)), tell)
        return PushResult(files, wanted.repository, None, None, None, content)
    with owned.writing(overwrite) as staged:
        content = write_contents(wanted, staged)
        files = _sizes(staged)
        _tell_files(files, str(shown(folder)), tell)
    return PushResult(files, wanted.repository, None, None, folder, content)


def _listed(description: str) -> Listed:
    return {str(entry["file"]): str(entry["sha256"]) for entry in read_json_text(description)["files"]}


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _tell_files(files: dict[str, int], where: str, tell: Callable[[str], None], stale: Sequence[str] = ()) -> None:
    tell(f"to {where}: {len(files)} files, {sum(files.values()) / 1e6:,.1f} MB")
    for name, size in files.items():
        tell(f"  {name:<18} {size:>13,} bytes")
    for name in stale:
        tell(f"  {name:<18} of the last push is removed")
