"""Workers that end by themselves are not begun again for ever."""

from dataclasses import dataclass

import optuna
import pytest

from visionforge.engine.worker_processes import EXIT_MISTAKE
from visionforge.runs.signals import Interruption
from visionforge.tuning import workers
from visionforge.tuning.workers import share


@dataclass
class Ended:
    """A process that has ended."""

    returncode: int
    pid: int = 4194303

    def poll(self) -> int:
        return self.returncode


@pytest.mark.parametrize("status", [1, EXIT_MISTAKE, -9])
def test_those_that_fail_or_refuse_are_begun_again_a_few_times(monkeypatch, status):
    monkeypatch.setattr(workers, "POLL_S", 0.0)
    begun = []

    def start(number: int) -> Ended:
        begun.append(number)
        return Ended(status)

    study = optuna.create_study()
    said = share(study, 2, start, lambda trials: None, 5, lambda: None, lambda: None, Interruption())
    assert said == "6 workers died, so no more are started"
    assert begun == [0, 1] * 3
