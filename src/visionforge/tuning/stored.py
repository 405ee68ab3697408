"""The file of a study, which may be a stranger's: looked at before Optuna opens it, so that it is no larger inside."""

import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from optuna.storages._rdb.models import BaseModel

from visionforge.errors import RunError
from visionforge.reading import MAX_ROW

MAX_BYTES = 200_000_000  # of a file; ten thousand trials of a hundred epochs have a hundred million
MAX_ROWS = 2_000_000  # of all tables; those trials have half of that, most of them the values of the epochs
_TABLES = {*BaseModel.metadata.tables, "alembic_version"}
_WITH_BRACKETS = {*_TABLES, "VARCHAR", "KEY", "UNIQUE", "CHECK"}  # no function, no default, no computed column
_BRACKET = re.compile(r"(\w*)\s*\(")
_BESIDE = ("-wal", "-journal")  # what SQLite has not written into the file yet


def require_plain_database(path: Path, timeout_s: float, writable: bool) -> None:
    """Check that a SQLite file holds the tables and indexes that Optuna makes, whole, and nothing that computes.

    Args:
        path: The file; one that is not there, or is empty, is yet to be made.
        timeout_s: How long another process that is writing is waited for.
        writable: Whether what a killed process left half-written may be undone.

    Raises:
        RunError: If it holds something else.
    """
    if not any([_bytes(Path(f"{path}{suffix}")) for suffix in ("", *_BESIDE)]):
        return
    try:
        url = f"file:{quote(str(path.absolute()))}?mode={'rw' if writable else 'ro'}"
        with closing(sqlite3.connect(url, uri=True, timeout=timeout_s)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            problem = _problem(database)
    except (sqlite3.Error, UnicodeError) as error:
        raise RunError(f"{path}: cannot be read as a study ({error})") from error
    if problem is not None:
        raise RunError(f"{path}: is no study as Optuna keeps it: {problem}")


def _problem(database: sqlite3.Connection) -> str | None:
    (pages,), (size,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    if pages * size > MAX_BYTES:
        return f"it is larger than {MAX_BYTES:,} bytes"
    tables = []
    for kind, name, table, sql in database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if kind not in ("table", "index") or table not in _TABLES or (kind == "table" and name != table):
            return f"it holds the {kind} {name}"
        words = set(_BRACKET.findall(sql or ""))
        if not words <= _WITH_BRACKETS or (kind == "table" and not sql.upper().startswith("CREATE TABLE ")):
            return f"the {kind} {name} is another than Optuna's"
        if kind == "table":
            tables.append(name)
    found = [text for (text,) in database.execute("PRAGMA quick_check(1)")]  # two rows could share the same bytes
    if found != ["ok"]:
        return f"it is damaged ({' '.join(str(found[0]).split())[:160]})"
    if sum(database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables) > MAX_ROWS:
        return f"it has more than {MAX_ROWS:,} rows"
    return None


def require_plain_journal(path: Path) -> None:
    """Check that a journal is a file of lines that are no longer than Optuna writes them.

    Raises:
        RunError: If it is not.
    """
    if not _bytes(path):
        return
    with path.open("rb") as file:
        while line := file.readline(MAX_ROW + 1):
            if len(line) > MAX_ROW:
                raise RunError(f"{path}: is no study as Optuna keeps it: it has a line of more than {MAX_ROW:,} bytes")


def _bytes(path: Path) -> int:
    """Return the size of a file; 0 if there is none.

    Raises:
        RunError: If it is too large, or no regular file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        raise RunError(f"{path}: is no file, or larger than {MAX_BYTES:,} bytes, so it is no study")
    return status.st_size
