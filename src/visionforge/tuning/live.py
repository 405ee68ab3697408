"""What the terminal shows of a search: a live table, or a line per trial where it is no terminal."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.live import Live
from rich.text import Text

from visionforge.printable import printable
from visionforge.runs.paths import shown
from visionforge.terminal import PlainTable, plain_console, print_line
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.report import STATES, short_names, train_command
from visionforge.tuning.study import best_trials
from visionforge.tuning.trials import EPOCHS, REASON, counted, epochs_of, finished, spent_s

log = logging.getLogger(__name__)

LARGE = 1_000
RECENT = 8  # trials in the live table


def values_text(trial: FrozenTrial, names: list[str]) -> str:
    """Return the values of a completed trial in words."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in zip(names, trial.values, strict=True))


def value_text(value: float) -> str:
    """Return a value of an objective; multiply-adds and parameters are large whole numbers."""
    return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.4f}"


def params_text(trial: FrozenTrial) -> str:
    """Return the parameters of a trial in a line."""
    short = short_names(sorted(trial.params))
    parts = (f"{short[n]} {v:.4g}" if isinstance(v, float) else f"{short[n]} {v}" for n, v in trial.params.items())
    return ", ".join(parts)


class Progress:
    """Tells of trials and epochs as they end; a context manager.

    Args:
        study: The study.
        total: Trials of the whole study.
        names: Names of the objectives.
        quiet: Tell nothing; for workers, of which another process tells.
    """

    def __init__(self, study: Study, total: int, names: list[str], quiet: bool) -> None:
        self._study = study
        self._total = total
        self._names = names
        self._quiet = quiet
        self._started = time.monotonic()
        self._known = {trial.number for trial in finished(study.get_trials(deepcopy=False))}
        self._before = len(self._known)
        self._current = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin to show the table, on a terminal."""
        if sys.stdout.isatty() and not self._quiet:
            self._live = Live(self._render(), console=plain_console(), refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table as it is."""
        if self._live is not None:
            self._live.update(self._render())
            self._live.__exit__(kind, error, trace)

    def epoch(self, trial: int, done: int, epochs: int, value: float) -> None:
        """Show how far the current trial has come."""
        self._current = f"trial {trial}, epoch {done}/{epochs}, {self._names[0]} {value:.4f}"
        if self._live is not None:
            self._live.update(self._render())

    def ended(self, trial: FrozenTrial) -> None:
        """Tell of one trial."""
        self._current = ""
        self.refresh()

    def tick(self) -> None:
        """Show how far the trials of other processes have come."""
        if self._live is not None:
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            parts = (f"{t.number}, epoch {epochs_of(t)}/{t.user_attrs.get(EPOCHS, '?')}" for t in trials)
            self._current = "   ".join(f"trial {part}" for part in parts)
            self._live.update(self._render())

    def refresh(self) -> None:
        """Tell of all trials that have ended since the last time."""
        ended = finished(self._study.get_trials(deepcopy=False))
        self._known &= {trial.number for trial in ended}  # one that went on since is another now
        for trial in ended:
            if trial.number not in self._known:
                self._known.add(trial.number)
                if not self._quiet:
                    log.info("%s", self._line(trial), extra={"file_only": self._live is not None})
        if self._live is not None:
            self._live.update(self._render())

    def _line(self, trial: FrozenTrial) -> str:
        done = f"{len(self._known)}/{self._total}"
        seconds = spent_s(trial) or 0.0
        if trial.state == TrialState.COMPLETE:
            result = values_text(trial, self._names)
        elif trial.state == TrialState.PRUNED:
            result = f"pruned after {epochs_of(trial)} epochs"
        else:
            result = f"failed: {trial.user_attrs.get(REASON, 'unknown')}"
        return f"trial {trial.number} ({done}) {result}, {seconds:.1f} s: {params_text(trial)}"

    def _left(self) -> str:
        """Return an estimate of the time that is left."""
        done = len(self._known) - self._before
        if not done:
            return "–"
        seconds = (time.monotonic() - self._started) / done * max(0, self._total - len(self._known))
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

    def _render(self) -> Group:
        trials = counted(self._study.get_trials(deepcopy=False))
        states = [trial.state for trial in trials]
        done, pruned, failed = (states.count(s) for s in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
        head = Text.assemble(
            (f"{done + pruned + failed}/{self._total} trials", "bold"),
            f"   {done} complete, {pruned} pruned, {failed} failed   time left {self._left()}",
        )
        best = best_trials(self._study)
        lines: list[Text | PlainTable] = [head]
        if best:
            lines.append(Text(f"best: trial {best[0].number}, {values_text(best[0], self._names)}", style="green"))
            lines.append(Text(f"      {printable(params_text(best[0]))}"))
        table = PlainTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("trial", "state", *self._names, "epochs", "seconds"):
            table.add_column(heading, justify="left" if heading == "state" else "right")
        for trial in [trial for trial in trials if trial.state.is_finished()][-RECENT:]:
            values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(self._names)
            cells = ["–" if value is None else value_text(value) for value in values]
            seconds = f"{spent_s(trial) or 0.0:.1f}"
            table.add_row(str(trial.number), STATES[trial.state], *cells, str(epochs_of(trial)), seconds)
        lines += [table, Text(printable(self._current) or " ", style="dim")]
        return Group(*lines)


def print_summary(study: Study, folder: StudyFolder, names: list[str]) -> None:
    """Print the best trial, and where everything lies."""
    trials = counted(study.get_trials(deepcopy=False))
    states = [STATES[trial.state] for trial in trials]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print_line("")
    print_line(f"study {study.study_name}: {told or 'no trials yet'}", style="bold")
    best = best_trials(study)
    if best:
        print_line(f"best: trial {best[0].number}, {values_text(best[0], names)}")
        short = short_names(sorted(best[0].params))
        for path, value in best[0].params.items():
            shown_value = f"{value:.5g}" if isinstance(value, float) else value
            print_line(f"  {short[path]:>20}  {shown_value}")
    print_line(f"{'report':>12}  {shown(folder.path / 'index.html')}")
    if best:
        print_line(f"{'train it':>12}  {train_command(best[0], folder, shown(folder.reports / 'best_config.yaml'))}")
