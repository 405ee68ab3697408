"""The page of a benchmark's leaderboard, which opens offline, and how its numbers are written wherever they stand."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from visionforge.evaluation.metric_names import interval_text, metric_text
from visionforge.printable import printable
from visionforge.reporting.figures.critical_difference import critical_difference_figure
from visionforge.reporting.figures.static import own_style, save_figure
from visionforge.reporting.presentation import Card
from visionforge.reporting.rendering import Cell, Table, render
from visionforge.runs.files import write_atomic
from visionforge.scoring.ranks import Pair, Ranks

COSTS = (
    ("seconds", "time"),
    ("cpu_seconds", "CPU time"),
    ("parameters", "parameters"),
    ("multiply_adds", "multiply-adds"),
    ("images_per_second", "images/s"),
    ("energy_wh", "energy"),
    ("peak_bytes", "memory"),
)
_COLUMNS = (  # of the page: a cost, and what stands below it in small letters
    ("seconds", "cpu_seconds"),
    ("parameters", "multiply_adds"),
    ("images_per_second", None),
    ("energy_wh", None),
    ("peak_bytes", None),
)
_DIAGRAM = "critical_difference"
_DPI = 160
_MARGIN = 0.06  # of the strip's width, left and right of what is drawn
MOST_PUBLISHED, MOST_OF_OTHER_SIZES = 8, 4  # results beside a table, with its images and with smaller or larger ones
_MINUTE, _HOUR = 60.0, 3600.0
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Strip:
    """A value with its intervals on the axis of its table, in per cent of the axis; None where there is none."""

    mean: float
    images: tuple[float, float] | None
    seeds: tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """A line of a table of results.

    Attributes:
        method: The backbone, or a published method.
        below: What stands under it: recipe, or source.
        values: The metrics.
        strip: The first metric, drawn.
        seeds: How many seeds are done.
        costs: What it costs.
        published: Somebody else's result.
    """

    method: str
    below: str
    values: Sequence[Cell]
    strip: Strip | None
    seeds: str
    costs: Sequence[Cell]
    published: bool = False


@dataclass(frozen=True)
class Section:
    """The results on one data set at one resolution."""

    heading: str
    anchor: str
    metrics: Sequence[str]
    lines: Sequence[Line]
    axis: tuple[str, str]


def write_benchmark_page(path: Path, figures: Path, content: Content) -> None:
    """Write the page, and the critical-difference diagram as PNG and SVG where there is one.

    Args:
        path: The HTML file.
        figures: Folder of pictures.
        content: What `leaderboard` returns.
    """
    ranks = content["ranks"]
    diagram = None
    if ranks["tests"] is not None:
        diagram = _diagram(ranks["methods"], _ranks_of(ranks["tests"]), figures)
    else:
        for suffix in ("png", "svg"):  # of a smaller matrix
            (figures / f"{_DIAGRAM}.{suffix}").unlink(missing_ok=True)
    page = render(
        "benchmark.html.j2",
        title=printable(content["benchmark"]),
        written=content["written"][:16].replace("T", " ") + " UTC",
        cards=_cards(content),
        ranks=_rank_table(ranks),
        rank_text=printable(rank_text(ranks)),
        diagram=diagram,
        pairs=None if ranks["tests"] is None else _pairs(ranks),
        sections=[_section(table, place) for place, table in enumerate(content["tables"])],
        costs=[_cost_heading(*names) for names in _COLUMNS],
        failed=_failed(content["failed"]),
        notes=[printable(note) for note in notes_of(content)],
        sources=sources_of(content),
        figures=[],
    )
    write_atomic(path, page)


def cost_text(row: Content, name: str) -> str:
    """Return a cost of a row as text; a dash where it is not known.

    >>> cost_text({"parameters": 11_200_000}, "parameters"), cost_text({"seconds": 90.0, "whole": False}, "seconds")
    ('11.2 M', '≥ 1.5 min')
    """
    value = row.get(name)
    if value is None:
        return "–"
    if name in ("seconds", "cpu_seconds"):
        return f"{'' if row.get('whole', True) else '≥ '}{duration_text(value)}"
    if name == "energy_wh":
        return f"{value:.3g} Wh"
    if name == "peak_bytes":
        return f"{value / 2**20:,.0f} MiB"
    if name == "images_per_second":
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return large_text(value)


def duration_text(seconds: float) -> str:
    """Return a duration in the unit that fits.

    >>> duration_text(12.34), duration_text(600), duration_text(9000)
    ('12.3 s', '10.0 min', '2.5 h')
    """
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / _MINUTE:.1f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"


def large_text(value: float) -> str:
    """Return a large number in short.

    >>> large_text(950), large_text(61_000), large_text(11_200_000), large_text(1.8e9)
    ('950', '61 k', '11.2 M', '1.8 G')
    """
    for limit, unit, digits in ((1e9, "G", 1), (1e6, "M", 1), (1e3, "k", 0)):
        if value >= limit:
            return f"{value / limit:.{digits}f} {unit}"
    return f"{value:.0f}"


def rank_text(ranks: Content) -> str:
    """Return what the ranks rest on, and what their test says or why there is none."""
    datasets = ranks["datasets"]
    parts = []
    if datasets:
        parts.append(f"Average over {len(datasets)} data sets ({', '.join(datasets)}) of the rank by the first metric.")
    if ranks["left_out"]:
        parts.append(f"Left out, because a method has no result there: {', '.join(ranks['left_out'])}.")
    if (tests := ranks["tests"]) is not None:
        parts.append(
            f"Friedman's test: chi-square {tests['statistic']:.2f}, p {tests['p']:.3g}. Bars join methods whose "
            f"average ranks differ by no more than Nemenyi's critical difference of {tests['critical']:.2f} at "
            f"{tests['confidence']:.0%} (Demšar, 2006); they have not been shown to differ."
        )
    elif ranks["reason"]:
        parts.append(f"No critical-difference diagram: {ranks['reason']}.")
    return " ".join(parts)


def notes_of(content: Content) -> list[str]:
    """Return how the numbers were come by, a sentence or two each."""
    share = f"{content['confidence']:.0%}"
    notes = [
        "Each value is the mean ± sample standard deviation over seeds of a metric on the test split, with test-time "
        "views where the network has them; the checkpoint was chosen on the validation split.",
        f"Seeds: {share} interval of the mean by Student's t, for other seeds on the same test images. Images: means "
        "of the ends of the runs' own intervals, for other test images with a network of one seed. With few seeds "
        "Student's t is wide, and may reach beyond what the metric can be.",
        "Time and CPU time are of one training with its test, on average over seeds; ≥ where a process was killed, "
        "whose time nobody knows. CPU time and memory are not known of runs that were there before.",
        "Images/s is prediction on the processor in one process, measured after the training while other workers may "
        "have been busy. Multiply-adds are of one image, without views.",
    ]
    if left := sum(len(table["published"]) - len(best_published(table)) for table in content["tables"]):
        notes.append(
            f"Of published results the best {MOST_PUBLISHED} with images of that size are shown, and the best "
            f"{MOST_OF_OTHER_SIZES} with others; the other {left} stand in leaderboard.csv."
        )
    if any(row["partial"] for table in content["tables"] for row in table["rows"]):
        notes.append("*: of a part of the test split only.")
    origins = {row["energy_from"] for table in content["tables"] for row in table["rows"]} - {None}
    if "estimated" in origins:
        notes.append(
            f"Energy is an estimate: processor time × {content['watts']:g} W per busy core (benchmark.watts); memory, "
            "accelerators and idle power are not in it."
        )
    elif "counted" in origins:
        notes.append("Energy is what the processors counted during the training (RAPL), other programs included.")
    else:
        notes.append("Energy is not known; benchmark.watts, the power of a busy core, gives an estimate.")
    return notes


def best_published(table: Content) -> list[Content]:
    """Return the published results that stand beside a table's own, best first: those of its images, then of others."""
    first, size = table["metrics"][0], table["resolution"]
    order = sorted(table["published"], key=lambda each: -each["values"].get(first, -1.0))
    same = [each for each in order if each["resolution"] == size]
    others = [each for each in order if each["resolution"] != size]
    return [*same[:MOST_PUBLISHED], *others[:MOST_OF_OTHER_SIZES]]


