"""Keeps matplotlib from what a notebook or the working folder asks of it; commands only draw into files."""

import contextlib
import os
import sys
from pathlib import Path

_SETTINGS = "matplotlibrc"  # matplotlib reads a file of this name in the working folder, whoever has put it there


def shield_matplotlib() -> None:
    """Let matplotlib draw into files only, and read no settings from the working folder.

    Notebooks name a backend for every program that they start; where it is not installed, the import of matplotlib
    fails. To be called before anything imports it.
    """
    os.environ["MPLBACKEND"] = "agg"
    if "matplotlib" not in sys.modules and os.path.lexists(_SETTINGS):
        with contextlib.chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401  # reads its settings now, once
