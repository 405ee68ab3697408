"""The figures of a study: each a page of its own that opens offline, and one page that holds them all."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from visionforge.runs.files import within, write_atomic
from visionforge.runs.paths import shown
from visionforge.tuning.pictures import write_pictures
from visionforge.tuning.report import (
    FEWEST_FOR_IMPORTANCE,
    first_objective,
    importance_evaluator,
    importances,
    short_names,
    text_of,
    to_rank,
)
from visionforge.tuning.storage import StudyFolder
from visionforge.tuning.study import minimised
from visionforge.tuning.trials import counted

PANEL_PIXELS = 170  # height of one panel of the contour plot
MOST_PARAMETERS = 5  # of a contour plot, which has a panel for each pair of them


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

    completed, names = to_rank(study)
    if not names:
        raise ValueError(f"importances need {FEWEST_FOR_IMPORTANCE} complete trials with different values")
    return plot_param_importances(first_objective(study), evaluator=importance_evaluator(len(completed)), params=names)


def _draw_contour(study: Study) -> Any:
    from optuna.visualization import plot_contour

    names = _most_important(study)
    if len(names) < 2:
        raise ValueError("a contour needs two parameters")
    figure = plot_contour(study, params=names, **_target(study))
    return figure.update_layout(height=PANEL_PIXELS * len(names))


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

    within(folder.path, folder.figures.name).mkdir(parents=True, exist_ok=True)
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
        facts |= {path: text_of(value) for path, value in best["params"].items()}
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
        lines.append("".join(f"<td{_class(cell)}>{html.escape(text_of(cell))}</td>" for cell in cells))
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    inner = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{inner}</tbody></table></div>'


def _class(value: Any) -> str:
    return ' class="number"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
