"""The figures of a study: what Optuna draws, what its pictures show, and what its page says of the trials."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from visionforge.evaluation.run_facts import duration
from visionforge.reporting.figures.interactive import Spec
from visionforge.reporting.figures.static import own_style, save_figures
from visionforge.reporting.figures.study import (
    Axis,
    category_axis,
    history,
    importance_bars,
    number_axis,
    parallel_coordinates,
)
from visionforge.reporting.figures.study_plots import (
    DrawnTrial,
    epochs_plot,
    history_plot,
    importance_plot,
    parallel_plot,
    pareto_plot,
    slices_plot,
    timeline_plot,
)
from visionforge.reporting.rendering import Cell, Table
from visionforge.reporting.study_page import StudyFigure, write_figure_page, write_study_page
from visionforge.runs.files import within
from visionforge.runs.paths import shown
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.report import (
    FEWEST_FOR_IMPORTANCE,
    STATES,
    short_names,
    text_of,
    train_command,
)
from visionforge.tuning.study import best_trials, minimised
from visionforge.tuning.trials import counted

PANEL_PIXELS = 170  # height of one panel of the contour plot
MOST_AXES = 8  # parameters that lines cross
MOST_PARAMETERS = 5  # of a contour plot, which has a panel for each pair of them
MOST_DRAWN = 1000  # trials that figures and table show; all are in the summary
MOST_OF_CONTOUR = 100  # trials of a contour plot, which has a value for each two of them


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: Name of its file.
        title: What it shows.
        draw: Returns it as Plotly draws it; raises ValueError or RuntimeError where there are too few trials.
    """

    name: str
    title: str
    draw: Callable[[], Spec]


def figures_of(study: Study, importances: Mapping[str, float], names: Sequence[str]) -> list[Figure]:
    """Return the figures of a study.

    Args:
        study: What is drawn of it, with short names of the parameters.
        importances: Share of each parameter, of all trials.
        names: Names of the objectives.
    """
    trials = [_drawn_trial(trial) for trial in study.get_trials(deepcopy=False)]
    metric, minimise = names[0], study.directions[0] == StudyDirection.MINIMIZE
    ordered = _by_importance(study, importances)
    few = ordered[:MOST_AXES]
    over = f"Every trial as a line over {'the' if len(few) == len(ordered) else f'the {MOST_AXES}'} parameters"
    matter = "" if len(few) == len(ordered) else " that matter most"
    shown = {trial.number for trial in trials if trial.value is not None}
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.number in shown]
    found = [
        Figure("param_importances", "Which parameters matter", lambda: _importances(importances)),
        Figure("optimization_history", "Best value so far", lambda: history_plot(trials, metric, minimise)),
        Figure(
            "parallel_coordinates",
            over + matter,
            lambda: parallel_plot(trials, _axes(complete, few), metric, minimise),
        ),
        Figure(
            "slice", "Value over each parameter", lambda: slices_plot(trials, _every_axis(complete, ordered), metric)
        ),
        Figure(
            "contour",
            "Value over pairs of the parameters that matter most",
            lambda: _contour(study, ordered[:MOST_PARAMETERS], metric),
        ),
        Figure("intermediate_values", "Every trial over its epochs", lambda: epochs_plot(trials, metric, minimise)),
        Figure("timeline", "When each trial ran, and how it ended", lambda: timeline_plot(trials)),
    ]
    if len(names) > 1:
        front = [trial.number for trial in study.best_trials] if complete else []
        front_of = partial(pareto_plot, trials, front, names)
        found.insert(0, Figure("pareto_front", "Trials that no other one beats", front_of))
    return found


def _drawn_trial(trial: FrozenTrial) -> DrawnTrial:
    """Return what figures show of a trial; a value that is not finite has no place on an axis."""
    given = [*trial.values, None][:2] if trial.state == TrialState.COMPLETE else (None, None)
    value, second = (None if each is None or not math.isfinite(each) else each for each in given)
    begun, ended = (
        None if time is None else time.isoformat(timespec="milliseconds")
        for time in (trial.datetime_start, trial.datetime_complete)
    )
    state = STATES[trial.state]
    epochs = {step: each for step, each in trial.intermediate_values.items() if math.isfinite(each)}
    return DrawnTrial(trial.number, state, value, second, trial.params, epochs, begun, ended)


