"""The page of an audit of labels, which opens offline: estimated noise, its confusion, and the suspicious images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from visionforge.config.schema.task import Matrix
from visionforge.evaluation.label_audit import LabelAudit, Suspect
from visionforge.evaluation.slices import Array, as_picture
from visionforge.printable import printable
from visionforge.reporting.figures.static import elided
from visionforge.reporting.presentation import Card
from visionforge.reporting.rendering import Cell, Table, render
from visionforge.reporting.sections import headings
from visionforge.reporting.thumbnails import data_uri

MOST_CLASSES = 50  # of the matrix; more make a table that nobody reads
_LABEL, _NAME = 60, 40  # most characters of a label, and of a name


@dataclass(frozen=True)
class Shown:
    """A suspicious image of the page: its address, and what is said of it."""

    image: str
    where: str
    name: str
    short_name: str
    label: str
    suggested: str
    label_chance: str
    suggested_chance: str


def audit_page(
    title: str, facts: Sequence[str], notes: Sequence[str], audit: LabelAudit, images: Sequence[tuple[Suspect, Array]]
) -> str:
    """Return the page.

    Args:
        title: What was audited.
        facts: What is said under the title.
        notes: What must be known to read it.
        audit: What was found.
        images: Suspicious images (C, H, W) uint8, or volumes (C, R, R, R), and what was found of them.
    """
    content = audit.as_dict()
    count = sum(content["images"].values())
    cards = [Card("Images", f"{count:,}", ""), Card("Suspicious", f"{content['suspicious']:,}", "")]
    rows, matrix = [], None
    if "labels" in content:
        for each in content["labels"]:
            rows.append([Cell(each["label"]), Cell(_share(each["noise"]), "number", _interval(each["interval"]))])
        table = Table(headings(["label", "estimated wrong"]), rows)
    else:
        cards.append(Card("Estimated wrong labels", _share(content["noise"]), _interval(content["interval"])))
        for each in content["classes"]:
            numbers = [Cell(f"{each[name]:,}", "number") for name in ("images", "suspicious")]
            share = Cell(_share(each["noise"]), "number", _interval(each["interval"]))
            rows.append([Cell(each["class"]), *numbers, share])
        table = Table(headings(["given label", "images", "suspicious", "estimated wrong"]), rows)
        if len(audit.table.classes) <= MOST_CLASSES:
            sums = [max(sum(row), 1) for row in content["joint"]]
            cells = [[(n, n / total) for n in row] for row, total in zip(content["joint"], sums, strict=True)]
            matrix = Matrix([elided(name, _NAME) for name in audit.table.classes], cells)
    return render(
        "audit.html.j2",
        title=title,
        facts=facts,
        notes=notes,
        cards_shown=cards,
        table_shown=table,
        matrix_shown=matrix,
        shown=[_shown(suspect, pixels) for suspect, pixels in images],
        left=content["suspicious"] - len(images),
        figures=[],
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _interval(ends: Any) -> str:
    return "" if ends is None else f"{ends[0]:.1%} to {ends[1]:.1%}"


def _shown(suspect: Suspect, pixels: Array) -> Shown:
    name = printable(suspect.name)
    return Shown(
        image=data_uri(as_picture(pixels)),
        where=f"{suspect.split} {suspect.index:,}",
        name=name,
        short_name=elided(name, _NAME),
        label=elided(suspect.label or "none", _LABEL),
        suggested=elided(suspect.suggested or "none", _LABEL),
        label_chance=f"{suspect.label_probability:.1%}",
        suggested_chance=f"{suspect.suggested_probability:.1%}",
    )
