"""`report.html`: one page with everything a reader needs to judge a run; it opens offline, and asks for nothing."""

from pathlib import Path

from visionforge.evaluation.evaluation import SplitEvaluation
from visionforge.reporting.presentation import Presentation
from visionforge.reporting.rendering import render
from visionforge.reporting.sections import sections_of
from visionforge.runs.files import write_atomic


def write_report(path: Path, evaluation: SplitEvaluation, shown: Presentation) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        evaluation: The numbers.
        shown: What the task shows of them, and everything else.
    """
    sections, background = sections_of(evaluation, shown), shown.background
    page = render(
        "report.html.j2",
        title=background.title,
        facts=[f"{name} {text}".strip() for name, text in background.facts.items()],
        sections=sections,
        figures=[plot for section in sections for plot in section.plots],
    )
    write_atomic(path, page)
