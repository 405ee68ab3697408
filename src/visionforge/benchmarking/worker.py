"""A worker of a benchmark: it reads settings from standard input, and works on cells that nobody else is at."""

import sys

from visionforge.benchmarking.benchmark import work_beside
from visionforge.engine.worker_processes import serve

if __name__ == "__main__":
    sys.exit(serve(work_beside))