def sources_of(content: Content) -> list[tuple[str, str]]:
    """Return source and note of the published results that are shown."""
    every = [each for table in content["tables"] for each in best_published(table)]
    return list(dict.fromkeys((each["source"], each["note"]) for each in every))


def _cards(content: Content) -> list[Card]:
    counts = dict(content["cells"])
    every = counts.pop("all")
    done = counts.pop("complete", 0)
    failed = counts.pop("failed", 0) + counts.pop("refused", 0)
    left = sum(counts.values())
    seconds = [row["seconds"] * len(row["seeds"]) for t in content["tables"] for row in t["rows"] if row["seconds"]]
    cards = [Card("cells", f"{done} / {every}", "complete"), Card("left", str(left), "running or in line")]
    cards.append(Card("failed", str(failed), "reasons below" if failed else ""))
    return [*cards, Card("training", duration_text(sum(seconds)), "all seeds together")] if seconds else cards


def _ranks_of(tests: Content) -> Ranks:
    pairs = tuple(Pair(**each) for each in tests["pairs"])
    named = {
        **tests,
        "pairs": pairs,
        "cliques": tuple(map(tuple, tests["cliques"])),
        "average": tuple(tests["average"]),
    }
    return Ranks(**named)


def _diagram(names: Sequence[str], ranks: Ranks, folder: Path) -> str:
    """Write the diagram as PNG and SVG, and return it as an address that holds the picture."""
    with own_style():
        figure = critical_difference_figure([printable(name) for name in names], ranks)
    save_figure(figure, folder / f"{_DIAGRAM}.png", _DPI)
    write_atomic(folder / f"{_DIAGRAM}.svg", _svg(figure))
    data = (folder / f"{_DIAGRAM}.png").read_bytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with own_style():
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _rank_table(ranks: Content) -> Table | None:
    if not ranks["average"]:
        return None
    order = sorted(ranks["average"].items(), key=lambda item: item[1])
    rows = [[Cell(printable(label)), Cell(f"{rank:.2f}", "number")] for label, rank in order]
    return Table([Cell("method"), Cell("average rank", "number")], rows)


