"""A worker of a cross-validation: it reads settings from standard input, and fits folds that nobody else is at."""

import sys

from visionforge.config.schema import RunSettings
from visionforge.engine.fit import Request
from visionforge.engine.folds import of_each_fold, work_on
from visionforge.engine.worker_processes import serve
from visionforge.runs.signals import Interruption


def _work(settings: RunSettings, interruption: Interruption) -> None:
    requests = [Request(each, {}) for each in of_each_fold(settings)]
    work_on(requests[::-1], interruption)  # from the other end, so that two seldom meet


if __name__ == "__main__":
    sys.exit(serve(_work))
