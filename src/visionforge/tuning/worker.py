"""A worker of a search: it reads settings from standard input, and works on their study like every other worker."""

import sys

from visionforge.config.schema import RunSettings
from visionforge.engine.worker_processes import serve
from visionforge.runs.signals import Interruption
from visionforge.tuning.tuning import tune


def _work(settings: RunSettings, interruption: Interruption) -> None:
    tune(settings, interruption, lambda _: None, worker=True)


if __name__ == "__main__":
    sys.exit(serve(_work))
