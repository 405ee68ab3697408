"""What a study leaves: the best configuration, a summary, a spreadsheet, figures, and one page that holds them all."""

import datetime
import html
import io
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from openpyxl import Workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from visionforge.config.problems import nearest
from visionforge.errors import RunError
from visionforge.runs.anchors import shown
from visionforge.runs.files import write_atomic
from visionforge.tuning.objective import BEST_EPOCH, EPOCHS
from visionforge.tuning.pictures import write_pictures
from visionforge.tuning.study import REASON, RUN, StudyFolder, best_trials, counted, finished, minimised

log = logging.getLogger(__name__)

TOP = 10
FEWEST_FOR_IMPORTANCE = 4
PANEL_PIXELS = 170  # height of one panel of the contour plot
MOST_PARAMETERS = 5  # of a contour plot, which has a panel for each pair of them
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def duration_s(trial: FrozenTrial) -> float | None:
    """Return how long a trial took, in seconds; None while it runs."""
    return None if trial.duration is None else trial.duration.total_seconds()


def trial_row(trial: FrozenTrial, names: list[str]) -> dict[str, Any]:
    """Return what the reports say of a trial."""
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return {
        "trial": trial.number,
        "state": STATES[trial.state],
        **{name: None if values is None else values[index] for index, name in enumerate(names)},
        "best_epoch": trial.user_attrs.get(BEST_EPOCH),
        "epochs": len(trial.intermediate_values) or trial.user_attrs.get(EPOCHS),
        "seconds": duration_s(trial),
        "params": trial.params,
        "reason": trial.user_attrs.get(REASON),
        "run": trial.user_attrs.get(RUN),
    }


def summary(study: Study, names: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `study_summary.json`.

    Args:
        study: The study.
        names: Names of the objectives.
        settings: The section `tune` of its settings.
    """
    trials = counted(study.get_trials(deepcopy=False))
    states = [STATES[trial.state] for trial in trials]
    best = best_trials(study)
    planned = sum(int(t.user_attrs.get(EPOCHS, 0)) for t in finished(trials) if t.state != TrialState.FAIL)
    trained = sum(len(t.intermediate_values) for t in finished(trials) if t.state != TrialState.FAIL)
    return {
        "study": study.study_name,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "objectives": {n: d.name.lower() for n, d in zip(names, study.directions, strict=True)},
        "counts": {state: states.count(state) for state in ("complete", "pruned", "failed", "running")},
        "epochs_saved": 1 - trained / planned if planned and len(names) == 1 else None,
        "best": trial_row(best[0], names) if best else None,
        "importances": importances(study),
        "settings": settings,
        "trials": [trial_row(trial, names) for trial in trials],
    }


def _evaluator(trials: int) -> PedAnovaImportanceEvaluator:
    """Return what measures importances: by the best tenth of the trials, or the best quarter of few."""
    return PedAnovaImportanceEvaluator(target_quantile=0.1 if trials >= 20 else 0.25)


def _first_objective(study: Study) -> Study:
    """Return a study as one of its first objective alone."""
    if len(study.directions) == 1:
        return study
    copy = optuna.create_study(direction=study.directions[0])
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        parameters, distributions = trial.params, trial.distributions
        copy.add_trial(create_trial(value=trial.values[0], params=parameters, distributions=distributions))
    return copy


def _to_rank(study: Study) -> tuple[list[FrozenTrial], list[str]]:
    """Return the completed trials, and the parameters about which they can tell something.

    Few trials tell nothing; nor does a parameter that only one of them has, or only one has not.
    """
    completed = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(completed) < FEWEST_FOR_IMPORTANCE or len({t.values[0] for t in completed}) < 2:
        return completed, []
    having = Counter(name for trial in completed for name in trial.params)
    return completed, [name for name, n in having.items() if n > 1 and len(completed) - n != 1]


def importances(study: Study) -> dict[str, float]:
    """Return how much every parameter matters for being among the best trials, largest first; they add up to 1.

    Computed by Optuna's PED-ANOVA (Watanabe et al., 2023, arXiv:2304.10255); nothing with too few trials.
    """
    completed, names = _to_rank(study)
    if not names:
        return {}
    try:
        single = _first_objective(study)
        found = optuna.importance.get_param_importances(single, evaluator=_evaluator(len(completed)), params=names)
        return dict(found)
    except (ValueError, RuntimeError) as error:  # no parameter that all trials share
        log.debug("no importances (%s)", error)
        return {}


# --- tables


def write_tables(study: Study, folder: StudyFolder, names: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Write the best configuration, the summary and the spreadsheet; return the summary."""
    content = summary(study, names, settings)
    folder.reports.mkdir(parents=True, exist_ok=True)
    write_atomic(folder.reports / "study_summary.json", json.dumps(content, indent=2) + "\n")
    best = best_trials(study)
    if best:
        write_best_config(best[0], folder, names)
        _write_spreadsheet(best[:TOP], folder, names)
    return content


def write_best_config(trial: FrozenTrial, folder: StudyFolder, names: list[str]) -> None:
    """Write the configuration of the best trial as a plain file for `fit`, with the full number of epochs."""
    run = trial.user_attrs.get(RUN)
    if run is None or not (Path(run) / "config.yaml").is_file():
        log.warning("trial %d: its run folder is gone, so its configuration is not written", trial.number)
        return
    config = yaml.safe_load((Path(run) / "config.yaml").read_text(encoding="utf-8"))
    study_config = yaml.safe_load(folder.settings.read_text(encoding="utf-8"))
    epochs = config["trainer"]["max_epochs"]
    config["trainer"] |= {"max_epochs": study_config["trainer"]["max_epochs"], "default_root_dir": None}
    values = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, trial.values, strict=True))
    heading = (
        f"# Best of the study {folder.path.name}: trial {trial.number}, {values}\n"
        f"# found with --seed_everything {config['seed_everything']} --trainer.max_epochs {epochs}\n"
    )
    write_atomic(folder.reports / "best_config.yaml", heading + yaml.safe_dump(config, sort_keys=False))


