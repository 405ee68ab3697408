"""What the commands do, as functions: the same settings, defaults and files, and objects as results."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from visionforge.config.loading import Config, read_values
from visionforge.engine.run import EvaluationResult, Run, list_runs, open_run
from visionforge.errors import SettingsError
from visionforge.runs.signals import Interrupted, Interruption

if TYPE_CHECKING:
    from visionforge.tuning.found import Study

__all__ = ["Comparison", "compare", "evaluate", "fit", "list_runs", "open_run", "open_study", "tune"]


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """Finish a step and its checkpoint before Ctrl-C takes effect, which Python code then sees as usual."""
    with Interruption() as interruption:
        try:
            yield interruption
        except Interrupted as interrupted:
            if interrupted.name == "SIGINT":
                raise KeyboardInterrupt from interrupted
            raise


@overload
def fit(
    config: Config | Sequence[Config] | None = ...,
    *,
    resume: str | Path | Run | None = ...,
    trust: str | Path | Run | None = ...,
    seeds: None = ...,
    **settings: Any,
) -> Run: ...


@overload
def fit(
    config: Config | Sequence[Config] | None = ...,
    *,
    resume: Literal["auto", "never"] | None = ...,
    seeds: int | Sequence[int],
    **settings: Any,
) -> list[Run]: ...


def fit(
    config: Config | Sequence[Config] | None = None,
    *,
    resume: str | Path | Run | None = None,
    trust: str | Path | Run | None = None,
    seeds: int | Sequence[int] | None = None,
    **settings: Any,
) -> Run | list[Run]:
    """Train a network, test its best checkpoint, and write everything into a run folder, as `visionforge fit` does.

    Args:
        config: A YAML file, the name of a shipped configuration such as ``quickstart``, a nested mapping,
            `RunSettings`, or several of these, of which later ones win key by key. None is the defaults.
        resume: A run to continue; ``auto`` continues the newest interrupted run of the same settings, if there is one;
            ``never`` begins a new run also where one was interrupted.
        trust: The run that is continued may be a stranger's: build the classes that its configuration names.
        seeds: Train for several seeds: this many from the configured one on, or these. Complete runs are taken as they
            are.
        settings: Sections (``data={"dataset": "breastmnist"}``), single settings (``seed_everything=7``), or dotted
            names; they win over `config`. Callbacks and loggers among the Trainer's flags may be objects.

    Returns:
        The run; with `seeds`, a list of runs.

    Raises:
        SettingsError: With a line for every mistake in the settings, before anything is made.
        VisionForgeError: If data, weights or folder cannot be used, or the training fails in a known way.
        KeyboardInterrupt: After Ctrl-C; the run is whole up to that step and can be continued.

    >>> import visionforge as vf
    >>> vf.fit(data={"dataset": "breastmnst"})
    Traceback (most recent call last):
    ...
    visionforge.errors.SettingsError: data.dataset: breastmnst is no data set; ...
    """
    from visionforge.engine.fit import fit as fit_one
    from visionforge.engine.fit import request_of
    from visionforge.engine.seeds import fit_seeds

    raw = read_values(config, {**settings, **_named_runs(resume=resume, trust=trust)})
    with _interruptible() as interruption:
        if seeds is None:
            return fit_one(request_of(raw), interruption)
        given = str(seeds) if isinstance(seeds, int) else ",".join(map(str, seeds)) + ","
        return fit_seeds(raw, given, interruption)


def evaluate(
    run: str | Path | Run,
    split: Literal["test", "val"] = "test",
    *,
    checkpoint: Literal["best", "last"] | str | Path | None = None,
    config: Config | Sequence[Config] | None = None,
    **settings: Any,
) -> EvaluationResult:
    """Evaluate a trained network on a split, as `visionforge test` and `visionforge validate` do.

    The results lie in a folder of their own in the run; those of the fit are never overwritten.

    Args:
        run: The run: its folder, its name, or the object; or a checkpoint file.
        split: ``test`` or ``val``.
        checkpoint: ``best``, ``last`` or a file; None is the best.
        config: As in `fit`, over the settings of the run.
        settings: As in `fit`.

    Raises:
        SettingsError: With a line for every mistake in the settings.
        VisionForgeError: If the run, its checkpoint or the data cannot be used.
    """
    from visionforge.engine.evaluate import evaluate as evaluate_one

    stages = {"test": "test", "val": "validate"}
    if split not in stages:
        raise SettingsError(f"split: {split} is not allowed; allowed: test, val")
    named = {"ckpt_path": run} if _is_checkpoint(run) else {"run": run, "ckpt_path": checkpoint}
    return evaluate_one(read_values(config, {**settings, **_named_runs(**named)}), stages[split])


def tune(config: Config | Sequence[Config] | None = None, *, n_trials: int | None = None, **settings: Any) -> "Study":
    """Search hyperparameters, as `visionforge tune` does; the same call again goes on with the study.

    Args:
        config: As in `fit`; the section ``tune`` says what is searched.
        n_trials: Trials of the whole study; the same as ``tune={"n_trials": …}``.
        settings: As in `fit`.

    Returns:
        The study.

    Raises:
        SettingsError: With a line for every mistake in the settings, before anything is made.
        VisionForgeError: If data or storage cannot be used, or too many trials fail.
        KeyboardInterrupt: After Ctrl-C; the study can be gone on with.
    """
    from visionforge.engine.validation import check_arguments
    from visionforge.tuning.tuning import tune as search

    raw = read_values(config, settings)
    if n_trials is not None:
        raw.set("tune.n_trials", n_trials, "in Python")
    checked = check_arguments(raw, "fit")
    with _interruptible() as interruption:
        return search(checked, interruption)


def open_study(study: str | Path, **settings: Any) -> "Study":
    """Return a study by its folder, or by its name in the outputs folder; its reports are read, not written.

    Args:
        study: Folder or name.
        settings: As in `fit`, where the studies lie in another outputs folder.

    Raises:
        RunError: If there is no such study.
    """
    from visionforge.engine.validation import check_arguments
    from visionforge.tuning.found import Study
    from visionforge.tuning.report import find_study
    from visionforge.tuning.tuning import studies_folder

    return Study(find_study(str(study), studies_folder(check_arguments(read_values(None, settings), "predict"))).path)


def _is_checkpoint(run: str | Path | Run) -> bool:
    return not isinstance(run, Run) and str(run).endswith(".ckpt")


def _named_runs(**given: str | Path | Run | None) -> dict[str, str]:
    """Return what names a run or a file as text."""
    return {
        name: str(value.path if isinstance(value, Run) else value) for name, value in given.items() if value is not None
    }


class Comparison:
    """Runs beside each other: settings that differ, metrics, means over seeds, and paired differences.

    Attributes:
        content: Everything, as `visionforge runs compare --json` prints it.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @property
    def metrics(self) -> Any:
        """A table with a row per metric and a column per run."""
        import pandas as pd

        return pd.DataFrame(self.content["metrics"], index=self.content["runs"]).T

    @property
    def differences(self) -> Any:
        """A table of the paired differences, with intervals and p-values; empty if there are none."""
        import pandas as pd

        return pd.DataFrame(self.content["differences"])

    def __repr__(self) -> str:
        """Return the metrics, and the differences if there are any."""
        more = "" if not self.content["differences"] else f"\n\n{self.differences.to_string(index=False)}"
        return f"{self.metrics.to_string()}{more}"

    def _repr_html_(self) -> str:
        more = "" if not self.content["differences"] else self.differences.to_html(index=False)
        return str(self.metrics.to_html()) + more


def compare(runs: Sequence[str | Path | Run], *, resamples: int = 2000, confidence: float = 0.95) -> Comparison:
    """Compare runs, as `visionforge runs compare` does.

    Args:
        runs: Two runs or more.
        resamples: Bootstrap resamples of the paired differences; 0 leaves them out.
        confidence: Share of the resamples that an interval holds.

    Raises:
        SettingsError: If there are fewer than two runs, or a number is out of its bounds.
        RunError: If there is no such run.
    """
    from visionforge.evaluation.comparison import comparison

    if len(runs) < 2 or not 0 <= resamples <= 100_000 or not 0.5 < confidence < 1:
        raise SettingsError("compare: takes two runs or more, 0 to 100,000 resamples and a confidence in 0.5 to 1")
    return Comparison(comparison([open_run(run).stored for run in runs], resamples, confidence))
