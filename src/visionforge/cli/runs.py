"""`visionforge runs …`: list, show, diff, compare and clean the runs of an outputs folder."""

import argparse
import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visionforge.cli.arguments import (
    CommandParser,
    heading,
    plain_table,
    print_json,
    print_table,
    say,
    value_text,
    warn,
)
from visionforge.cli.compare import print_comparison
from visionforge.config.schema import EvaluationSettings
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.comparison import comparison, partial_of, positive_of
from visionforge.evaluation.names import READINGS, partial_text
from visionforge.redaction import redact_arguments
from visionforge.runs.active import repoint_latest
from visionforge.runs.anchors import outputs_folder, resolve, shown
from visionforge.runs.locks import Lock, LockedError, is_held
from visionforge.runs.processes import leftovers
from visionforge.runs.store import StoredRun, differences, find_run, load_run, provenance, stored_runs
from visionforge.runs.workspace import remove_run

_SHOWN = ("run", "state", "started", "seconds", "epochs", "accuracy", "auc")
MOST_RESAMPLES = 100_000
_OWN = re.compile(r"\.\d{8}_.+_[0-9a-f]{6}\.(?:new-\w+|lock)")  # names of what a killed process leaves beside the runs
COLUMNS = (*_SHOWN, "dataset", "model", "hash", "seed", "stage")  # the name of a run says some of them


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


def _outputs(options: argparse.Namespace) -> Path:
    try:
        folder = resolve(options.outputs) if options.outputs else outputs_folder()
    except ValueError as error:
        raise SettingsError(f"--outputs: {error}") from error
    if options.outputs and not folder.is_dir():
        raise RunError(f"--outputs: {folder} is no folder")
    return folder


# --- list


def _list(options: argparse.Namespace) -> int:
    folder = _outputs(options)
    runs, problems = stored_runs(folder)
    for problem in problems:
        warn(f"warning: {problem}")
    rows = [run.as_row() for run in runs if options.state in (None, run.state)]
    known = [row for row in rows if row[options.sort] is not None]
    unknown = [row for row in rows if row[options.sort] is None]  # last, whichever way the others are sorted
    rows = sorted(known, key=lambda row: row[options.sort], reverse=options.reverse) + unknown
    if options.json:
        print_json(rows)
        return 0
    if not rows:
        which = f"{options.state} runs" if options.state else "runs"
        say(f"no {which} in {shown(folder)}")
        return 0
    table = plain_table(*_SHOWN, right=("seconds", "epochs", "accuracy", "auc"))
    for row in rows:
        table.add_row(*(_cell(name, row) for name in _SHOWN))
    print_table(table)
    return 0


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if value is None:
        return "–"
    if name == "started":
        return datetime.datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")
    if name == "seconds":
        return duration(value)
    if name == "epochs" and row["max_epochs"]:
        return f"{value}/{row['max_epochs']}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return a time span as people read it, for instance ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


# --- show


def _show(options: argparse.Namespace) -> int:
    run = load_run(find_run(options.name, "runs show"))
    content = {**run.manifest.model_dump(mode="json"), "state": run.state}
    if options.json:
        print_json({**content, "metrics": run.metrics, "config": run.config})
        return 0
    row = run.as_row()
    heading(run.name)
    state = run.state if not run.manifest.error else f"{run.state} ({run.manifest.error})"
    facts: dict[str, Any] = {
        "folder": shown(run.workspace.path),
        "state": state,
        "started": _cell("started", row),
        "worked on": _cell("seconds", row),
        "resumed": f"{resumes} ×" if (resumes := len(run.manifest.sessions) - 1) > 0 else None,
        "epochs": _cell("epochs", row),
        "seed": row["seed"],
        "data": ", ".join(f"{key} {value}" for key, value in run.manifest.data.items() if value and key != "images"),
        "weights": (run.manifest.weights or {}).get("source", "random"),
        "parent": None if run.manifest.parent is None else run.manifest.parent.get("run"),
    }
    for session in run.manifest.sessions[-1:]:
        package = session.code.get("package")
        commit = str(package.get("commit", "")) if isinstance(package, dict) else ""
        device = session.hardware.get("device_name") or session.hardware.get("processor")
        packages = session.packages
        facts |= {
            "device": device,
            "processes": session.hardware.get("processes", 1),
            "host": session.process.get("host"),
            "job": session.scheduler and f"{session.scheduler.get('name')} {session.scheduler.get('job')}",
            "versions": ", ".join(
                f"{name} {packages[name]}" for name in ("visionforge", "torch", "python") if name in packages
            ),
            "commit": commit[:10] or None,
            "strict": session.switches.get("deterministic_algorithms"),
            "command": " ".join(redact_arguments(session.command)),
        }
    metrics = run.metrics
    partial = partial_of(metrics)
    facts |= {"partial": partial and partial_text(partial), "positive": positive_of(metrics)}
    for kind in ("without_tta", "with_tta"):
        values = metrics.get(kind) or {}
        facts[kind.replace("_", " ").replace("tta", "TTA")] = ", ".join(
            f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float)
        )
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name:>12}  {value}")
    return 0


