"""Which pictures a table names, and of which class, split and group they are; none is read here."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionforge.config.schema.tasks import task_named, tasks
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import MAX_TEXT, Split
from visionforge.data.kept_columns import MAX_CELL, headings_problem
from visionforge.data.kept_columns import MISSING as NOTHING
from visionforge.data.listing import Listing, class_name, some
from visionforge.data.side_table import well_formed
from visionforge.data.split_names import ALLOWED, split_of
from visionforge.data.table_files import Problems, Row, read_table
from visionforge.errors import DataError, SettingsError
from visionforge.printable import printable

PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "diagnosis", "y")  # which a starter looks for
SEPARATORS = "|;"  # between the labels of one cell
MISSING = ("", "nan", "<na>", "#n/a")  # what programs write where there is nothing
GROUP_WORDS = frozenset(
    (
        *("patient", "subject", "case", "study", "series", "slide", "animal", "person", "specimen", "participant"),
        *("donor", "pid", "mrn", "accession"),
    )
)
SUBGROUP_WORDS = frozenset(("age", "sex", "site"))
OTHER_WORDS = frozenset(  # of which an identifier repeats, and keeps nothing together that is alike
    (
        *("class", "label", "target", "category", "diagnosis", "split", "fold", "site", "hospital", "center", "centre"),
        *("camera", "scanner", "device", "vendor", "operator", "annotator", "rater", "reader"),
        *("batch", "image", "file"),
    )
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_IDENTIFIERS = frozenset(("id", "ids", "uid"))  # by which a column of whatever things is known
_IDENTIFIER_WORDS = frozenset(("id", "ids", "uid", "no", "nr", "num", "number", "name", "code", "identifier"))


@dataclass(frozen=True)
class TableFacts:
    """What a table seems to have, by the names of its columns.

    Attributes:
        paths: Those that it names, relative ones from its folder; nobody has looked whether they are there.
        label_column: The column of the labels; None if none is called so.
        group_columns: Columns that may say which pictures belong together.
    """

    paths: list[str]
    label_column: str | None
    group_columns: list[str]

    @property
    def names_pictures(self) -> bool:
        """Return whether it has a column of paths and one of labels."""
        return bool(self.paths) and self.label_column is not None


def table_facts(source: Path) -> TableFacts:
    """Return what a table seems to have.

    Raises:
        DataError: If it cannot be read.
    """
    rows = read_table(source).rows
    columns = list(rows[0].cells)
    path = _path_column(columns)
    label = next((column for column in map(_matching(columns), LABEL_COLUMNS) if column), None)
    paths = [] if path is None else [str(source.parent / row.cells[path].strip()) for row in rows]
    return TableFacts(paths, label, _groups(rows, columns))


def _path_column(columns: Sequence[str]) -> str | None:
    return next((column for column in map(_matching(columns), PATH_COLUMNS) if column), None)


def list_csv(settings: ImportSettings) -> Listing:
    """List the pictures that a table names, by paths relative to it.

    Raises:
        DataError: If a column is missing or there twice, a cell is empty, a split is unknown, a path leads out of the
            file's folder, a picture stands there with two labels, splits or groups, or a column of groups is not used.
    """
    source = settings.source
    content = read_table(source)
    rows = content.rows
    columns = list(rows[0].cells)
    path_column = settings.path_column or _path_column(columns) or "path"
    label_column = _matching(columns)(settings.label_column) or settings.label_column
    split_column = _matching(columns)(settings.split_column)
    group_column = settings.group_column
    places = settings.masks is not None or settings.boxes is not None  # which then are the labels
    wanted = [path_column, *([] if places else [label_column]), *([group_column] if group_column else [])]
    kept = {name: _matching(columns)(name) or name for name in settings.kept_columns}
    wanted += kept.values()
    if settings.split_column != ImportSettings.split_column:  # asked for, where the default is only looked for
        wanted.append(split_column or settings.split_column)
    missing = [name for name in wanted if name not in columns]
    if missing:
        hint = "; `label_column` says which of them holds the labels" if missing == [label_column] else ""
        raise DataError(f"{source}: has no column {', '.join(missing)}; it has: {some(columns)}{hint}")
    _check_kept(settings, kept, {path_column: "paths", **({} if places else {label_column: "labels"})})
    used = {path_column, label_column, split_column, group_column}
    if group_column is None and not settings.no_groups:
        _refuse_unused_groups(source, rows, [name for name in columns if name not in used])
    listing = Listing(splits=[] if split_column else None, groups=[] if group_column else None)
    listing.columns = {name: [] for name in kept.values()}
    problems, seen = Problems(), _Seen()
    base = source.parent.resolve()
    for row in rows:
        path = _path(base, row.cells[path_column], source, row.line, problems)
        labels = () if places else _labels(row, label_column, settings, problems)
        split = _split(row, split_column, problems) if split_column else None
        group = row.cells[group_column].strip() if group_column else None
        if group_column and _is_missing(row.cells[group_column]):
            problems.add(f"no value in the column {group_column}; fill it in, or remove the line", row.line)
        values = tuple(_value(row, name, content.decimal_commas, problems) for name in kept.values())
        if path is None or not seen.is_new(path[0], (labels, split, group, values), row, source, problems):
            continue
        listing.paths.append(path[0])
        listing.names.append(path[1])
        listing.labels.append(labels)
        if listing.splits is not None and split is not None:
            listing.splits.append(split)
        if listing.groups is not None and group is not None:
            listing.groups.append(well_formed(group))
        for texts, value in zip(listing.columns.values(), values, strict=True):
            texts.append(value)
    if told := problems.told(source):
        raise DataError(told)
    others = [name for name in columns if name not in {*used, *kept.values()}]
    if unused := [name for name in others if SUBGROUP_WORDS & {*_words(name)} and not re.search("[,`]", name)]:
        them = "them" if len(unused) > 1 else "it"
        names = shlex.quote(",".join(unused))
        listing.notes.append(f"`--columns {names}` keeps {them} for results by {' and '.join(unused)}")
    listing.notes += content.notes
    if seen.again:
        listing.notes.append(f"lines {some(seen.again)} name a picture again; each picture is taken once")
    for name, texts in listing.columns.items():
        if missing_values := texts.count(NOTHING):
            listing.notes.append(f"{missing_values:,} of {len(texts):,} pictures have no value in the column {name}")
    return listing


def _matching(columns: Sequence[str]) -> "_Matching":
    return _Matching(columns)


@dataclass(frozen=True)
class _Matching:
    """Finds a column by its name: written so, or else the only one that differs in case."""

    columns: Sequence[str]

    def __call__(self, name: str) -> str | None:
        if name in self.columns:
            return name
        alike = [column for column in self.columns if column.casefold() == name.casefold()]
        return alike[0] if len(alike) == 1 else None


# --- further columns


def _check_kept(settings: ImportSettings, kept: dict[str, str], taken: dict[str, str]) -> None:
    """Refuse columns that cannot be kept.

    Raises:
        SettingsError: If one is asked for twice, is that of paths or labels, or has a heading that is not allowed.
    """
    headings = list(kept.values())
    if len(set(headings)) < len(settings.kept_columns):
        raise SettingsError("columns: names a column more than once; name each once")
    if of := [name for name in headings if name in taken]:
        raise SettingsError(
            f"columns: {of[0]} is the column of the {taken[of[0]]}, which are kept anyway; leave it out"
        )
    if problem := headings_problem(headings):
        raise SettingsError(f"columns: the table {problem}")


def _value(row: Row, column: str, decimal_commas: bool, problems: Problems) -> str:
    """Return what is kept of a cell; a number with a decimal comma, where commas divide no cells, with a point."""
    text = printable(row.cells[column].strip(), None)
    if decimal_commas and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if len(text) > MAX_CELL:
        problems.add(
            f"a value of more than {MAX_CELL} characters in the column {column}, which is to be kept", row.line
        )
    return NOTHING if _is_missing(text) else text


# --- groups


def _refuse_unused_groups(source: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Refuse a table with a column that says which pictures belong together, if nobody said what to do with it."""
    if found := _groups(rows, columns):
        raise DataError(
            f"{source}: the column {' and the column '.join(found)} may say which pictures belong together; those of "
            "one patient in both training and test make results look better than they are; "
            f"choose `group_column` {found[0]}, or `no_groups` if that does not matter"
        )