def _write_spreadsheet(trials: list[FrozenTrial], folder: StudyFolder, names: list[str]) -> None:
    parameters = sorted({name for trial in trials for name in trial.params})
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Top trials"
    headings = ["rank", "trial", *names, "best epoch", "minutes", *parameters, "run folder"]
    sheet.append(headings)
    for rank, trial in enumerate(trials, start=1):
        seconds = duration_s(trial)
        row: list[Any] = [rank, trial.number, *trial.values, trial.user_attrs.get(BEST_EPOCH)]
        row += [None if seconds is None else seconds / 60, *(trial.params.get(name) for name in parameters)]
        sheet.append([*row, trial.user_attrs.get(RUN)])
    for cell in sheet[1]:
        cell.font = Font(bold=True, color="FFFFFF")
        cell.fill = PatternFill("solid", fgColor="2F4B7C")
        cell.alignment = Alignment(wrap_text=True, vertical="center")
    for index, heading in enumerate(headings, start=1):
        letter = get_column_letter(index)
        widest = max(len(_text(sheet.cell(number, index).value)) for number in range(2, sheet.max_row + 1))
        sheet.column_dimensions[letter].width = min(60, max(widest, *(len(part) for part in heading.split("."))) + 3)
        for number in range(2, sheet.max_row + 1):
            cell = sheet.cell(number, index)
            if isinstance(cell.value, float):
                small = cell.value != 0 and abs(cell.value) < 1e-3
                cell.number_format = "0.00E+00" if small else "0.00" if heading == "minutes" else "0.0000"
    for cell in sheet[2]:
        cell.fill = PatternFill("solid", fgColor="E3ECF7")  # the best
    sheet.freeze_panes = "C2"
    sheet.auto_filter.ref = sheet.dimensions
    buffer = io.BytesIO()
    book.save(buffer)
    write_atomic(folder.reports / "top_10_trials.xlsx", buffer.getvalue())


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


