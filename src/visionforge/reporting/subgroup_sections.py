"""What a report shows by age, sex, site or other columns: gaps first, then each column with its subgroups."""

from visionforge.evaluation.evaluation import Evaluation
from visionforge.evaluation.metric_names import interval_text, metric_name
from visionforge.evaluation.subgroups import LEAST_CASES, LEAST_IMAGES, ByColumn, Gap, Subgroup, Subgroups
from visionforge.reporting.figures.forest import forest_plot
from visionforge.reporting.presentation import Section
from visionforge.reporting.rendering import Cell, Table
from visionforge.reporting.sections import headings, number, rarest_first

MOST_CLASSES = 20  # rows of a table of classes; the others are in the spreadsheet
LEAST_P = 0.0005  # of which more is said than that it is small


def subgroup_sections(evaluation: Evaluation) -> list[Section]:
    """Return a section of all gaps, and one for each column; none where nothing is known of the images."""
    found = evaluation.subgroups
    if found is None:
        return []
    return [
        Section("subgroups", "Subgroups", notes=_notes(evaluation, found), table=_gap_table(evaluation, found)),
        *(_section(evaluation, found, place, column) for place, column in enumerate(found.columns, start=1)),
    ]


def multiplicity_note(found: Subgroups) -> str:
    """Return what must be known to read so many numbers at once."""
    gaps, subgroups = len(found.gaps), sum(len(column.subgroups) for column in found.columns)
    columns = f"{len(found.columns)} column{'' if len(found.columns) == 1 else 's'}"
    return (
        f"{gaps} gaps in {columns} were looked at. p is adjusted for their number (Holm): where no gap is real, one of "
        f"them falls below 0.05 in at most 1 of 20 splits. Intervals of the {subgroups} subgroups are not adjusted: of "
        f"many, some miss the truth at {found.confidence:.0%}."
    )


def _notes(evaluation: Evaluation, found: Subgroups) -> list[str]:
    notes = []
    if found.gaps:
        notes.append(
            "A gap is the largest value less the smallest. It is above 0 by chance, too, and the more so the more and "
            f"the smaller the subgroups are; compared are subgroups of at least {LEAST_IMAGES} images and "
            f"{LEAST_CASES} cases that the metric is about."
        )
    if found.gaps and found.permutations:
        units = "images of the same class"
        if any(column.in_blocks for column in found.columns):
            units += ", or whole groups such as patients where each lies in one subgroup,"
        notes.append(
            f"p is the share of {found.permutations:,} permutations, which exchange {units} between the subgroups, "
            "with a gap as large; “by chance” is their mean gap. The interval is that of the largest "
            "true difference between any two subgroups."
        )
        notes.append(multiplicity_note(found))
    for column in found.columns:
        if column.in_blocks is False:
            notes.append(f"{column.column}: some groups lie in several subgroups, so p takes images for independent.")
        if not column.gaps:
            notes.append(f"{column.column}: fewer than two subgroups have enough cases to be compared.")
        if column.missing:
            notes.append(f"{column.column}: {column.missing:,} images without a value are not compared.")
    notes += [f"{column} {reason}, so there are no results by it." for column, reason in found.left_out.items()]
    return notes


def _gap_table(evaluation: Evaluation, found: Subgroups) -> Table | None:
    if not found.gaps:
        return None
    numbers = [Cell(name, "number") for name in ("gap", "p (Holm)", "by chance")]
    names = [Cell("column"), Cell("metric"), *numbers, Cell("lowest"), Cell("highest")]
    return Table(names, [_gap_row(evaluation, found, column, gap) for column, gap in found.gaps])


def _gap_row(evaluation: Evaluation, found: Subgroups, column: ByColumn, gap: Gap) -> list[Cell]:
    values = {each.name: each.estimate.overall[gap.metric] for each in column.subgroups}
    return [
        Cell(column.column),
        Cell(metric_name(gap.metric, evaluation.positive)),
        Cell(number(gap.value, 3), "number", interval_text(gap.interval, gap.value) if found.permutations else ""),
        Cell(p_text(gap.adjusted), "number"),
        Cell(number(gap.by_chance, 3), "number"),
        Cell(gap.lowest, small=number(values[gap.lowest], 3)),
        Cell(gap.highest, small=number(values[gap.highest], 3)),
    ]


def p_text(p: float | None) -> str:
    """Return a p-value as text.

    >>> p_text(0.0001), p_text(0.04), p_text(None)
    ('< 0.001', '0.040', '–')
    """
    return "–" if p is None else "< 0.001" if p < LEAST_P else f"{p:.3f}"


def _section(evaluation: Evaluation, found: Subgroups, place: int, column: ByColumn) -> Section:
    notes = ["The values are cut into quartiles of the images of this split."] if column.cut else []
    plot = forest_plot(column, evaluation)
    line = f"Share of the cases of each {evaluation.task.nouns[0]} that is found (recall)"
    order = [k for k in rarest_first(evaluation.support) if evaluation.support[k]]
    more = f"; the {MOST_CLASSES} rarest of {len(order)}" if len(order) > MOST_CLASSES else ", the rarest first"
    return Section(
        f"subgroups-{place}",
        f"By {column.column}",
        notes=notes,
        plots=[plot] if plot else [],
        beside=False,
        table=_subgroup_table(evaluation, found, column),
        further=[(f"{line}{more}.", _class_table(evaluation, found, column, order[:MOST_CLASSES]))],
    )


def _subgroup_table(evaluation: Evaluation, found: Subgroups, column: ByColumn) -> Table:
    names = [metric_name(name, evaluation.positive) for name in found.metrics]
    rows = [
        [
            Cell(each.name),
            Cell(f"{each.images:,}", "number"),
            *(Cell(number(each.estimate.overall[name], 3), "number", _small(each, name)) for name in found.metrics),
        ]
        for each in column.subgroups
    ]
    return Table(headings([column.column, "images", *names]), rows)


def _small(subgroup: Subgroup, name: str) -> str:
    """Return what stands below a value: its interval, or why there is no value."""
    known = subgroup.estimate
    if known.overall[name] is None:
        present = sum(count > 0 for count in subgroup.cases)
        return "one class only" if present < 2 else "undefined"
    return interval_text(known.intervals[name], known.overall[name]) if name in known.intervals else ""


def _class_table(evaluation: Evaluation, found: Subgroups, column: ByColumn, order: list[int]) -> Table:
    rows = []
    for k in order:
        cells = [Cell(evaluation.spec.classes[k], small=f"{evaluation.support[k]:,} cases")]
        for each in column.subgroups:
            value, ends = each.estimate.per_class[found.recall][k], each.estimate.class_intervals.get(found.recall)
            if not each.cases[k]:
                cells.append(Cell("absent", "number"))
                continue
            small = "" if ends is None else f"{interval_text(ends[k], value)}; "
            cells.append(Cell(number(value, 3), "number", f"{small}{each.cases[k]:,} cases"))
        rows.append(cells)
    return Table(headings([evaluation.task.nouns[0], *(each.name for each in column.subgroups)]), rows)
