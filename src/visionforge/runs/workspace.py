"""The run folder: its name, and where everything in it lies."""

import contextlib
import datetime
import errno
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath

from visionforge.errors import RunError
from visionforge.runs.files import within

MAX_EPOCHS_BYTES = 8_000_000  # of metrics.csv; a thousand epochs have a tenth of a million
MAX_PREDICTIONS_BYTES = 4_000_000_000  # of predictions.csv; a million images of a hundred classes have fewer


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
    def candidates(self) -> Path:
        """`probe.csv`: a row per candidate of a probe's classifier."""
        return self.path / "probe.csv"

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
    def profile(self) -> Path:
        """Where the time of the training went."""
        return self.path / "reports" / "step_profile.json"

    @property
    def trace(self) -> Path:
        """A few steps of the training, for chrome://tracing and ui.perfetto.dev."""
        return self.path / "reports" / "trace.json.gz"

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


# What visionforge writes into a run folder: names of files, and folders with the suffixes of what lies in them
_FILES = (
    "config.yaml",
    "metrics.csv",
    "metrics.json",
    "predictions.csv",
    "predictions.json",
    "truth.json",
    "report.html",
    "run.json",
    ".lock",
    ".lock.owner",
    ".processes.json",
)
_PATTERNS = ("run.log", "run.rank*.log", ".*.tmp")
_FOLDERS = {
    "checkpoints": (".ckpt", ".tmp"),
    "evaluations": (".csv", ".html", ".json", ".jsonl", ".parquet", ".png", ".xlsx", ".log", ".yaml"),
    "export": (".json", ".md", ".onnx", ".pt2", ".safetensors", ".lock", ".owner"),
    "figures": (".png",),
    "masks": (".png",),
    "reports": (".csv", ".gz", ".json", ".xlsx"),
}


def remove_run(folder: Path) -> list[Path]:
    """Remove what visionforge has written into a run folder, and the folder if nothing else lies in it.

    Links are removed, not followed.

    Returns:
        What was left, because it is nothing that a run consists of.
    """
    for path in sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if _is_of_run(path.relative_to(folder)) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _is_of_run(path: PurePath) -> bool:
    if len(path.parts) == 1:
        return path.name in _FILES or any(path.match(pattern) for pattern in _PATTERNS)
    return path.suffix in _FOLDERS.get(path.parts[0], ())


def run_name(dataset: str, model: str, digest: str) -> str:
    """Return ``YYYYMMDD_DATASET_MODEL_DIGEST`` of today."""
    return f"{datetime.date.today():%Y%m%d}_{dataset}_{model.replace('/', '-')}_{digest}"


def digest_in_name(name: str) -> str | None:
    """Return the digest in the name of a run folder, which may be numbered; None if it is another name."""
    found = re.search(r"_([0-9a-f]{6})(-\d+)?$", name)
    return None if found is None else found[1]


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
