"""The pages of a study, which open offline: one for each figure, and `index.html` with all of them and every trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionforge.reporting.figures.interactive import Spec
from visionforge.reporting.rendering import Table, render
from visionforge.runs.files import write_atomic


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study.

    Attributes:
        name: Name of its file, without suffix, and its anchor in `index.html`.
        title: What it shows.
        spec: The figure as Plotly draws it, or None where there are too few trials for it.
        reason: Why there is none.
    """

    name: str
    title: str
    spec: Spec | None
    reason: str = ""


def write_figure_page(folder: Path, study: str, figure: StudyFigure) -> None:
    """Write the page of one figure, `NAME.html`.

    Args:
        folder: Where it goes.
        study: Name of the study.
        figure: The figure.
    """
    title = f"{study}: {figure.title}"
    page = render("study_figure.html.j2", title=title, figure=figure, figures=_specs([figure]))
    write_atomic(folder / f"{figure.name}.html", page)


def write_study_page(
    path: Path, study: str, facts: Mapping[str, str], figures: Sequence[StudyFigure], trials: Table
) -> None:
    """Write the page of a study.

    Args:
        path: The HTML file.
        study: Name of the study.
        facts: Name → text, for the lines under the heading.
        figures: The figures, in their order.
        trials: A line for every trial.
    """
    page = render("study.html.j2", title=study, facts=facts, drawings=figures, trials=trials, figures=_specs(figures))
    write_atomic(path, page)


def _specs(figures: Sequence[StudyFigure]) -> list[Spec]:
    return [figure.spec for figure in figures if figure.spec is not None]
