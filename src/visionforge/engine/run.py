"""A run and an evaluated split as Python objects: plain numbers, tables, the trained network, and how they look."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.engine.step_profile import StepProfile
from visionforge.errors import RunError
from visionforge.evaluation.metric_names import READINGS, interval_text, labels_of_metrics, metric_name, partial_text
from visionforge.evaluation.prediction_table import TEXTS
from visionforge.printable import LONGEST_LINE, printable, printable_lines
from visionforge.runs.paths import address_of, outputs_folder, resolve, shown
from visionforge.runs.query import StoredRun, find_run, load_run, read_metrics, stored_runs
from visionforge.runs.workspace import MAX_EPOCHS_BYTES, Workspace

if TYPE_CHECKING:
    import pandas as pd

    from visionforge.config.schema import RunSettings
    from visionforge.training.classifier import ImageClassifier

_CURVES = ("train/loss", "val/loss", "val/accuracy", "val/auc")  # of classes; other tasks have what they log


class EvaluationResult:
    """What is known of a trained network on one split, as it lies in a folder.

    Args:
        path: The folder.
        checkpoint: The checkpoint that was evaluated.
        images: How many images were looked at.
    """

    def __init__(self, path: Path, checkpoint: Path | None = None, images: int | None = None) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.images = images

    @property
    def _workspace(self) -> Workspace:
        return Workspace(self.path)

    @cached_property
    def content(self) -> dict[str, Any]:
        """The whole content of `metrics.json`; empty if nothing was evaluated."""
        return read_metrics(self._workspace.metrics)

    @property
    def reading(self) -> str | None:
        """How the images were looked at for `metrics`: `with_tta` if there are test-time views, or `without_tta`."""
        return next((name for name in reversed(READINGS) if self.content.get(name)), None)

    @property
    def metrics(self) -> dict[str, float]:
        """Name → value, with test-time views if the network has them; those that are undefined are left out."""
        values = self.content.get(self.reading or "")
        return {name: value for name, value in (values or {}).items() if value is not None}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Name → confidence interval of `metrics`, for those that have one."""
        return {name: (pair[0], pair[1]) for name, pair in self._ends.items() if pair is not None}

    @property
    def _ends(self) -> Mapping[str, Any]:
        """Name → ends of the interval, or None where the cases were too few; some metrics never have one."""
        found = self.content.get("intervals")
        return (found.get(self.reading) if isinstance(found, Mapping) else None) or {}

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Class → name → value, read as `metrics` is."""
        found = self.content.get("per_class")
        return dict((found.get(self.reading) if isinstance(found, Mapping) else None) or {})

    @property
    def subgroups(self) -> dict[str, dict[str, Any]]:
        """Column → results by its values, such as those of age, sex and site: `subgroups` and `gaps`."""
        found = self.content.get("subgroups")
        return dict((found.get("columns") if isinstance(found, Mapping) else None) or {})

    @property
    def warnings(self) -> list[str]:
        """What the numbers on top do not show: classes that a good average hides, subgroups that are far apart."""
        return [str(line) for line in self.content.get("warnings") or ()]

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """The table `predictions.csv`: a row per image, with its truth, its prediction and the probabilities.

        Raises:
            RunError: If there is none, or it cannot be read.
        """
        from visionforge.evaluation.table_writers import read_table

        return read_table(self._workspace.predictions, TEXTS)

    @property
    def report(self) -> Path | None:
        """The page with all results, which opens offline; None if none was written."""
        path = self._workspace.report
        return path if path.is_file() else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values: places, the metrics on top with their intervals, and the whole content."""
        predictions = self._workspace.predictions
        return {
            "path": str(self.path),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "report": None if self.report is None else str(self.report),
            "predictions": str(predictions) if predictions.is_file() else None,
            "images": self.content.get("images", self.images),
            "metrics": self.metrics,
            "intervals": self.intervals,
            "content": self.content,
        }

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return (name, value, interval) of the metrics, as tables show them."""
        rows, positive, labels = [], self.content.get("positive"), labels_of_metrics()
        for name, value in self.metrics.items():
            if name not in labels or not isinstance(value, int | float):
                continue
            interval = interval_text(self._ends[name], value, "–") if name in self._ends else ""
            rows.append((metric_name(name, positive), f"{value:.4f}", interval))
        return rows

    @property
    def _predicted(self) -> bool:
        """Whether there are predictions and nothing else."""
        return not self.content and self.images is not None and self._workspace.predictions.is_file()

    def _headline(self) -> str:
        content = self.content
        if not content:
            return f"{self.images:,} predictions" if self._predicted else "nothing was evaluated"
        line = f"{content.get('dataset')} {content.get('split')} split, {content.get('images')} images"
        if content.get("partial"):
            line += f", partial: {partial_text(content['partial'])}"
        return printable(line)

    def __repr__(self) -> str:
        """Return the metrics with their intervals, a line each."""
        if self._predicted:
            return printable(f"{self._headline()}: {shown(self._workspace.predictions)}", LONGEST_LINE)
        lines = [f"{self._headline()} ({shown(self.path)})"]
        lines += [f"  {name:<28} {value}  {ends}" for name, value, ends in self._rows()]
        return printable_lines(lines)

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        from visionforge.reporting.rendering import render

        return render("notebook_metrics.html.j2", result=self._shown())

    def _shown(self) -> dict[str, Any]:
        """Return what a notebook shows: the headline, the metrics, and the address of the report."""
        link = "" if self.report is None else address_of(self.report)
        return {"headline": self._headline(), "metrics": self._rows(), "link": link}


class Run:
    """A training and everything that it has left in its folder.

    Everything is read when it is asked for; reading never runs anything that the folder names.

    Args:
        path: The run folder.

    Raises:
        RunError: If it holds no run.
    """

    def __init__(self, path: Path | str | Workspace) -> None:
        self.workspace = path if isinstance(path, Workspace) else Workspace(Path(path))
        self._stored = load_run(self.workspace)

    @classmethod
    def of(cls, stored: StoredRun) -> "Run":
        """Return a run that was read already."""
        run = cls.__new__(cls)
        run.workspace, run._stored = stored.workspace, stored
        return run

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.workspace.path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def stored(self) -> StoredRun:
        """The run with its manifest, as it was when this object was made."""
        return self._stored

    @property
    def state(self) -> str:
        """`running`, `complete`, `pruned`, `interrupted` or `failed`, as it is now."""
        return load_run(self.workspace).state

    @property
    def hash(self) -> str:
        """The digest of the configuration."""
        return self._stored.manifest.hash

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as `config.yaml` has it."""
        return self._stored.config

    @cached_property
    def settings(self) -> "RunSettings":
        """The configuration as settings.

        Raises:
            SettingsError: If it was written by a version with other settings.
        """
        from visionforge.engine.validation import settings_of

        return settings_of(self.config)

    @cached_property
    def result(self) -> EvaluationResult:
        """The test of the best checkpoint."""
        found = EvaluationResult(self.path)
        name = found.content.get("checkpoint")
        if isinstance(name, str) and "/" not in name:
            found.checkpoint = self.workspace.checkpoints / name
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics; see `EvaluationResult.metrics`."""
        return self.result.metrics

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Their confidence intervals; see `EvaluationResult.intervals`."""
        return self.result.intervals

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Metrics of every class; see `EvaluationResult.per_class`."""
        return self.result.per_class

    @property
    def predictions(self) -> "pd.DataFrame":
        """The predictions of the test split; see `EvaluationResult.predictions`."""
        return self.result.predictions

    @property
    def report(self) -> Path | None:
        """The page with all results; None if none was written."""
        return self.result.report

    @property
    def epochs(self) -> "pd.DataFrame":
        """The table `metrics.csv`: a row per epoch, counted from 0.

        Raises:
            RunError: If there is none, or it cannot be read.
        """
        from visionforge.evaluation.table_writers import read_table

        return read_table(self.workspace.epochs, (), MAX_EPOCHS_BYTES)

    @property
    def profile(self) -> StepProfile | None:
        """Where the time of the training went; None if nobody has asked for it (`fit --profile`).

        Raises:
            RunError: If it cannot be read.
        """
        path = self.workspace.profile
        return StepProfile.read(path) if path.is_file() else None

    @cached_property
    def model(self) -> "ImageClassifier":
        """The network of the best checkpoint, ready to predict.

        Raises:
            RunError: If there is no checkpoint, or it cannot be read.
        """
        from visionforge.inference.loading import find_target, load_classifier

        return load_classifier(find_target("model", self.path, None).checkpoint)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values: what it is, and its test; see `EvaluationResult.as_dict`."""
        return {"run": self.name, "state": self.state, "hash": self.hash, **self.result.as_dict()}

    def _describe(self) -> str:
        manifest = self._stored.manifest
        return printable(f"{manifest.dataset}, {manifest.model}, {self.state}")

    def __repr__(self) -> str:
        """Return what the run is and its test metrics, a line each."""
        head = f"Run {printable(self.name)}: {self._describe()}"
        return f"{head}\n{self.result!r}" if self.result.content else head

    def _repr_html_(self) -> str:
        """Return the test metrics, the curves and links to the files, for notebooks."""
        from visionforge.reporting.rendering import render

        files = [path for path in (self.report, self.workspace.epochs, self.workspace.log) if path and path.is_file()]
        return render(
            "notebook_run.html.j2",
            name=printable(self.name),
            described=self._describe(),
            result=self.result._shown() if self.result.content else None,
            curves=self._curves(),
            files=[(address_of(path), path.name) for path in files],
        )

    def _curves(self) -> str:
        """Return the curves of losses and validation metrics as an SVG picture, or nothing."""
        from visionforge.reporting.sparklines import curves_svg
        from visionforge.training.epoch_log import read_epochs

        try:
            rows = read_epochs(self.workspace.epochs)
        except RunError:
            return ""
        logged = dict.fromkeys(name for row in rows for name in row if name.startswith("val/"))
        names = _CURVES if "val/auc" in logged else (*_CURVES[:2], *(name for name in logged if name not in _CURVES))
        series = {name: [row[name] for row in rows if name in row] for name in names}
        return curves_svg({name: values for name, values in series.items() if len(values) > 1})


def open_run(run: str | Path | Run) -> Run:
    """Return a run by its folder, or by its name in the outputs folder, such as `latest`.

    Args:
        run: Folder or name; a run is returned as it is.

    Raises:
        RunError: If there is no such run.

    >>> import visionforge as vf
    >>> vf.open_run("nothing")
    Traceback (most recent call last):
    ...
    visionforge.errors.RunError: open_run: nothing is no folder; ...
    """
    return run if isinstance(run, Run) else Run(find_run(str(run), "open_run"))


def list_runs(outputs: str | Path | None = None) -> list[Run]:
    """Return the runs of an outputs folder, oldest first.

    Args:
        outputs: The folder; None is `outputs` in the working folder, or $VISIONFORGE_OUTPUTS.
    """
    folder = outputs_folder() if outputs is None else resolve(str(outputs))
    return [Run.of(run) for run in stored_runs(folder)[0]]
