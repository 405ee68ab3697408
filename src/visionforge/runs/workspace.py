"""The run folder: its name, and where everything in it lies."""

import datetime
import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from visionforge.errors import RunError
from visionforge.runs.files import within


@dataclass(frozen=True)
class Workspace:
    """A run folder.

    Attributes:
        path: The folder.
    """

    path: Path

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

    def rank_log(self, rank: int) -> Path:
        """Return the log of a process other than the first."""
        return self.path / f"run.rank{rank}.log"

    @property
    def checkpoints(self) -> Path:
        """Folder of `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The page with all results, which opens offline."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """The spreadsheet with all results."""
        return self.path / "reports" / "training_summary.xlsx"

    @property
    def weight_transfer(self) -> Path:
        """What became of pretrained weights."""
        return self.path / "reports" / "weight_transfer.json"

    @property
    def manifest(self) -> Path:
        """What the run is and how far it came."""
        return self.path / "run.json"

    @property
    def lock(self) -> Path:
        """Lock file, held while a process works on the run."""
        return self.path / ".lock"

    def within(self, *parts: str) -> Path:
        """Return a path below the folder; see `files.within`."""
        return within(self.path, *parts)

    @property
    def trained(self) -> bool:
        """Whether there is a checkpoint."""
        return any(self.checkpoints.glob("*.ckpt"))


def run_name(dataset: str, model: str, digest: str) -> str:
    """Return ``YYYYMMDD_DATASET_MODEL_DIGEST`` of today."""
    return f"{datetime.date.today():%Y%m%d}_{dataset}_{model.replace('/', '-')}_{digest}"


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


def remedy(error: OSError) -> str:
    """Return what the user can do about an error of the file system under the outputs folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some disk space, or set trainer.default_root_dir to another disk"
    return "set trainer.default_root_dir to a folder that you may write to"
