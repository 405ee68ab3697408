"""What is told of a benchmark while it runs: a line for each cell that has ended, and how much is left."""

import logging
import time
from collections.abc import Iterator, Sequence

from optuna.study import Study

from visionforge.benchmarking.plan import Cell, cost_of
from visionforge.benchmarking.study import Status, statuses
from visionforge.printable import printable
from visionforge.reporting.benchmark_page import duration_text

log = logging.getLogger(__name__)

_ENDED = ("complete", "failed", "refused")


class Progress:
    """Tells of cells as they end.

    Args:
        study: The study.
        cells: All cells.
    """

    def __init__(self, study: Study, cells: Sequence[Cell]) -> None:
        self._study = study
        self._cells = cells
        self._started = time.monotonic()
        self._found = self._statuses()
        self._told = {key for key, status in self._found.items() if status.state in _ENDED}
        self._before = len(self._told)

    def _statuses(self) -> dict[str, Status]:
        return statuses(self._study.get_trials(deepcopy=False), self._cells)

    @property
    def left(self) -> int:
        """How many cells have not ended."""
        return len(self._found) - len(self._told)

    def estimate(self, workers: int) -> str:
        """Return how many cells there are, and about how long the rest may take by what similar ones took.

        Args:
            workers: Processes that share them.
        """
        states = [status.state for status in self._found.values()]
        done, failed, refused = states.count("complete"), states.count("failed"), states.count("refused")
        told = f"{len(states)} cells: {done} complete, {self.left} to do"
        told += f", {failed} failed" if failed else ""
        told += f", {refused} cannot work" if refused else ""
        seconds = self._seconds_left()
        return f"{told}; about {duration_text(seconds / workers)}" if seconds else told

    def _seconds_left(self) -> float | None:
        """Return about how long the rest takes one worker: by multiply-adds, as fast as what is complete."""
        records = [(cell, self._found[cell.key].record) for cell in self._cells]
        known = [(cost_of(cell), record["seconds"]) for cell, record in records if record is not None]
        cost, seconds = sum(each for each, _ in known), sum(each for _, each in known)
        left = sum(cost_of(cell) for cell in self._cells if cell.key not in self._told)
        return left / cost * seconds if cost and left else None

    def refused(self) -> Iterator[str]:
        """Yield a line for each cell that cannot work; seeds share theirs."""
        told = dict[str, None]()
        for cell in self._cells:
            if cell.problem is not None:
                name = f"{cell.dataset} {cell.resolution} {cell.backbone} {cell.recipe}"
                told[printable(f"{name}: cannot work: {cell.problem}")] = None
        yield from told

    def refresh(self) -> None:
        """Tell of all cells that have ended since the last time."""
        self._found = self._statuses()
        for cell in self._cells:
            status = self._found[cell.key]
            if status.state in _ENDED and cell.key not in self._told:
                self._told.add(cell.key)
                log.info("%s", printable(self._line(cell, status)))

    def _line(self, cell: Cell, status: Status) -> str:
        done = f"cell {len(self._told)} of {len(self._found)}"
        if (record := status.record) is None:
            return f"{done}: {cell.name} failed: {status.reason}"
        shown = [
            f"{name} {value:.4f}" for name in (record["first"], "accuracy") if (value := record["metrics"].get(name))
        ]
        took = duration_text(record["seconds"])
        there = ", it was there" if record["spent"] is None else ""
        return f"{done}: {cell.name}: {', '.join(dict.fromkeys(shown))}, {took}{there}{self._time_left()}"

    def _time_left(self) -> str:
        done = len(self._told) - self._before
        if not self.left or not done:
            return ""
        return f"; about {duration_text((time.monotonic() - self._started) / done * self.left)} left"