def _groups(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    return [name for name in columns if _names_groups(name) and _repeats([row.cells[name] for row in rows])]


def _names_groups(column: str) -> bool:
    words = _words(column)
    core = {
        next((group for end in _IDENTIFIER_WORDS if (group := word.removesuffix(end)) in GROUP_WORDS), word)
        for word in words
    }
    if core & GROUP_WORDS:
        return core <= GROUP_WORDS | _IDENTIFIER_WORDS
    return len(words) == 2 and words[1] in _IDENTIFIERS and words[0] not in OTHER_WORDS | _IDENTIFIER_WORDS


def _words(column: str) -> list[str]:
    return re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", column).casefold())


def _repeats(values: Sequence[str]) -> bool:
    present = [value.strip() for value in values if not _is_missing(value)]
    return 1 < len(set(present)) < len(present)


# --- cells


def _is_missing(cell: str) -> bool:
    return cell.strip().casefold() in MISSING


def _path(base: Path, cell: str, source: Path, line: int, problems: Problems) -> tuple[Path, str] | None:
    """Return the file that a cell names, and its path relative to the table; None with a problem if it may not be."""
    if _is_missing(cell):
        problems.add("no path; fill it in, or remove the line", line)
        return None
    written = Path(os.path.normpath(base / cell.strip()))
    if "\\" in cell and os.sep == "/" and not os.path.lexists(written):  # written by a system that divides so
        written = Path(os.path.normpath(base / cell.strip().replace("\\", "/")))
    try:
        path = written.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle; a name that no file can have
        problems.lines.append(f"{source}, line {line}: {cell} is no path ({error})")
        return None
    if not path.is_relative_to(base):
        problems.outside.append((line, cell))
        return None
    name = written if written.is_relative_to(base) else path
    return path, well_formed(name.relative_to(base).as_posix())


def _labels(row: Row, column: str, settings: ImportSettings, problems: Problems) -> tuple[str, ...]:
    """Return the labels of a row, each once; none is a problem unless several per picture were asked for."""
    cell = row.cells[column]
    for separator in SEPARATORS[1:]:
        cell = cell.replace(separator, SEPARATORS[0])
    labels = tuple(dict.fromkeys(class_name(part) for part in cell.split(SEPARATORS[0]) if part.strip()))
    if any(_is_missing(label) for label in labels):
        problems.add(f"a label in the column {column} stands for a missing value; fill it in, or remove it", row.line)
    if not labels and not (settings.task and task_named(settings.task).several):
        several = " or ".join(name for name, task in tasks().items() if task.several)
        problems.add(
            f"no label in the column {column}; fill it in, remove the line, or add `task` {several} if a picture "
            "may have none",
            row.line,
        )
    if any(len(label) > MAX_TEXT for label in labels):
        problems.add(f"a label of more than {MAX_TEXT} characters", row.line)
    return labels


def _split(row: Row, column: str, problems: Problems) -> Split | None:
    cell = row.cells[column].strip()
    split = split_of(cell)
    if split is None and _is_missing(cell):
        problems.add(f"no split in the column {column}; fill it in, or remove the column", row.line)
    elif split is None:
        problems.add(f"split {cell.casefold()!r} is unknown; allowed: {ALLOWED}", row.line)
    return split


class _Seen:
    """The pictures of the rows before; the same one again is taken once, unless the rows contradict each other."""

    def __init__(self) -> None:
        self.again: list[int] = []
        self._rows: dict[Path, tuple[int, tuple[object, ...]]] = {}

    def is_new(self, path: Path, facts: tuple[object, ...], row: Row, source: Path, problems: Problems) -> bool:
        """Return whether a picture is there for the first time."""
        line, before = self._rows.setdefault(path, (row.line, facts))
        if line == row.line:
            return True
        if facts == before:
            self.again.append(row.line)
        else:
            kinds = ("label", "split", "group", "value of the columns that are kept")
            different = ", ".join(kind for kind, a, b in zip(kinds, before, facts, strict=True) if a != b)
            problems.lines.append(
                f"{source}, lines {line} and {row.line}: the same picture {path.name} with another {different}; "
                "remove one of the lines"
            )
        return False
