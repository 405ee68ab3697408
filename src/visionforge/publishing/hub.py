"""The Hugging Face Hub, by its own client: what a repository has, files from it, and one commit to it.

Address and token are the client's: ``HF_ENDPOINT``, and ``HF_TOKEN`` or what ``hf auth login`` has stored.
"""

import contextlib
import errno
import logging
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.distribution import how_to_install, own_version
from visionforge.errors import RunError, SettingsError, VisionForgeError

MAIN = "main"
LOGIN = "`hf auth login`, or set HF_TOKEN"
_CHUNK_BYTES = 1 << 18
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*){0,3}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Remote:
    """A repository as it is.

    Attributes:
        private: Whether few may see it.
        commit: The commit of the branch, or of the main one that it will begin with; None of one without commits.
        files: Paths of its files at that commit.
        has_branch: Whether the branch is there.
    """

    private: bool
    commit: str | None
    files: frozenset[str]
    has_branch: bool = True


def is_repository(text: str) -> bool:
    """Return whether a text has the form ``OWNER/NAME``."""
    return _REPOSITORY.fullmatch(text) is not None and ".." not in text


def require_hub(repository: str, revision: str | None) -> None:
    """Check names, and that the client is installed.

    Raises:
        SettingsError: If a name is none, or the package is missing.
    """
    if not is_repository(repository):
        raise SettingsError(
            f"repository: {repository} is not allowed; allowed: OWNER/NAME, of letters, digits, -, _ and ."
        )
    if revision is not None and (_REVISION.fullmatch(revision) is None or ".." in revision):
        raise SettingsError(f"revision: {revision} is not allowed; allowed: the name of a branch, a tag, a commit")
    try:
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise SettingsError(f"repository: needs huggingface_hub, which is missing: {how_to_install('hub')}") from error
    try:
        _utils().validate_repo_id(repository)
    except HFValidationError as error:
        raise SettingsError(f"repository: {repository} is not allowed ({_first_line(error)})") from error


def require_token(repository: str) -> None:
    """Check that somebody is logged in; whether that may write is the Hub's to say.

    Raises:
        RunError: If nobody is.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise RunError(f"repository: {repository} is written to with a token, and there is none; {LOGIN}")


# --- reading


def look(repository: str, revision: str) -> Remote | None:
    """Return what a repository has on a branch; None if there is none that this user may see.

    Raises:
        RunError: If the Hub cannot be asked.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    with _told(repository, revision):
        api = _api()
        try:
            return _remote(api.model_info(repository, revision=revision), True)
        except RevisionNotFoundError:
            return _remote(api.model_info(repository), False)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None


def _remote(info: Any, has_branch: bool) -> Remote:
    files = frozenset(each.rfilename for each in info.siblings or ())
    return Remote(bool(info.private), info.sha, files, has_branch)


def commit_of(repository: str, name: str, revision: str | None) -> str | None:
    """Return the commit that a revision stands for; None if it has no file of a name.

    Raises:
        RunError: If there is no such repository or revision, or the Hub cannot be asked.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _told(repository, revision):
        try:
            found = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).commit_hash
        except RemoteEntryNotFoundError:
            return None
    if found is None or _COMMIT.fullmatch(found) is None:
        raise RunError(f"repository: {repository}: {endpoint()} does not say which commit it has, so it is no hub")
    return found


def received(repository: str, name: str, commit: str) -> Generator[bytes]:
    """Yield a file of a commit, part by part; whoever takes them counts them.

    Raises:
        RunError: If it cannot be had.
    """
    from huggingface_hub import constants, get_session, hf_hub_url

    with _told(repository, commit):
        # as it is: something small that unpacks into something large would be unpacked here
        headers = {**_utils().build_hf_headers(**_about_us()), "Accept-Encoding": "identity"}
        url, wait = hf_hub_url(repository, name, revision=commit), constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=wait, follow_redirects=True) as response:
            _utils().hf_raise_for_status(response)
            yield from response.iter_raw(_CHUNK_BYTES)


# --- writing


def send(
    repository: str,
    remote: Remote | None,
    files: Sequence[Path],
    stale: Sequence[str],
    *,
    branch: str,
    private: bool,
    message: str,
    warn: Callable[[str], None],
) -> tuple[str, str]:
    """Make one commit of files, in a repository and on a branch that are made if they are not there.

    Args:
        repository: ``OWNER/NAME``.
        remote: What it has; None if it is to be made.
        files: The files, which go to the top by their names.
        stale: Names that are removed in the same commit.
        branch: The branch.
        private: Make a new repository private.
        message: Of the commit.
        warn: Told what the Hub finds odd about the card.

    Returns:
        The commit, and the address of the repository.

    Raises:
        RunError: If it fails; the files of the repository are as they were then.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    made = remote is None
    with _told(repository, branch, "the repository was made, and is empty" if made else "it has what it had"):
        api = _api()
        if remote is None:
            with _told(repository, branch):
                api.create_repo(repository, private=private or None)
            remote = _remote(api.model_info(repository), branch == MAIN)
        if branch != MAIN and not remote.has_branch:
            api.create_branch(repository, branch=branch, exist_ok=True)
        operations: list[Any] = [CommitOperationAdd(path.name, path) for path in files]
        operations += [CommitOperationDelete(name) for name in stale]
        with _quietly(warn):
            done = api.create_commit(
                repository,
                operations,
                commit_message=message,
                revision=branch,
                parent_commit=remote.commit,  # what somebody else pushed meanwhile is not replaced
            )
    return done.oid, f"{endpoint()}/{repository}"


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(**_about_us())


