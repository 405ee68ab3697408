"""`visionforge runs …`: list, show, diff, compare and clean the runs of an outputs folder."""

import argparse
from collections.abc import Callable

from visionforge.cli.arguments import CommandParser, print_json, say, warn
from visionforge.cli.compare import print_comparison
from visionforge.cli.run_tables import print_cleaning, print_differences, print_rows, print_run
from visionforge.config.schema import EvaluationSettings
from visionforge.evaluation.comparison import comparison
from visionforge.runs.cleaning import clean
from visionforge.runs.paths import shown
from visionforge.runs.query import COLUMNS, find_run, load_run, named_outputs, run_differences, run_rows

MOST_RESAMPLES = 100_000


def run_runs(arguments: list[str]) -> int:
    """Run `visionforge runs …` and return its exit status.

    Raises:
        VisionForgeError: If the command or the run is unknown.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run_command
    return command(options)


def _parser() -> CommandParser:
    parser = CommandParser(prog="visionforge runs", description="The runs of an outputs folder.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=CommandParser)

    def add(name: str, run: Callable[[argparse.Namespace], int], help_text: str) -> CommandParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(run_command=run)
        command.add_argument("--json", action="store_true", help="print JSON instead of text")
        return command

    listing = add("list", _list, "all runs, a line each")
    clean = add("clean", _clean, "remove runs that are not complete and not in use")
    for command in (listing, clean):
        command.add_argument("--outputs", help="folder of the runs; default $VISIONFORGE_OUTPUTS or the project's")
    listing.add_argument("--sort", choices=COLUMNS, default="started", help="column to sort by; default started")
    listing.add_argument("--reverse", action="store_true", help="largest first")
    listing.add_argument(
        "--state", choices=("running", "complete", "interrupted", "failed", "pruned"), help="only these"
    )
    clean.add_argument("--incomplete", action="store_true", required=True, help="interrupted and failed runs")
    clean.add_argument("--yes", action="store_true", help="remove them; without it, they are only listed")
    add("show", _show, "everything that is known of a run").add_argument("name", metavar="RUN", help="folder or name")
    diff = add("diff", _diff, "the settings, data, versions and results in which two runs differ")
    diff.add_argument("names", metavar="RUN", nargs=2, help="folder or name")
    compare = add("compare", _compare, "the metrics of several runs beside each other, with the settings that differ")
    compare.add_argument("names", metavar="RUN", nargs="+", help="folder or name")
    defaults = EvaluationSettings()
    compare.add_argument(
        "--resamples",
        type=_resamples,
        default=defaults.resamples,
        help=f"bootstrap resamples of the differences, 0 leaves them out; default {defaults.resamples}",
    )
    compare.add_argument(
        "--confidence",
        type=_confidence,
        default=defaults.confidence,
        help=f"share of the resamples that an interval holds; default {defaults.confidence:g}",
    )
    return parser


def _resamples(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MOST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 0 to {MOST_RESAMPLES:,}")
    return number


def _confidence(text: str) -> float:
    share = float(text)
    if not 0.5 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: above 0.5 to below 1")
    return share


def _warn(problem: str) -> None:
    warn(f"warning: {problem}")


def _list(options: argparse.Namespace) -> int:
    folder = named_outputs(options.outputs)
    rows, problems = run_rows(folder, options.state, options.sort, options.reverse)
    for problem in problems:
        _warn(problem)
    if options.json:
        print_json(rows)
    elif rows:
        print_rows(rows)
    else:
        which = f"{options.state} runs" if options.state else "runs"
        say(f"no {which} in {shown(folder)}")
    return 0


def _show(options: argparse.Namespace) -> int:
    run = load_run(find_run(options.name, "runs show"))
    if options.json:
        content = {**run.manifest.model_dump(mode="json"), "state": run.state}
        print_json({**content, "metrics": run.metrics, "config": run.config})
    else:
        print_run(run)
    return 0


def _diff(options: argparse.Namespace) -> int:
    one, two = (load_run(find_run(name, "runs diff")) for name in options.names)
    parts = run_differences(one, two)
    if options.json:
        print_json({name: {path: list(pair) for path, pair in part.items()} for name, part in parts.items()})
    else:
        print_differences(one, two, parts)
    return 0


def _compare(options: argparse.Namespace) -> int:
    runs = [load_run(find_run(name, "runs compare")) for name in options.names]
    content = comparison(runs, options.resamples, options.confidence)
    if options.json:
        print_json(content)
    else:
        print_comparison(content)
    return 0


def _clean(options: argparse.Namespace) -> int:
    folder = named_outputs(options.outputs)
    cleaning = clean(folder, remove=options.yes, told=_warn)
    if options.json:
        print_json({"found": [run.as_row() for run in cleaning.found], "removed": cleaning.removed})
    else:
        print_cleaning(cleaning, str(shown(folder)), options.yes)
    return 0
