"""The page of an outputs folder, which opens offline: its runs in a table, by configuration, and their curves."""

import datetime
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.comparison import spread
from visionforge.evaluation.metric_names import interval_text, metric_text
from visionforge.evaluation.run_facts import cell_text
from visionforge.evaluation.run_summaries import Measured, RunSummary, different_settings, run_summaries
from visionforge.printable import printable
from visionforge.reporting.rendering import render
from visionforge.runs.files import write_atomic
from visionforge.runs.manifest import utc_now
from visionforge.runs.paths import resolve, shown, writable
from visionforge.runs.query import named_outputs

NAME = "runs.html"
GENERATOR = "visionforge runs page"  # what the page says of its origin
MOST_DIFFERENT = 24  # columns of settings
MOST_SERIES = 40  # names of curves
_HEAD_BYTES = 2_000
_LONGEST_NAME = 255
_LONGEST_VALUE = 120
_FIXED = 1e4  # from here on numbers have a power
Kind = Literal["text", "number"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: By which the address of the page names it.
        label: Its heading.
        above: What stands above that in small letters.
        kind: What it is sorted as.
        setting: Whether it is a setting, and goes where all shown runs have the same.
    """

    key: str
    label: str
    kind: Kind = "text"
    above: str = ""
    setting: bool = False


@dataclass(frozen=True)
class Value:
    """A cell of a table.

    Attributes:
        text: What it says.
        small: What stands below in small letters.
        order: By which number it is sorted; None comes last among numbers, and is its text among texts.
        link: Where it leads.
    """

    text: str
    small: str = ""
    order: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Group:
    """A line for a configuration, and its runs by their places."""

    cells: Sequence[Value]
    runs: Sequence[int]


def runs_page(outputs: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Write a page that compares the runs of an outputs folder: a table, their curves, and means over seeds.

    Args:
        outputs: The folder; None is `outputs` in the working folder, or $VISIONFORGE_OUTPUTS.
        out: The HTML file; None is `runs.html` in that folder. An earlier page is replaced, another file is not.

    Returns:
        Where it is.

    Raises:
        RunError: If there is no such folder, or no run in it, or the page cannot be written.
        SettingsError: If another file is in its place.
    """
    folder = named_outputs(None if outputs is None else str(outputs))
    path = folder / NAME if out is None else _named(out)
    _require_free(path)
    runs, problems = run_summaries(folder)
    if not runs and not problems:
        raise RunError(f"outputs: there are no runs in {shown(folder)}; name a folder that holds some")
    page = render(
        "runs.html.j2",
        title=f"Runs of {printable(shown(folder), _LONGEST_NAME)}",
        generator=GENERATOR,
        written=cell_text("started", {"started": utc_now()}),
        figures=[],
        problems=[printable(problem) for problem in problems],
        **_shown(runs, path.parent),
    )
    try:
        write_atomic(path, page)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"out: {printable(shown(path))} cannot be written ({reason}); name another file") from error
    return path


def _named(out: str | Path) -> Path:
    try:
        return resolve(out)
    except (ValueError, RuntimeError) as error:  # no such anchor, or nobody's home folder
        raise SettingsError(f"out: {error}") from error


def _require_free(path: Path) -> None:
    """Check that a page can be written without losing anything."""
    told = printable(shown(path))
    if path.is_dir():
        raise SettingsError(f"out: {told} is a folder; name a file")
    if os.path.lexists(path) and (path.is_symlink() or not _is_ours(path)):
        raise SettingsError(f"out: {told} exists already, and this command has not written it; name another file")
    if not writable(path.parent):
        raise RunError(f"out: {told} cannot be written; name a file in another folder")


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'name="generator" content="{GENERATOR}"'.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


# --- what is shown


def _shown(runs: Sequence[RunSummary], folder: Path) -> dict[str, Any]:
    different = different_settings(runs)
    settings = sorted(different[:MOST_DIFFERENT])
    label = _label([run.main for run in runs])
    series = _series(runs)
    return {
        "columns": _columns(runs, settings, label),
        "lines": [_cells(run, settings, folder, label) for run in runs],
        "filters": {
            "state": sorted({str(run.row["state"]) for run in runs}),
            "dataset": sorted({_name(run, "dataset") for run in runs}),
            "model": sorted({_name(run, "model") for run in runs}),
        },
        "more_settings": len(different) - len(settings),
        **_groups(runs, settings, label),
        "curves": {"series": series, "runs": [_curves(run, series) for run in runs]},
    }


def _label(measured: Sequence[Measured | None]) -> str | None:
    """Return what the main metric of all runs is called; None if they have several."""
    labels = {each.label for each in measured if each is not None}
    return labels.pop() if len(labels) == 1 else None


def _columns(runs: Sequence[RunSummary], settings: Sequence[str], label: str | None) -> list[Column]:
    return [
        Column("run", "run"),
        Column("state", "state"),
        Column("dataset", "data set"),
        Column("model", "model"),
        Column("seed", "seed", "number"),
        Column("metric", label or "main metric", "number"),
        Column("accuracy", "accuracy", "number"),
        Column("epochs", "epochs", "number"),
        *(_setting_column(path, [run.settings.get(path) for run in runs]) for path in settings),
        Column("duration", "duration", "number"),
        Column("started", "started", "number"),
        Column("size", "size", "number"),
    ]


def _setting_column(path: str, values: Sequence[Any]) -> Column:
    kind: Kind = "number" if all(value is None or isinstance(value, float) for value in values) else "text"
    section, dot, name = path.rpartition(".")
    return Column(path, name, kind, f"{section}{dot}", setting=True)