def _utils() -> Any:
    import huggingface_hub.utils

    return huggingface_hub.utils


def _about_us() -> dict[str, Any]:
    return {"library_name": "visionforge", "library_version": own_version()}


@contextlib.contextmanager
def _quietly(warn: Callable[[str], None]) -> Iterator[None]:
    """Show the client's bars on a terminal only, hand its warnings on, and leave its log to errors."""
    log = logging.getLogger("huggingface_hub")
    level, hide = log.level, not sys.stderr.isatty() and not _utils().are_progress_bars_disabled()
    try:
        log.setLevel(logging.ERROR)
        if hide:
            _utils().disable_progress_bars()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for each in caught:
            if issubclass(each.category, UserWarning):
                warn(" ".join(str(each.message).split())[:300])
    finally:
        log.setLevel(level)
        if hide:
            _utils().enable_progress_bars()


# --- errors


def endpoint() -> str:
    """Return the address of the Hub."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextlib.contextmanager
def _told(repository: str, revision: str | None, after: str | None = None) -> Iterator[None]:
    """Turn what the client and the libraries below it raise, which is of many kinds, into a line.

    Args:
        repository: Which one.
        revision: Of it.
        after: What the failure has left behind.
    """
    try:
        yield
    except VisionForgeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise RunError(f"repository: {repository}: {_first_line(error)}: free some disk space") from error
        reason = _reason(error, revision)
        raise RunError(f"repository: {repository}: {reason}{'' if after is None else f'; {after}'}") from error


def _reason(error: BaseException, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of a file that was uploaded
        return f"{_first_line(error).rstrip('.')}: {_reason(error.__cause__, revision)}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated: ask for access on its page, and {LOGIN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision or MAIN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or it is private and not yours; for a private one, {LOGIN}"
    if isinstance(error, errors.HfHubHTTPError):
        return _of_status(error.response.status_code, getattr(error, "server_message", None) or "")
    if isinstance(error, ValueError) and "Invalid metadata" in str(error):
        return f"the Hub does not take the card ({' '.join(str(error).split())[:200]})"
    if isinstance(error, ValueError | KeyError | TypeError | AttributeError):
        return f"the answer of {endpoint()} is not that of a hub ({_first_line(error)})"
    return f"{endpoint()} cannot be reached ({_first_line(error)})"


def _of_status(status: int, said: str) -> str:
    told = f"{status}: {' '.join(said.split())[:160]}" if said else str(status)
    if status == 401:
        return f"the token was rejected ({told}); {LOGIN} anew"
    if status == 403:
        return f"the token may not do this ({told}); it needs to be one that may write, of somebody who may"
    if status == 412:
        return f"somebody else has changed it meanwhile ({told}); push again"
    if status == 429:
        return f"the Hub was asked too often ({told}); try again later"
    return f"the Hub failed ({told}); try again later" if status >= 500 else f"the Hub refused ({told})"


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[0].split())[:160] if lines else type(error).__name__
