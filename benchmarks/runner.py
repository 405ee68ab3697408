"""One comparison after the other: sides in turn, a line of JSON per result, and a page of all of them."""

import contextlib
import datetime
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from visionforge.distribution import distributed_as
from visionforge.runs.provenance import processor

HERE = Path(__file__).parent
PACKAGES = ("visionforge", "torch", "torchvision", "lightning", "numpy")
OURS = "visionforge"


@dataclass(frozen=True)
class Options:
    """How a comparison is made.

    Attributes:
        device: Torch's name of the device, `cpu` or `cuda`.
        rounds: How often each side is timed, after once to warm up.
        scale: By how much more or fewer images are used than a comparison says.
    """

    device: str = "cpu"
    rounds: int = 5
    scale: float = 1.0


@dataclass(frozen=True)
class Command:
    """A side that is a whole process.

    Attributes:
        arguments: The command line.
        environment: Further environment variables.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


Side = Callable[[], int] | Command  # a function does the work and returns the number of items


@dataclass(frozen=True)
class Comparison:
    """Several ways to do the same.

    Attributes:
        name: What it is asked for by.
        about: What is done, in a sentence.
        sides: Makes the sides; `OURS` is what the others are compared with.
        unit: Of the values: `images/s`, or `s` of commands.
        devices: What it runs on.
    """

    name: str
    about: str
    sides: Callable[[Options], Mapping[str, Side]]
    unit: str = "images/s"
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass
class Measured:
    """What was found of a side: a value and the processor's seconds per round."""

    values: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def measure(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Time all sides in turn, A B A B, so that a change of the machine's speed meets all of them alike."""
    sides = comparison.sides(options)
    found = {name: Measured() for name in sides}
    for turn in range(options.rounds + 1):
        for name, side in sides.items():
            value, cpu = _timed(side)
            if turn:
                found[name].values.append(value)
                found[name].cpu_s.append(cpu)
    return {
        "name": comparison.name,
        "about": comparison.about,
        "unit": comparison.unit,
        "date": datetime.date.today().isoformat(),
        "device": device_name(options.device),
        "threads": _threads(),
        "load": round(os.getloadavg()[0], 1),
        "rounds": options.rounds,
        "scale": options.scale,
        "versions": _versions(),
        "sides": {name: asdict(each) for name, each in found.items()},
    }


def _timed(side: Side) -> tuple[float, float]:
    """Return items per second, or seconds of a command, and the processor's seconds."""
    if isinstance(side, Command):
        before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(side.arguments, env={**os.environ, **side.environment}, capture_output=True, text=True)
        seconds = time.perf_counter() - clock
        if done.returncode:
            sys.exit(f"{' '.join(side.arguments)} has failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cpu, clock = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # of bars and tables
        items = side()
    return items / (time.perf_counter() - clock), time.process_time() - cpu


def ratios(result: Mapping[str, Any], name: str) -> list[float]:
    """Return by how much ours is faster than a side, round by round."""
    ours, theirs = result["sides"][OURS]["values"], result["sides"][name]["values"]
    rising = result["unit"] != "s"
    return [a / b if rising else b / a for a, b in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float], digits: int) -> str:
    """Return median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def as_table(result: Mapping[str, Any]) -> list[str]:
    """Return a result as lines of Markdown."""
    digits = 2 if result["unit"] == "s" else 0
    lines = [f"| | {result['unit']} | CPU s per round | visionforge is faster by |", "|---|---|---|---|"]
    for name, side in result["sides"].items():
        faster = "" if name == OURS else spread(ratios(result, name), 2)
        lines.append(
            f"| {name} | {spread(side['values'], digits)} | {statistics.median(side['cpu_s']):,.1f} | {faster} |"
        )
    return lines


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """Return all results as a page, the newest of each comparison and device."""
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for result in results:
        newest[result["name"], result["device"]] = result
    lines = [
        "# Results",
        "",
        "Made by `python -m benchmarks`, which writes a line to `benchmarks/results.jsonl` for each; the page is made",
        "of them. Median and range over rounds in which the sides took turns, after one to warm up; the ratio is that",
        "of each round. `load` is how many processes wanted a core at the end: above the number of threads the machine",
        "had other work, of which the ratios see less than the rates do.",
    ]
    for (name, device), result in sorted(newest.items()):
        versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
        lines += ["", f"## {name}, {device}", "", result["about"], ""]
        lines += as_table(result)
        lines += [
            "",
            f"{result['date']}, {result['rounds']} rounds, {result['threads']} threads, load {result['load']}; "
            f"{versions}.",
        ]
    return "\n".join(lines) + "\n"


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the results of a file, oldest first; none if it is not there."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def device_name(device: str) -> str:
    """Return what a device is called."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return str(processor()["processor"])


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(distributed_as(name))
    return found
