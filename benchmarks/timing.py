"""Time alternatives in turn, so that a change of the machine's speed meets all of them alike."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable


def rates(alternatives: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Return the items per second of each alternative in each round, after one round to warm up.

    Args:
        alternatives: Name → a function that does the work and returns the number of items.
        rounds: How often each is timed; the alternatives alternate.
    """
    out: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(rounds + 1):
        for name, work in alternatives.items():
            started = time.perf_counter()
            count = work()
            if turn:
                out[name].append(count / (time.perf_counter() - started))
    return out


def summary(values: list[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the median of the ratios of the rounds, and their range."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})"


def timed(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command; return its processor time and its time on the clock, in seconds."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": spent, "wall_s": time.perf_counter() - clock}
