"""The configurations that come with the package, and what the text after `--config` means."""

import os
from functools import cache
from pathlib import Path

import visionforge
from visionforge.config.problems import nearest
from visionforge.errors import SettingsError

SUFFIXES = (".yaml", ".yml")
FLAGS = ("--config", "-c")
SIZES = {"tiny_28": 3_000, "small_28": 20_000, "large_28": None}  # recipe → up to how many training images it is for
RECIPES = "recipes"  # folder of complete methods, each for data sets of a size


@cache
def shipped_folder() -> Path:
    """Return the folder of the shipped configurations.

    An installed package holds it; in a checkout it lies at the top, where people look for it.
    """
    package = Path(visionforge.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


def shipped_files() -> dict[str, Path]:
    """Return the shipped configurations and recipes by their names, which are those of the files without the suffix."""
    folder = shipped_folder()
    found = [*folder.glob(f"*{SUFFIXES[0]}"), *(folder / RECIPES).glob(f"*{SUFFIXES[0]}")]
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem)}


def recipe_for(images: int) -> str:
    """Return the name of the shipped recipe for a data set of so many training images."""
    return next(name for name, most in SIZES.items() if most is None or images <= most)


def find_config(text: str) -> str:
    """Return the file that the text after `--config` means; text that means none is returned as it is.

    A file of the working folder comes first; else ``quickstart`` and ``quickstart.yaml`` are the shipped configuration.
    """
    if not _is_bare(text) or Path(text).is_file():
        return text
    return str(shipped_files().get(_stem(text), text))


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
    shipped = list(shipped_files())
    close = [*here, *nearest(stem, shipped)]
    hint = f"nearest: {', '.join(close)}" if close else f"shipped are: {', '.join(shipped)}"
    raise SettingsError(f"{text}: no such configuration file, and none of that name is shipped; {hint}")


def described(path: Path) -> str:
    """Return how messages name a file of settings: as it was written, or as one that is shipped."""
    shipped = shipped_folder()
    return f"the shipped {path.name}" if path.parent in (shipped, shipped / RECIPES) else str(path)


def _is_bare(text: str) -> bool:
    """Return whether a text is a name in the working folder and no path."""
    separators = [separator for separator in ("/", os.sep, os.altsep, ":") if separator]
    return bool(text) and not any(separator in text for separator in separators)


def _stem(text: str) -> str:
    suffix = next((suffix for suffix in SUFFIXES if text.endswith(suffix)), "")
    return text.removesuffix(suffix)
