"""What a machine offers to runs, its accelerators among it."""

import dataclasses
from pathlib import Path

from visionforge.runs.diagnostics import Diagnosis, examine


def diagnose(outputs: str | Path | None = None, root: str | Path | None = None, *, kill: bool = False) -> Diagnosis:
    """Look at this machine, its folders, and processes that dead runs left behind.

    Args:
        outputs: Folder of the runs; None is where they lie by default.
        root: Folder of the archives; None is where they lie by default.
        kill: End the processes, unless a scheduler is there for that.

    Raises:
        SettingsError: If a folder is named by an anchor that does not exist.
    """
    found = examine(outputs, root, kill=kill)
    from visionforge.training.devices import accelerators  # torch takes seconds

    return dataclasses.replace(found, devices=accelerators())
