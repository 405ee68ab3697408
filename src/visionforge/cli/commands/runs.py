"""`visionforge runs …`: list, show, diff, compare and clean the runs of an outputs folder, and a page of them."""

import argparse

from visionforge.cli.arguments import Subcommands, add_import_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.runs.paths import shown
from visionforge.streams import caution, say


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return subcommands().run(arguments)


def subcommands() -> Subcommands:
    """Return the parsers of what the command can do."""
    from visionforge.config.schema import EvaluationSettings
    from visionforge.runs.query import COLUMNS

    group = Subcommands("visionforge runs", "The runs of an outputs folder.")
    listing = group.add("list", _list, "all runs, a line each")
    clean = group.add("clean", _clean, "remove runs that are not complete, not among the best, or old")
    page = group.add("page", _page, "one page that compares all runs, with their curves; it opens offline")
    for command in (listing, clean, page):
        command.add_argument("--outputs", help="folder of the runs; default $VISIONFORGE_OUTPUTS or the project's")
    page.add_argument("--out", metavar="FILE", help="the page; default runs.html in the folder of the runs")
    listing.add_argument("--sort", choices=COLUMNS, default="started", help="column to sort by; default started")
    listing.add_argument("--reverse", action="store_true", help="largest first")
    listing.add_argument(
        "--state", choices=("running", "complete", "interrupted", "failed", "pruned"), help="only these"
    )
    clean.add_argument("--incomplete", action="store_true", help="interrupted and failed runs")
    clean.add_argument(
        "--keep-best", dest="keep_best", type=int, metavar="K", help="complete ones but the K best of each data set"
    )
    clean.add_argument(
        "--by", metavar="METRIC", help="with --keep-best: a metric of metrics.json; default auc, or dice, or map"
    )
    clean.add_argument(
        "--older-than", dest="older_than", metavar="AGE", help="only those that ended so long ago: 12h, 30d, 2w"
    )
    add_import_flag(clean, "metrics are known, too")
    removing = clean.add_mutually_exclusive_group()
    removing.add_argument("--yes", action="store_true", help="remove them; without it, they are only listed")
    removing.add_argument("--dry-run", dest="dry_run", action="store_true", help="only list them, as without --yes")
    group.add("show", _show, "everything that is known of a run").add_argument(
        "name", metavar="RUN", help="folder or name"
    )
    diff = group.add("diff", _diff, "the settings, data, versions and results in which two runs differ")
    diff.add_argument("names", metavar="RUN", nargs=2, help="folder or name")
    compare = group.add(
        "compare", _compare, "the metrics of several runs beside each other, with the settings that differ"
    )
    compare.add_argument("names", metavar="RUN", nargs="+", help="folder or name")
    add_import_flag(compare, "metrics are compared, too")
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
    compare.add_argument(
        "--margin",
        dest="margins",
        metavar="METRIC=NUMBER",
        action="append",
        default=[],
        help="by how much a model may be worse than the first and still be non-inferior; may be given several times",
    )
    return group


def _resamples(text: str) -> int:
    from visionforge.evaluation.comparison import MOST_RESAMPLES

    number = int(text)
    if not 0 <= number <= MOST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 0 to {MOST_RESAMPLES:,}")
    return number


def _confidence(text: str) -> float:
    share = float(text)
    if not 0.5 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: above 0.5 to below 1")
    return share


def _list(options: argparse.Namespace) -> int:
    from visionforge.cli.run_tables import print_rows
    from visionforge.runs.query import named_outputs, run_rows

    folder = named_outputs(options.outputs)
    rows, problems = run_rows(folder, options.state, options.sort, options.reverse)
    for problem in problems:
        caution(problem)
    if options.json:
        print_json(rows)
    elif rows:
        print_rows(rows)
    else:
        which = f"{options.state} runs" if options.state else "runs"
        say(f"no {which} in {shown(folder)}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from visionforge.cli.run_tables import print_run
    from visionforge.runs.query import find_run, load_run

    run = load_run(find_run(options.name, "runs show"))
    if options.json:
        print_json(run.as_dict())
    else:
        print_run(run)
    return 0


def _diff(options: argparse.Namespace) -> int:
    from visionforge.cli.run_tables import print_differences
    from visionforge.runs.query import find_run, load_run, run_differences

    one, two = (load_run(find_run(name, "runs diff")) for name in options.names)
    parts = run_differences(one, two)
    if options.json:
        print_json(parts)
    else:
        print_differences(one, two, parts)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from visionforge.cli.result_tables import print_comparison
    from visionforge.evaluation.comparison import comparison
    from visionforge.evaluation.margins import parse_margins
    from visionforge.runs.query import find_run, load_run

    runs = [load_run(find_run(name, "runs compare")) for name in options.names]
    content = comparison(runs, options.resamples, options.confidence, parse_margins(options.margins))
    if options.json:
        print_json(content)
    else:
        print_comparison(content)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from visionforge.cli.run_tables import print_cleaning
    from visionforge.engine.clean_runs import clean_runs
    from visionforge.runs.cleaning import parse_age
    from visionforge.runs.query import named_outputs

    folder = named_outputs(options.outputs)
    cleaning = clean_runs(
        folder,
        incomplete=options.incomplete,
        keep_best=options.keep_best,
        by=options.by,
        older_than=None if options.older_than is None else parse_age(options.older_than),
        remove=options.yes,
        told=caution,
    )
    if options.json:
        print_json(cleaning.as_dict())
    else:
        print_cleaning(cleaning, str(shown(folder)), options.yes)
    return 0


def _page(options: argparse.Namespace) -> int:
    from visionforge.reporting.runs_page import runs_page

    path = runs_page(options.outputs, options.out)
    if options.json:
        print_json({"page": str(path)})
    else:
        say(f"✓ {shown(path)}")
    return 0


COMMAND = Command(
    "runs",
    "list | show | diff | compare | page | clean: what the outputs folder holds",
    run,
    place=80,
    tells=True,
)