def _by_importance(study: Study, importances: Mapping[str, float]) -> list[str]:
    """Return the names of the parameters, the most important first."""
    every = sorted({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
    return [*importances, *(name for name in every if name not in importances)]


def _importances(importances: Mapping[str, float]) -> Spec:
    if not importances:
        raise ValueError(f"importances need {FEWEST_FOR_IMPORTANCE} complete trials with different values")
    return importance_plot(importances)


def _contour(study: Study, names: list[str], metric: str) -> Spec:
    """Return Optuna's contours, in the words of the page."""
    from optuna.visualization import plot_contour

    if len(names) < 2:
        raise ValueError("a contour needs two parameters")
    every = {name: name for trial in study.get_trials(deepcopy=False) for name in trial.params}
    shown = for_figures(study, to_draw(study, MOST_OF_CONTOUR), every)
    target = None if len(study.directions) == 1 else _first_value
    figure = plot_contour(shown, params=names, target=target, target_name=metric)
    figure.update_layout(title=None, template=None, height=PANEL_PIXELS * len(names), margin={"t": 30, "l": 80})
    found: Spec = json.loads(figure.to_json())
    return found


def _first_value(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def to_draw(study: Study, most: int) -> list[FrozenTrial]:
    """Return the trials that are drawn, in their order; of more than so many a part that shows the whole.

    These are the trials that were the best when they ended, the best ones, which are a quarter, and an even share of
    the others.
    """
    trials = counted(study.get_trials(deepcopy=False))
    if len(trials) <= most:
        return trials
    downwards = study.directions[0] == StudyDirection.MINIMIZE
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    kept, best = {trial.number for trial in best_trials(study)[: most // 4]}, math.inf
    for trial in complete:
        value = trial.values[0] if downwards else -trial.values[0]
        if value < best:
            best = value
            kept.add(trial.number)
    others = [trial for trial in trials if trial.number not in kept]
    wanted = max(0, most - len(kept))
    kept |= {others[len(others) * place // wanted].number for place in range(wanted)}
    return [trial for trial in trials if trial.number in kept]


def for_figures(study: Study, trials: Iterable[FrozenTrial], names: Mapping[str, str]) -> Study:
    """Return a copy in memory of some trials, whose parameters have short names.

    Args:
        study: The study.
        trials: The trials; those that have not ended are left out.
        names: Name of each parameter → short name.
    """
    copy = optuna.create_study(directions=study.directions, study_name=study.study_name)
    ended = [trial for trial in trials if trial.state.is_finished()]
    for trial in ended:
        short = create_trial(
            state=trial.state,
            values=trial.values if trial.state == TrialState.COMPLETE else None,
            params={names[name]: value for name, value in trial.params.items()},
            distributions={names[name]: value for name, value in trial.distributions.items()},
            intermediate_values=trial.intermediate_values,
        )
        short.datetime_start, short.datetime_complete = trial.datetime_start, trial.datetime_complete
        copy.add_trial(short)
    for trial, drawn in zip(ended, copy.get_trials(deepcopy=False), strict=True):
        drawn.number = trial.number  # which the copy has given anew; its storage hands out what it holds
    return copy


def write_figures(study: Study, folder: StudyFolder, content: dict[str, Any]) -> None:
    """Write the figures, each a page of its own that opens offline, and `index.html` with all of them.

    Args:
        study: The study.
        folder: Where it lies.
        content: Its summary.
    """
    within(folder.path, folder.figures.name).mkdir(parents=True, exist_ok=True)
    trials, names = to_draw(study, MOST_DRAWN), list(content["objectives"])
    short = short_names(sorted({name for row in content["trials"] for name in row["params"]}))
    shares = {short[name]: share for name, share in content["importances"].items()}
    copy = for_figures(study, trials, short)
    drawn = [_drawn(figure) for figure in figures_of(copy, shares, names)]
    for figure in drawn:
        write_figure_page(folder.figures, study.study_name, figure)
    numbers = {trial.number for trial in trials}
    rows = [row for row in content["trials"] if row["trial"] in numbers]
    facts, table = _facts(study, folder, content, names), _trials(rows, names)
    if len(rows) < len(content["trials"]):
        summary = shown(folder.reports / "study_summary.json")
        facts["Shown"] = f"{len(rows):,} trials: the best, and an even share of the others; all are in {summary}"
    write_study_page(folder.path / "index.html", study.study_name, facts, drawn, table)
    write_pictures(copy, folder.figures, shares, names[0], minimised(names[0]))


def _drawn(figure: Figure) -> StudyFigure:
    try:
        return StudyFigure(figure.name, figure.title, figure.draw())
    except (ValueError, RuntimeError, IndexError, KeyError) as error:
        return StudyFigure(figure.name, figure.title, None, " ".join(str(error).split())[:200])


def _facts(study: Study, folder: StudyFolder, content: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Return what stands above the figures: name → text."""
    saved, best = content["epochs_saved"], content["best"]
    facts = {
        "Trials": ", ".join(f"{number} {state}" for state, number in content["counts"].items() if number) or "none yet",
        "Searched for": ", ".join(f"{name} ({direction})" for name, direction in content["objectives"].items()),
        "Written": content["written"],
    }
    if saved is not None and content["counts"]["pruned"]:
        facts["Epochs saved by pruning"] = f"{saved:.0%}"
    if best is not None:
        facts["Best"] = f"trial {best['trial']}, " + ", ".join(f"{name} {best[name]:.6g}" for name in names)
        facts |= {path: text_of(value) for path, value in best["params"].items()}
        facts["Run"] = Path(best["run"]).name if best["run"] else "–"
        config = shown(folder.reports / "best_config.yaml")
        facts["Train it"] = train_command(best_trials(study)[0], folder, config)
    return facts


def _trials(rows: list[dict[str, Any]], names: list[str]) -> Table:
    parameters = sorted({name for row in rows for name in row["params"]})
    short = short_names(parameters)
    headings = ["trial", "state", *names, "epochs", "time", *(short[name] for name in parameters), "reason"]
    lines = []
    for row in rows:
        found = [_cell(row[name]) for name in names]
        if row["state"] == "pruned" and row["last_value"] is not None:  # told apart from what others have reached
            found[0] = Cell(text_of(row["last_value"]), "number", f"epoch {row['epochs']}")
        time = "" if row["seconds"] is None else duration(row["seconds"])
        rest = [*(row["params"].get(name) for name in parameters), row["reason"]]
        first = (_cell(row["trial"]), _cell(row["state"]))
        lines.append([*first, *found, _cell(row["epochs"]), Cell(time, "number"), *map(_cell, rest)])
    return Table([Cell(heading) for heading in headings], lines)


def _cell(value: Any) -> Cell:
    return Cell(text_of(value), "number" if isinstance(value, int | float) and not isinstance(value, bool) else "")


def write_pictures(study: Study, folder: Path, importances: Mapping[str, float], metric: str, minimise: bool) -> None:
    """Write what can be drawn already of importances, history and parallel coordinates, without a browser.

    Args:
        study: The study; its parameters have short names.
        folder: Where the pictures go.
        importances: Share of every parameter, largest first.
        metric: Name of the first objective.
        minimise: Whether lower values of it are better.
    """
    completed = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    values = [float(trial.values[0]) for trial in completed]
    figures = []
    with own_style():
        if importances:
            figures.append((importance_bars(importances), folder / "param_importances.png"))
        if completed:
            complete = [(trial.number, value) for trial, value in zip(completed, values, strict=True)]
            drawn = history(complete, _pruned(study), metric, minimise)
            figures.append((drawn, folder / "optimization_history.png"))
            lines = parallel_coordinates(values, metric, minimise, _axes(completed, list(completed[0].params)))
            figures.append((lines, folder / "parallel_coordinates.png"))
        save_figures(figures)


def _pruned(study: Study) -> list[tuple[int, float]]:
    """Return number and last value of the pruned trials that have one."""
    return [
        (trial.number, trial.intermediate_values[max(trial.intermediate_values)])
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.PRUNED and trial.intermediate_values
    ]


def _every_axis(trials: list[FrozenTrial], names: Sequence[str]) -> dict[str, Axis]:
    """Return an axis for every parameter, of the trials that have it."""
    found = {}
    for name in names:
        with_it = [trial for trial in trials if name in trial.params]
        if not with_it:
            continue
        values, distribution = [trial.params[name] for trial in with_it], with_it[0].distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            found[name] = category_axis(name, values, distribution.choices)
        else:
            found[name] = number_axis(name, values, bool(getattr(distribution, "log", False)))
    return found


def _axes(trials: list[FrozenTrial], names: Sequence[str]) -> list[Axis]:
    """Return an axis for every parameter that all trials have."""
    found = _every_axis(trials, [name for name in names if all(name in trial.params for trial in trials)])
    return list(found.values())
