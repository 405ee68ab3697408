"""The configurations that come with the package, and what the text after `--config` means."""

import os
from functools import cache
from pathlib import Path

import visionforge
from visionforge.config.problems import nearest
from visionforge.errors import SettingsError

SUFFIXES = (".yaml", ".yml")
FLAGS = ("--config", "-c")


@cache
def shipped_folder() -> Path:
    """Return the folder of the shipped configurations.

    An installed package holds it; in a checkout it lies at the top, where people look for it.
    """
    package = Path(visionforge.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


def shipped_names() -> list[str]:
    """Return the names of the shipped configurations, without their suffix."""
    return sorted(path.stem for path in shipped_folder().glob(f"*{SUFFIXES[0]}"))


def find_config(text: str) -> str:
    """Return the file that the text after `--config` means; text that means none is returned as it is.

    A file of the working folder comes first; else ``quickstart`` and ``quickstart.yaml`` are the shipped configuration.
    """
    if not _is_bare(text) or Path(text).is_file():
        return text
    name = _stem(text)
    return str(shipped_folder() / f"{name}{SUFFIXES[0]}") if name in shipped_names() else text


def require_config(text: str) -> Path:
    """Return the file that the text after `--config` means, as `find_config` does.

    Raises:
        SettingsError: If a bare name is neither a file nor a shipped configuration; the line lists the nearest names.
    """
    path = Path(find_config(text))
    if not _is_bare(text) or path.exists():
        return path
    stem = _stem(text)
    here = [f"{stem}{suffix}" for suffix in SUFFIXES if Path(f"{stem}{suffix}").is_file()]
    shipped = shipped_names()
    close = [*here, *nearest(stem, shipped)]
    hint = f"nearest: {', '.join(close)}" if close else f"shipped are: {', '.join(shipped)}"
    raise SettingsError(f"{text}: no such configuration file, and none of that name is shipped; {hint}")


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, without their suffix."""
    return sorted(path.stem for path in (shipped_folder() / "recipes").glob(f"*{SUFFIXES[0]}"))


def require_recipe(text: str) -> Path:
    """Return the file that the name of a recipe means: one of `recipes` among the shipped configurations, or any other.

    Raises:
        SettingsError: If it is neither a file nor the name of a shipped recipe or configuration.
    """
    name = _stem(text)
    if _is_bare(text) and not Path(text).is_file() and name in recipe_names():
        return shipped_folder() / "recipes" / f"{name}{SUFFIXES[0]}"
    return require_config(text)


def described(path: Path) -> str:
    """Return how messages name a file of settings: as it was written, or as one that is shipped."""
    shipped = shipped_folder()
    return f"the shipped {path.name}" if path.parent in (shipped, shipped / "recipes") else str(path)


def _is_bare(text: str) -> bool:
    """Return whether a text is a name in the working folder and no path."""
    separators = [separator for separator in ("/", os.sep, os.altsep, ":") if separator]
    return bool(text) and not any(separator in text for separator in separators)


def _stem(text: str) -> str:
    suffix = next((suffix for suffix in SUFFIXES if text.endswith(suffix)), "")
    return text.removesuffix(suffix)
