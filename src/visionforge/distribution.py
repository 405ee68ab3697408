"""The name under which this package is distributed; its import name belongs to another project on PyPI."""

from typing import Any

DISTRIBUTION = "visionforge-lightning"
CHECKPOINT_FORMAT = 1  # of what we add to a checkpoint


def own_version() -> str:
    """Return the version of the package."""
    from importlib.metadata import version

    return version(DISTRIBUTION)


def distributed_as(package: str) -> str:
    """Return the name of the distribution that brings a package."""
    return DISTRIBUTION if package == "visionforge" else package


def how_to_install(extra: str) -> str:
    """Return the command that installs what an extra brings.

    >>> how_to_install("onnx")
    'pip install "visionforge-lightning[onnx]"'
    """
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def written_by() -> dict[str, Any]:
    """Return what a checkpoint says of the package that has written it."""
    return {"format": CHECKPOINT_FORMAT, "version": own_version()}


def newer(form: object, known: int, version: object) -> str | None:
    """Return that a file has a format of a later version; None if it has none, or one that is known.

    Args:
        form: Number of the format, as the file has it.
        known: The newest that this version knows.
        version: Version of the package that wrote the file, as the file has it.
    """
    if type(form) is not int or form <= known:
        return None
    writer = f"visionforge {version[:40]}" if isinstance(version, str) and version[:40].isprintable() else "a later one"
    return f"was written by {writer}; visionforge {own_version()} does not know its format {form}: install that version"