def _name(run: RunSummary, key: str) -> str:
    return printable(run.row[key], _LONGEST_VALUE)


def _cells(run: RunSummary, settings: Sequence[str], folder: Path, label: str | None) -> list[Value]:
    row = run.row
    stage = "" if row["stage"] == "fit" else str(row["stage"])
    origin = ", ".join(filter(None, (stage, run.parent and f"of {run.parent}")))
    started = datetime.datetime.fromisoformat(row["started"]).timestamp()
    return [
        Value(printable(run.name, _LONGEST_NAME), printable(origin, _LONGEST_VALUE), link=_link(run.report, folder)),
        Value(row["state"], printable(row["error"] or "", _LONGEST_VALUE)),
        Value(_name(run, "dataset")),
        Value(_name(run, "model")),
        Value(cell_text("seed", row), order=row["seed"]),
        _measured(run.main, run.partial, named=label is None),
        _measured(run.accuracy, run.partial),
        Value(cell_text("epochs", row), order=row["epochs"]),
        *(_setting(run.settings.get(path)) for path in settings),
        Value(cell_text("seconds", row), order=row["seconds"]),
        Value(cell_text("started", row), order=started),
        Value(cell_text("bytes", row), order=row["bytes"]),
    ]


def _measured(found: Measured | None, partial: bool, named: bool = False) -> Value:
    if found is None:
        return Value("–")
    told = [
        found.label if named else "",
        interval_text(found.ends, None, " – "),
        "part of the images" if partial else "",
    ]
    text = f"{found.value:.4f}" if abs(found.value) < _FIXED else f"{found.value:.4g}"
    return Value(text, ", ".join(filter(None, told)), found.value)


def _setting(value: Any) -> Value:
    if value is None:
        return Value("–")
    return Value(f"{value:.6g}", order=value) if isinstance(value, float) else Value(value)


def _link(report: Path | None, folder: Path) -> str:
    """Return the address of a report beside the page; none where it is on another disk."""
    if report is None:
        return ""
    try:
        way = os.path.relpath(report.absolute(), folder.absolute())
    except ValueError:
        return ""
    return quote(os.fsencode(Path(way).as_posix()))


# --- configurations


def _groups(runs: Sequence[RunSummary], settings: Sequence[str], label: str | None) -> dict[str, Any]:
    """Return a line for each configuration, whatever its seed, and the columns; no line where each has one run."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        if run.configuration is not None:
            places[run.configuration].append(place)
    if all(len(members) < 2 for members in places.values()):
        return {"groups": [], "group_columns": []}
    alike: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for first, *_ in places.values():
        alike[_kin(runs[first])].append(runs[first])
    columns = [
        Column("dataset", "data set"),
        Column("model", "model"),
        Column("settings", "settings that differ"),
        Column("runs", "tested runs", "number"),
        Column("seeds", "seeds"),
        Column("metric", label or "main metric", "number"),
        Column("accuracy", "accuracy", "number"),
    ]
    lines = [
        Group(_group_cells([runs[place] for place in members], alike, settings, label is None), members)
        for members in places.values()
    ]
    return {"groups": lines, "group_columns": columns}


def _kin(run: RunSummary) -> tuple[str, str]:
    return _name(run, "dataset"), _name(run, "model")


def _group_cells(
    runs: Sequence[RunSummary],
    alike: Mapping[tuple[str, str], Sequence[RunSummary]],
    settings: Sequence[str],
    named: bool,
) -> list[Value]:
    first, kin = runs[0], _kin(runs[0])
    different = [path for path in settings if len({other.settings.get(path) for other in alike[kin]}) > 1]
    told = "; ".join(f"{path} {_setting(first.settings.get(path)).text}" for path in different)
    seeds = sorted({run.row["seed"] for run in runs if run.row["seed"] is not None})
    tested = sum(run.main is not None for run in runs)
    return [
        *map(Value, kin),
        Value(told or "–"),
        Value(str(tested) if tested == len(runs) else f"{tested} of {len(runs)}", order=tested),
        Value(printable(", ".join(map(str, seeds)), _LONGEST_VALUE)),
        _spread([run.main for run in runs], named),
        _spread([run.accuracy for run in runs]),
    ]


def _spread(measured: Sequence[Measured | None], named: bool = False) -> Value:
    known = [each for each in measured if each is not None]
    found = spread([each.value for each in known])
    if found is None:
        return Value("–")
    return Value(metric_text(found), known[0].label if named else "", found["mean"])


# --- curves


def _series(runs: Sequence[RunSummary]) -> list[str]:
    """Return the names of all curves: the main metrics of the tasks, losses, other metrics, and learning rates."""
    counts = Counter(name for run in runs for name in run.curves.values)
    main = {f"val/{run.main.name}" for run in runs if run.main is not None}

    def place(name: str) -> tuple[int, int, str]:
        kind = 0 if name in main else 1 if name.endswith("/loss") else 3 if name.startswith("lr") else 2
        return kind, -counts[name], name

    return sorted(counts, key=place)[:MOST_SERIES]


def _curves(run: RunSummary, series: Sequence[str]) -> dict[str, Any]:
    """Return the curves of a run by the places of their names."""
    found = {place: run.curves.values[name] for place, name in enumerate(series) if name in run.curves.values}
    name = printable(run.name, _LONGEST_NAME)
    if not found:
        return {"name": name}
    return {"name": name, "epochs": run.curves.epochs, "minutes": run.curves.minutes, "values": found}
