"""Named folders that resolve the same from any working directory, and paths that are written relative to them.

A path in a saved configuration begins with the name of its anchor, for instance ``project://weights/mine.pth``; on
another machine the same text means that machine's folder.
"""

import os
from pathlib import Path
from urllib.parse import quote

from platformdirs import user_cache_path, user_data_path

MARKERS = (".git", "pyproject.toml")  # of a project; searched for in all parents first
WEAK_MARKERS = ("README.md",)  # folders inside a project often have one of their own, so it is the second choice
_SEPARATOR = "://"


def project_folder(start: Path | None = None) -> Path | None:
    """Return the nearest parent of `start` (default: the working directory) that is a project, or None.

    A project is a folder with `.git` or `pyproject.toml`, or else with an `outputs` folder that holds runs, or else
    with `README.md`.
    """
    first = Path.cwd() if start is None else start.resolve()
    parents = (first, *first.parents)
    for is_project in (_is_marked, _holds_runs, _has_readme):
        for folder in parents:
            if is_project(folder):
                return folder
    return None


def _is_marked(folder: Path) -> bool:
    return any(_there(folder / name) for name in MARKERS)


def _has_readme(folder: Path) -> bool:
    return any(_there(folder / name) for name in WEAK_MARKERS)


def _there(path: Path) -> bool:
    """Return whether something exists; what may not be looked at does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _holds_runs(folder: Path) -> bool:
    try:
        return next((folder / "outputs").glob("*/run.json"), None) is not None
    except OSError:
        return False


def outputs_folder() -> Path:
    """Return the folder of all runs.

    It is $VISIONFORGE_OUTPUTS, else `outputs` in the project, else `outputs` in the working directory; where that
    cannot be written, a folder of the user's.
    """
    if chosen := _environment("VISIONFORGE_OUTPUTS"):
        return chosen
    folder = (project_folder() or Path.cwd()) / "outputs"
    return folder if writable(folder) else user_data_path("visionforge") / "outputs"


def data_folder() -> Path:
    """Return the folder of the archives.

    It is $VISIONFORGE_DATA, else `dataset` in the project if that is there, else the user's cache folder.
    """
    if chosen := _environment("VISIONFORGE_DATA"):
        return chosen
    project = project_folder()
    if project is not None and (project / "dataset").is_dir():
        return project / "dataset"
    return user_cache_path("visionforge") / "datasets"


def cache_folder() -> Path:
    """Return the folder of what can be made anew: $VISIONFORGE_CACHE, or else the user's cache folder."""
    return _environment("VISIONFORGE_CACHE") or user_cache_path("visionforge")


def _environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser().absolute() if value else None


def writable(folder: Path) -> bool:
    """Return whether a folder can be written, or made where it does not exist yet."""
    existing = nearest_existing(folder)
    effective = os.access in os.supports_effective_ids
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK, effective_ids=effective)


def address_of(path: Path) -> str:
    """Return the address of a file for a link in a notebook, relative to the working folder if it lies in it.

    >>> address_of(Path("/runs/a b/javascript:x/report.html"))
    '/runs/a%20b/javascript%3Ax/report.html'
    """
    near = shown(path)
    return quote(near.as_posix()) if near.is_absolute() else f"./{quote(near.as_posix())}"


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest of its parents that is there."""
    return next((path for path in (folder, *folder.parents) if _there(path)), folder)


def anchors() -> dict[str, Path]:
    """Return the folder of every anchor on this machine, in the order in which a path is matched with them."""
    project = project_folder()
    found = {"data": data_folder(), "outputs": outputs_folder(), "cache": cache_folder()}
    return found if project is None else {**found, "project": project}


def resolve(text: str | Path) -> Path:
    """Return the absolute path that a text means: ``ANCHOR://…``, ``~/…``, absolute, or below the working directory.

    Raises:
        ValueError: If the anchor does not exist, or the path would leave it.
    """
    name, separator, rest = str(text).partition(_SEPARATOR)
    if not separator:
        return Path(text).expanduser().absolute()
    folder = {**anchors(), **({} if project_folder() else {"project": Path.cwd()})}.get(name)
    if folder is None:
        raise ValueError(f"{text}: no such anchor; allowed: data://, outputs://, cache://, project://")
    if Path(rest).is_absolute() or ".." in Path(rest).parts:
        raise ValueError(f"{text}: leads out of {name}://")
    return folder / rest


def is_anchored(text: str) -> bool:
    """Return whether a text begins with an anchor, and is not an address such as https://…."""
    return text.partition(_SEPARATOR)[0] in ("data", "outputs", "cache", "project") and _SEPARATOR in text


def portable(text: str | Path) -> str:
    """Return a path relative to the anchor that holds it, or to the home folder, or absolute if none does."""
    if is_anchored(str(text)):
        return str(text)
    path = Path(os.path.normpath(resolve(text)))
    for name, folder in anchors().items():
        if path.is_relative_to(folder):
            return f"{name}{_SEPARATOR}{_posix(path.relative_to(folder))}"
    if path.is_relative_to(Path.home()):
        return f"~/{_posix(path.relative_to(Path.home()))}"
    return path.as_posix()


def _posix(path: Path) -> str:
    return "" if path == Path() else path.as_posix()


def shown(path: Path) -> Path:
    """Return a path as people read it: relative if it lies below the working directory."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path
