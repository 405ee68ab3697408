"""`visionforge benchmark`: a matrix of trainings, and its leaderboard."""

from typing import TYPE_CHECKING

from visionforge.cli.command import Command
from visionforge.cli.printing import plain_table, print_json, print_table
from visionforge.cli.stages import read_settings
from visionforge.printable import printable
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.streams import say, say_lines

if TYPE_CHECKING:
    from visionforge.benchmarking.found import Benchmark
    from visionforge.benchmarking.plan import Cell
    from visionforge.benchmarking.study import Status

EXIT_FAILED = 1


def run(arguments: list[str]) -> int:
    """Run the command; return 1 if a cell has failed or cannot work, and 0 otherwise."""
    raw = read_settings("benchmark", arguments)
    if raw is None:
        return 0
    from visionforge.benchmarking.benchmark import benchmark, list_cells, rewrite, settings_of
    from visionforge.config.suites import take_benchmark_flags

    switches = take_benchmark_flags(raw)
    settings = settings_of(raw)
    if switches["list"]:
        _print_cells(list_cells(settings), raw.json)
        return 0
    if switches["leaderboard_only"]:
        found = rewrite(settings)
    else:
        with Interruption() as interruption:
            found = benchmark(settings, interruption, switches["retry_failed"], say)
    print_json(found.as_dict()) if raw.json else _print_found(found)
    return EXIT_FAILED if found.failed else 0


def _print_cells(cells: "list[tuple[Cell, Status]]", as_json: bool) -> None:
    if as_json:
        print_json([{**cell.as_dict(), "state": status.state, "reason": status.reason} for cell, status in cells])
        return
    table = plain_table("data set", "pixels", "backbone", "recipe", "seed", "state")
    reasons = dict[str, None]()
    for cell, status in cells:
        state = "to do" if status.state in ("new", "waiting") else status.state
        names = tuple(map(str, cell.as_dict().values()))
        table.add_row(*names, state)
        if status.reason is not None:
            reasons[f"{' '.join(names[:4])}: {state}: {status.reason}"] = None
    print_table(table)
    for line in reasons:
        say(printable(line))
    say(f"{len(cells)} cells")


def _print_found(found: "Benchmark") -> None:
    say_lines(repr(found).splitlines())
    reasons: dict[str, list[str]] = {}
    for each in found.failed:
        cell = " ".join(str(each[name]) for name in ("dataset", "resolution", "backbone", "recipe"))
        reasons.setdefault(printable(f"{each['state']}: {cell}: {each['reason']}"), []).append(str(each["seed"]))
    for line, seeds in reasons.items():
        say(f"{line} (seeds {', '.join(seeds)})")
    say(f"leaderboard: {shown(found.report)}; leaderboard.csv, .md and .json beside it")


COMMAND = Command(
    "benchmark",
    "train a matrix of data sets, backbones and recipes, and write its leaderboard",
    run,
    place=25,
    examples=("benchmark --suite quick --workers 2",),
)
