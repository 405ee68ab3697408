"""YAML, JSON, CSV and ZIP from anybody: sizes, depth and numbers are bounded before anything is built of them."""

import csv
import io
import json
import math
import os
import select
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

MAX_BYTES = 1_000_000  # a configuration is a page of text; anything larger is the wrong file
MAX_DEPTH = 64
PIPE_WAIT_S = 5.0  # for the first byte
MAX_NODES = 100_000  # values, where an alias counts as often as it is used
MAX_DIGITS = 100
MAX_ROW = 1_000_000  # characters of a row of a table; one of a thousand classes has some ten thousand
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")  # the tags of plain values
_TAG = "tag:yaml.org,2002:"


class UnreadableError(ValueError):
    """A file or a text is not what it is read as.

    Args:
        reason: What is wrong with it, in a line.
        syntax: It is no YAML or JSON at all, so that it may be plain text.
    """

    def __init__(self, reason: str, syntax: bool = False) -> None:
        super().__init__(reason)
        self.syntax = syntax


def read_text(path: Path, max_bytes: int = MAX_BYTES, pipes: bool = False) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        max_bytes: The largest that is read.
        pipes: Read from a pipe, too, and wait for what is written into it.

    Raises:
        OSError: If it is not there, or cannot be opened.
        UnreadableError: If it is no regular file, too large, or no text in UTF-8.
    """
    with _open(path, pipes) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnreadableError(f"larger than {max_bytes:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is no text in UTF-8: byte {error.start:,} ({error.reason})") from error


def _open(path: Path, pipes: bool = False) -> io.BufferedReader:
    # a pipe that nobody writes into would be waited for
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(handle).st_mode
    if pipes and stat.S_ISFIFO(kind):
        if not select.select([handle], [], [], PIPE_WAIT_S)[0]:
            os.close(handle)
            raise UnreadableError(f"is a pipe into which nobody writes for {PIPE_WAIT_S:g} s, and no file")
        os.set_blocking(handle, True)
    elif not stat.S_ISREG(kind):
        os.close(handle)
        raise UnreadableError(f"is {'a folder' if stat.S_ISDIR(kind) else 'a pipe or a device'}, no file")
    return os.fdopen(handle, "rb")


# --- CSV


def read_rows(path: Path, max_bytes: int) -> Iterator[list[str]]:
    """Yield the rows of a CSV file in UTF-8, the heading among them; of the file, one row is kept at a time.

    Raises:
        OSError: If it is not there, or cannot be opened.
        UnreadableError: If it is no regular file, too large, or no table in UTF-8.
    """
    with _open(path) as file:
        lines = _Lines(file, max_bytes)
        try:
            for row in csv.reader(lines):
                lines.row = 0
                if row:
                    yield row
        except csv.Error as error:
            raise UnreadableError(f"is no table in CSV: {error}") from error


class _Lines:
    """The lines of a file, as long as they and the file are not too long."""

    def __init__(self, file: io.BufferedReader, max_bytes: int) -> None:
        self._file, self._left, self._max = file, max_bytes, max_bytes
        self._encoding = "utf-8-sig"  # of the first line, which may have a byte order mark
        self.row = 0  # bytes of the row so far, which may have several lines

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self._left -= len(line)
        self.row += len(line)
        if self._left < 0:
            raise UnreadableError(f"larger than {self._max:,} bytes")
        if self.row > MAX_ROW:
            raise UnreadableError(f"has a row of more than {MAX_ROW:,} bytes")
        encoding, self._encoding = self._encoding, "utf-8"
        try:
            return line.decode(encoding)
        except UnicodeDecodeError as error:
            raise UnreadableError(f"is no text in UTF-8 ({error.reason})") from error


# --- ZIP

_END = struct.Struct("<4s4H2LH")  # the record at the end of a ZIP file, and the two of files with 64-bit sizes
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_TAIL = (1 << 16) + _END.size + _LOCATOR.size + _END_64.size  # the longest comment, and the records


def zip_directory_bytes(handle: int) -> int:
    """Return the size of a ZIP file's directory as its end says, or 0 if there is none; the larger of two answers."""
    size = os.fstat(handle).st_size
    tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        return 0
    found = int(_END.unpack_from(tail, at)[5])
    found = 0 if found == 0xFFFFFFFF else found
    wide = at - _LOCATOR.size - _END_64.size
    if wide >= 0 and tail[at - _LOCATOR.size :].startswith(b"PK\x06\x07"):
        found = max(found, int(_END_64.unpack_from(tail, wide)[8]))
    return found


# --- JSON


def read_json(path: Path, max_bytes: int = MAX_BYTES, max_values: int | None = None) -> Any:
    """Return the content of a JSON file; numbers that are not finite are None.

    Args:
        path: The file.
        max_bytes: The largest that is read.
        max_values: The most brackets and commas, as which a large file could hold many times its size in memory; None
            allows as many as fit into it.

    Raises:
        OSError: If it is not there, or cannot be opened.
        UnreadableError: If it is not JSON, or larger or deeper than such a file can be.
    """
    text = read_text(path, max_bytes)
    if max_values is not None and sum(map(text.count, "[{,")) > max_values:
        raise UnreadableError(f"holds more than {max_values:,} values")
    return read_json_text(text)