def _pairs(ranks: Content) -> Table:
    names = [printable(name) for name in ranks["methods"]]
    headings = [Cell("pair"), Cell("Wilcoxon p", "number"), Cell("Holm's", "number")]
    pairs = sorted(ranks["tests"]["pairs"], key=lambda pair: pair["p"])
    rows = [
        [
            Cell(f"{names[pair['one']]} – {names[pair['other']]}"),
            Cell(f"{pair['p']:.3g}", "number"),
            Cell(f"{pair['p_holm']:.3g}", "number"),
        ]
        for pair in pairs
    ]
    return Table(headings, rows)


def _section(table: Content, place: int) -> Section:
    first = table["metrics"][0]
    low, high = _range(table, first)
    lines = [_line(row, table, low, high) for row in table["rows"]]
    for each in best_published(table):
        values = [Cell(f"{each['values'][n]:.3f}" if n in each["values"] else "", "number") for n in table["metrics"]]
        value = each["values"].get(first)
        strip = None if value is None else Strip(_share(value, low, high), None, None)
        below = printable(f"{each['table']}, {each['resolution']} px")
        lines.append(
            Line(printable(each["method"]), below, values, strip, "", [Cell("")] * len(_COLUMNS), published=True)
        )
    heading = printable(f"{table['title']}, {table['resolution']}×{table['resolution']} pixels")
    labels = [printable(table["labels"][name]) for name in table["metrics"]]
    return Section(heading, f"table-{place + 1}", labels, lines, (f"{low:.3f}", f"{high:.3f}"))


def _line(row: Content, table: Content, low: float, high: float) -> Line:
    found = row["metrics"][table["metrics"][0]]
    strip = None
    if found is not None:
        images, seeds = found["images_interval"], found["seeds_interval"]
        strip = Strip(
            _share(found["mean"], low, high),
            None if images is None else (_share(images[0], low, high), _share(images[1], low, high)),
            None if seeds is None else (_share(seeds[0], low, high), _share(seeds[1], low, high)),
        )
    return Line(
        printable(row["backbone"]),
        printable(row["recipe"]),
        [_metric_cell(row["metrics"][name], bool(row["partial"])) for name in table["metrics"]],
        strip,
        f"{len(row['seeds'])}/{row['planned']}",
        [_cost_cell(row, *names) for names in _COLUMNS],
    )


def _cost_heading(name: str, below: str | None) -> Cell:
    labels = dict(COSTS)
    return Cell(labels[name], "number", labels[below] if below else "")


def _cost_cell(row: Content, name: str, below: str | None) -> Cell:
    return Cell(cost_text(row, name), "number", cost_text(row, below) if below else "")


def _metric_cell(found: Content | None, partial: bool) -> Cell:
    if found is None:
        return Cell("–", "number")
    told = []
    if found["seeds_interval"] is not None:
        told.append(f"seeds {interval_text(found['seeds_interval'], found['mean'], '–')}")
    if found["images_interval"] is not None:
        told.append(f"images {interval_text(found['images_interval'], found['mean'], '–')}")
    return Cell(f"{metric_text(found)}{'*' if partial else ''}", "number", "\n".join(told))


def _range(table: Content, name: str) -> tuple[float, float]:
    """Return the ends of the axis of a table: of the values, the intervals for images, and what was published."""
    found = [row["metrics"][name] for row in table["rows"] if row["metrics"][name] is not None]
    ends = [found_["mean"] for found_ in found]
    ends += [end for found_ in found for end in (found_["images_interval"] or ())]
    ends += [each["values"][name] for each in best_published(table) if name in each["values"]]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _share(value: float, low: float, high: float) -> float:
    """Return where a value lies on the axis, in per cent; beyond its ends it is at the edge."""
    width = high - low
    place = 0.5 if width <= 0 else (value - low) / width
    return round(100 * min(1.0, max(0.0, _MARGIN + (1 - 2 * _MARGIN) * place)), 2)


def _failed(failed: Sequence[Content]) -> Table | None:
    """Return the cells without a result; seeds that failed for the same reason share a line."""
    if not failed:
        return None
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in failed:
        key = tuple(str(each[name]) for name in ("dataset", "resolution", "backbone", "recipe", "reason"))
        groups.setdefault(key, []).append(str(each["seed"]))
    headings = [Cell(name) for name in ("data set", "pixels", "backbone", "recipe", "seeds", "reason")]
    rows = [
        [*(Cell(printable(text)) for text in key[:4]), Cell(", ".join(seeds)), Cell(printable(key[4]), "long")]
        for key, seeds in groups.items()
    ]
    return Table(headings, rows)
