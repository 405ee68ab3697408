"""The run folder: its name, its creation, and where everything in it lies."""

import contextlib
import datetime
import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from visionforge.errors import RunError

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Workspace:
    """A run folder.

    Attributes:
        path: The folder.
        made_parent: Whether the folder of all runs was made together with it.
    """

    path: Path
    made_parent: bool = False

    @property
    def config(self) -> Path:
        """The resolved configuration of the fit."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """Test metrics."""
        return self.path / "metrics.json"

    @property
    def epochs(self) -> Path:
        """One row of training and validation metrics per epoch."""
        return self.path / "metrics.csv"

    @property
    def predictions(self) -> Path:
        """Label and probabilities per test image."""
        return self.path / "predictions.csv"

    @property
    def log(self) -> Path:
        """Everything that was logged."""
        return self.path / "run.log"

    @property
    def checkpoints(self) -> Path:
        """Folder of `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.path / "figures"

    @property
    def weight_transfer(self) -> Path:
        """What became of pretrained weights."""
        return self.path / "reports" / "weight_transfer.json"

    def discard_unless_trained(self) -> bool:
        """Remove the folder of a run that failed before its first checkpoint; return whether it was removed."""
        if any(self.checkpoints.glob("*.ckpt")):
            return False
        shutil.rmtree(self.path, ignore_errors=True)
        if self.made_parent:
            with contextlib.suppress(OSError):  # another run may have begun in it
                self.path.parent.rmdir()
        return True


def create_workspace(outputs: Path, dataset: str, model: str, digest: str) -> Workspace:
    """Make the folder ``OUTPUTS/YYYYMMDD_DATASET_MODEL_DIGEST``, with ``-2``, ``-3``, … if it exists already.

    Raises:
        RunError: If it cannot be made.
    """
    name = f"{datetime.date.today():%Y%m%d}_{dataset}_{model.replace('/', '-')}_{digest}"
    try:
        made_parent = not outputs.exists()
        outputs.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            path = outputs / (name if attempt == 1 else f"{name}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return Workspace(path, made_parent)
    except OSError as error:
        raise RunError(f"{outputs}: no run folder can be made here ({describe(error)}); {_remedy(error)}") from error
    raise RunError(f"{outputs}: holds 9,999 runs of the same settings and day; remove some")


def require_space(folder: Path, needed_bytes: int) -> None:
    """Check that a file system has room.

    Raises:
        RunError: If fewer than `needed_bytes` are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise RunError(
            f"{folder}: no disk space: {free / 1e6:,.0f} MB free, checkpoints and results need about "
            f"{needed_bytes / 1e6:,.0f} MB; free some, or set trainer.default_root_dir to another disk"
        )


def describe(error: OSError) -> str:
    """Return what the operating system says of an error, in lower case."""
    return (error.strerror or str(error)).lower()


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some disk space, or set trainer.default_root_dir to another disk"
    return "set trainer.default_root_dir to a folder that you may write to"