def read_json_text(text: str) -> Any:
    """Return the content of a text in JSON; see `read_json`.

    Raises:
        UnreadableError: If it is not JSON, or deeper than such a file can be.
    """
    try:
        content = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=lambda _: None)
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError(f"is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise UnreadableError(f"not valid JSON: {error}", syntax=True) from error
    _require_shallow(content)
    return content


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise UnreadableError(f"holds a number of {len(text):,} digits")
    return int(text)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _require_shallow(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, Mapping | list)
            for item in (value.values() if isinstance(value, Mapping) else value)
        ]
        if not level:
            return
    raise UnreadableError(f"is nested deeper than {MAX_DEPTH} levels")


# --- YAML

if TYPE_CHECKING:  # what a loader is made of; the other parts are added below
    _Base = yaml.SafeLoader
else:
    _Base = Composer


class _Bounded(_Base):
    """Composes the nodes of a document, and counts them while it does."""

    def __init__(self) -> None:
        Composer.__init__(self)
        self._level = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of a finished node: how many it stands for, and how deep it is

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node, or find the one that an alias names."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        alias = self.check_event(yaml.AliasEvent)
        self._level += 1
        if self._level > MAX_DEPTH:
            raise UnreadableError(f"is nested deeper than {MAX_DEPTH} levels (line {line})")
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if alias and id(node) not in self._sizes:
            raise UnreadableError(f"a value holds itself by its alias (line {line})")
        if not alias:
            parts = [self._sizes[id(part)] for part in _parts(node)]
            self._sizes[id(node)] = 1 + sum(size for size, _ in parts), 1 + max((deep for _, deep in parts), default=0)
        size, depth = self._sizes[id(node)]
        if size > MAX_NODES:
            raise UnreadableError(f"holds more than {MAX_NODES:,} values (line {line})")
        if self._level + depth > MAX_DEPTH:
            raise UnreadableError(f"is nested deeper than {MAX_DEPTH} levels (line {line})")
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Compose a mapping, in which every key stands once."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    where = f"lines {lines[name]} and {line}" if lines[name] != line else f"line {line}"
                    raise UnreadableError(f"the key {key.value} stands twice ({where})")
                lines[name] = line
        return node


def _parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, SequenceNode) else []


class _Plain(SafeConstructor):
    """Builds plain values alone: no dates, sets or bytes, and no number without end."""

    def construct_yaml_str(self, node: ScalarNode) -> str:
        """Return a text; no path, name or address has a NUL in it."""
        value = str(super().construct_yaml_str(node))
        if "\0" in value:
            raise UnreadableError(f"a text holds a NUL character (line {node.start_mark.line + 1})")
        return value

    def construct_yaml_int(self, node: ScalarNode) -> int:
        """Return an integer."""
        if len(node.value) > MAX_DIGITS:
            raise UnreadableError(f"holds a number of {len(node.value):,} digits (line {node.start_mark.line + 1})")
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: ScalarNode) -> float:
        """Return a finite number."""
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise UnreadableError(f"{node.value} is no finite number (line {node.start_mark.line + 1})")
        return value


_Plain.yaml_constructors = {
    **{f"{_TAG}{name}": SafeConstructor.yaml_constructors[f"{_TAG}{name}"] for name in _PLAIN},
    f"{_TAG}str": _Plain.construct_yaml_str,
    f"{_TAG}int": _Plain.construct_yaml_int,
    f"{_TAG}float": _Plain.construct_yaml_float,
    None: SafeConstructor.construct_undefined,
}


class _Words(Resolver):
    """Takes dates, and a lone equals sign, for text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the library declares it
        first: [(tag, pattern) for tag, pattern in pairs if tag not in (f"{_TAG}timestamp", f"{_TAG}value")]
        for first, pairs in Resolver.yaml_implicit_resolvers.items()
    }


class _PythonEvents(Reader, Scanner, Parser):
    """Tells the parts of a document, where the C library is missing."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


# the C library is ten times as fast
_Events: Any = vars(yaml.cyaml)["CParser"] if yaml.__with_libyaml__ else _PythonEvents


class _Loader(_Bounded, _Events, _Plain, _Words):  # type: ignore[misc]
    """Reads one document."""

    def __init__(self, text: str) -> None:
        _Bounded.__init__(self)
        _Events.__init__(self, text)
        _Plain.__init__(self)
        _Words.__init__(self)


def read_yaml_text(text: str) -> Any:
    """Return what a YAML document holds: mappings, lists, texts, numbers, booleans and null, nothing else.

    The words are those of YAML 1.1, so `yes` and `off` are booleans, and `1e-3` without a point is text.

    Raises:
        UnreadableError: If it is no YAML, has a key twice, or is larger or deeper than a configuration can be.
    """
    if len(text) > MAX_BYTES:
        raise UnreadableError(f"larger than {MAX_BYTES:,} characters")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnreadableError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "syntax error"
        raise UnreadableError(f"not valid YAML{where}: {problem}", syntax=True) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # a tag that the value does not fit
        raise UnreadableError(f"not valid YAML: a value does not fit its tag ({error})", syntax=True) from error


def read_yaml(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """Return what a YAML file holds; see `read_text` and `read_yaml_text`."""
    return read_yaml_text(read_text(path, max_bytes))