# --- figures


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: Name of its file.
        title: What it shows.
        draw: Draws it with plotly; raises ValueError or RuntimeError where there are too few trials.
    """

    name: str
    title: str
    draw: Callable[[Study], Any]


def _target(study: Study) -> dict[str, Any]:
    """Return the arguments by which a plot shows the first of two objectives."""
    if len(study.directions) == 1:
        return {}
    return {
        "target": lambda trial: trial.values[0],
        "target_name": "first objective",
    }


def _most_important(study: Study) -> list[str]:
    ranked = list(importances(study))
    every = sorted({name for trial in study.trials for name in trial.params})
    return [*ranked, *(name for name in every if name not in ranked)][:MOST_PARAMETERS]


def figures_of(study: Study) -> list[Figure]:
    """Return the figures of a study."""
    from optuna import visualization as plots

    found = [
        Figure("param_importances", "Which parameters matter", _draw_importances),
        Figure("optimization_history", "Best value so far", lambda s: plots.plot_optimization_history(s, **_target(s))),
        Figure(
            "parallel_coordinates", "Every trial as a line", lambda s: plots.plot_parallel_coordinate(s, **_target(s))
        ),
        Figure("slice", "Value over each parameter", lambda s: plots.plot_slice(s, **_target(s))),
        Figure("contour", "Value over pairs of the parameters that matter most", _draw_contour),
        Figure("intermediate_values", "Every trial over its epochs", plots.plot_intermediate_values),
        Figure("timeline", "When each trial ran, and how it ended", plots.plot_timeline),
    ]
    if len(study.directions) > 1:
        found.insert(0, Figure("pareto_front", "Trials that no other one beats", plots.plot_pareto_front))
    return found


def _draw_importances(study: Study) -> Any:
    from optuna.visualization import plot_param_importances

    completed, names = _to_rank(study)
    if not names:
        raise ValueError(f"importances need {FEWEST_FOR_IMPORTANCE} complete trials with different values")
    return plot_param_importances(_first_objective(study), evaluator=_evaluator(len(completed)), params=names)


def _draw_contour(study: Study) -> Any:
    from optuna.visualization import plot_contour

    names = _most_important(study)
    if len(names) < 2:
        raise ValueError("a contour needs two parameters")
    figure = plot_contour(study, params=names, **_target(study))
    return figure.update_layout(height=PANEL_PIXELS * len(names))


def short_names(paths: list[str]) -> dict[str, str]:
    """Return the last part of every dotted name, or as many parts as tell it from the others."""
    result: dict[str, str] = {}
    for path in paths:
        parts = path.split(".")
        for count in range(1, len(parts) + 1):
            short = ".".join(parts[-count:])
            if sum(other.endswith(f".{short}") or other == short for other in paths) == 1:
                break
        result[path] = short
    return result


def for_figures(study: Study) -> Study:
    """Return a copy in memory with the trials that count, and parameters with short names."""
    trials = counted(study.get_trials(deepcopy=False))
    names = short_names(sorted({name for trial in trials for name in trial.params}))
    copy = optuna.create_study(directions=study.directions, study_name=study.study_name)
    for trial in trials:
        if trial.state.is_finished():
            short = create_trial(
                state=trial.state,
                values=trial.values if trial.state == TrialState.COMPLETE else None,
                params={names[name]: value for name, value in trial.params.items()},
                distributions={names[name]: value for name, value in trial.distributions.items()},
                intermediate_values=trial.intermediate_values,
            )
            short.datetime_start, short.datetime_complete = trial.datetime_start, trial.datetime_complete
            copy.add_trial(short)
    return copy


def write_figures(study: Study, folder: StudyFolder, content: dict[str, Any]) -> None:
    """Write the figures, each a page of its own that opens offline, and `index.html` with all of them.

    Args:
        study: The study.
        folder: Where it lies.
        content: Its summary.
    """
    import plotly.io
    from plotly.offline import get_plotlyjs

    folder.figures.mkdir(parents=True, exist_ok=True)
    copy = for_figures(study)
    script = get_plotlyjs()
    parts: list[tuple[Figure, str]] = []
    for figure in figures_of(copy):
        try:
            drawn = figure.draw(copy)
            drawn.update_layout(title=None, template="plotly_white", margin={"t": 30}, autosize=True)
            body = plotly.io.to_html(drawn, full_html=False, include_plotlyjs=False, config={"displaylogo": False})
        except (ValueError, RuntimeError, IndexError, KeyError) as error:
            reason = html.escape(" ".join(str(error).split())[:200])
            body = f'<p class="note">There are too few finished trials for this figure yet ({reason}).</p>'
        parts.append((figure, body))
        page = _page(f"{study.study_name}: {figure.title}", f"<h1>{html.escape(figure.title)}</h1>{body}", script)
        write_atomic(folder.figures / f"{figure.name}.html", page)
    write_atomic(folder.path / "index.html", _index(study, folder, content, parts, script))
    names = list(content["objectives"])
    write_pictures(copy, folder.figures, importances(copy), names[0], minimised(names[0]))


_STYLE = """
:root { color-scheme: light dark;
  --text: #1c2430; --faint: #5b6675; --line: #d9dee6; --paper: #ffffff; --head: #f3f6fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6eaf0; --faint: #9aa6b5; --line: #38424f; --paper: #151a21; --head: #1f2630; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper);
  margin: 0 auto; padding: 1.5rem; max-width: 1200px; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.note, .lead { color: var(--faint); } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { background: var(--head); } td.number { text-align: right; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .8rem 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.plot { background: #fff; border-radius: 6px; overflow-x: auto; }
.plotly-graph-div { min-height: 420px; min-width: 340px; }
#parallel_coordinates + .plot .plotly-graph-div, #contour + .plot .plotly-graph-div { min-width: 760px; }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
code { font-size: .9em; }
"""


def _page(title: str, body: str, script: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><script>{script}</script></head>"
        f"<body>{body}</body></html>\n"
    )


def _index(
    study: Study, folder: StudyFolder, content: dict[str, Any], parts: list[tuple[Figure, str]], script: str
) -> str:
    names = list(content["objectives"])
    counts = ", ".join(f"{number} {state}" for state, number in content["counts"].items() if number)
    saved = content["epochs_saved"]
    facts = {
        "Trials": counts or "none yet",
        "Searched for": ", ".join(f"{name} ({direction})" for name, direction in content["objectives"].items()),
        "Written": content["written"],
    }
    if saved is not None and content["counts"]["pruned"]:
        facts["Epochs saved by pruning"] = f"{saved:.0%}"
    best = content["best"]
    if best is not None:
        facts["Best"] = f"trial {best['trial']}, " + ", ".join(f"{name} {best[name]:.6g}" for name in names)
        facts |= {path: _text(value) for path, value in best["params"].items()}
        facts["Run folder"] = best["run"] or "–"
        facts["Train it"] = f"visionforge fit --config {shown(folder.reports / 'best_config.yaml')}"
    listed = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in facts.items())
    body = [f"<h1>{html.escape(study.study_name)}</h1><dl>{listed}</dl>"]
    body += [
        f'<h2 id="{figure.name}">{html.escape(figure.title)}</h2><div class="plot">{part}</div>'
        for figure, part in parts
    ]
    body.append(f"<h2>All trials</h2>{_table(content['trials'], names)}")
    return _page(study.study_name, "".join(body), script)


def _table(rows: list[dict[str, Any]], names: list[str]) -> str:
    parameters = sorted({name for row in rows for name in row["params"]})
    short = short_names(parameters)
    headings = ["trial", "state", *names, "epochs", "minutes", *(short[name] for name in parameters), "reason"]
    lines = []
    for row in rows:
        minutes = None if row["seconds"] is None else row["seconds"] / 60
        cells = [row["trial"], row["state"], *(row[name] for name in names), row["epochs"], minutes]
        cells += [*(row["params"].get(name) for name in parameters), row["reason"]]
        lines.append("".join(f"<td{_class(cell)}>{html.escape(_text(cell))}</td>" for cell in cells))
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    inner = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{inner}</tbody></table></div>'


def _class(value: Any) -> str:
    return ' class="number"' if isinstance(value, int | float) and not isinstance(value, bool) else ""


def find_study(text: str, studies: Path) -> StudyFolder:
    """Return the folder of a study, given by path or by name.

    Raises:
        RunError: If there is none.
    """
    for path in (Path(text).expanduser(), studies / text):
        if (path / "config.yaml").is_file():
            return StudyFolder(path)
    known = [path.parent.name for path in sorted(studies.glob("*/config.yaml"))]
    close = nearest(text, known) or known
    hint = f"; nearest: {', '.join(close)}" if close else ""
    raise RunError(f"--report: {text} is no study: a folder below {studies} with a config.yaml{hint}")