# --- diff and compare


def _diff(options: argparse.Namespace) -> int:
    one, two = (load_run(find_run(name, "runs diff")) for name in options.names)
    parts = {
        "settings": differences(one.config, two.config),
        "provenance": differences(provenance(one), provenance(two)),
        "metrics": differences(_metrics(one), _metrics(two)),
    }
    if options.json:
        print_json({name: {path: list(pair) for path, pair in part.items()} for name, part in parts.items()})
        return 0
    table = plain_table("", one.name, two.name)
    for name, part in parts.items():
        if not part:
            say(f"{name}: the same")
        for path, pair in part.items():
            table.add_row(path, *(value_text(value) for value in pair))
    if table.row_count:
        print_table(table)
    return 0


def _compare(options: argparse.Namespace) -> int:
    runs = [load_run(find_run(name, "runs compare")) for name in options.names]
    content = comparison(runs, options.resamples, options.confidence)
    if options.json:
        print_json(content)
    else:
        print_comparison(content)
    return 0


def _metrics(run: StoredRun) -> dict[str, Any]:
    return {kind: run.metrics[kind] for kind in READINGS if run.metrics.get(kind)}


# --- clean


def _clean(options: argparse.Namespace) -> int:
    folder = _outputs(options)
    runs, problems = stored_runs(folder)
    for problem in problems:
        warn(f"warning: {problem}")
    found = [run for run in runs if run.state in ("interrupted", "failed")]
    remains = [
        path for path in folder.glob(".*.new-*") if _OWN.match(path.name) and path.is_dir()
    ]  # of killed processes
    locks = [path for path in folder.glob(".*.lock") if _OWN.match(path.name) and not is_held(path) and path.exists()]
    removed: list[str] = []
    for run in found if options.yes else ():
        if _remove(run):
            removed.append(run.name)
    if options.yes:
        for path in remains:
            remove_run(path)
        for path in locks:
            path.unlink(missing_ok=True)
        repoint_latest(folder)
    if options.json:
        print_json({"found": [run.as_row() for run in found], "removed": removed})
        return 0
    for run in found:
        row = run.as_row()
        verb = "removed" if run.name in removed else "kept" if options.yes else "would be removed"
        say(f"{verb}: {run.name} ({run.state}, {_cell('epochs', row)} epochs)")
    if not found:
        say(f"no incomplete runs in {shown(folder)}")
    elif not options.yes:
        say("nothing was removed; `--yes` removes them")
    return 0


def _remove(run: StoredRun) -> bool:
    """Remove a run, unless somebody has just taken it up or processes of it still live."""
    lock = Lock(run.workspace.lock, str(run.workspace.path))
    try:
        lock.acquire()
    except (LockedError, OSError) as error:
        warn(f"warning: {error}")
        return False
    try:
        if left := leftovers(run.workspace.path):
            pids = ", ".join(str(process.pid) for process in left)
            warn(f"warning: {run.name}: processes {pids} of it live; `visionforge doctor` tells more")
            return False
        if others := remove_run(run.workspace.path):
            names = ", ".join(str(shown(path)) for path in others[:5]) + (" …" if len(others) > 5 else "")
            warn(f"warning: {run.name}: {len(others)} files that no run consists of were left: {names}")
    finally:
        lock.release()
    return True
