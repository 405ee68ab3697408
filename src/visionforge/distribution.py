"""The name under which this package is distributed; its import name belongs to another project on PyPI."""

DISTRIBUTION = "visionforge-lightning"


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
