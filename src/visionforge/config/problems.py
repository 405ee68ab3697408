"""From a failed validation to lines that a user can act on: path, value, what is allowed, nearest valid key."""

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from visionforge.config.aliases import SETTINGS
from visionforge.config.schema.components import Component, Family, family_of, listed

_NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def nearest(word: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` candidates that begin with or resemble `word`, best first, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    begun = [name for name in by_lower if len(word) > 2 and name.startswith(word.lower())]
    found = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)
    return [by_lower[name] for name in dict.fromkeys([*begun, *found])][:count]


def flatten(model: type[BaseModel], prefix: str = "", values: Mapping[str, Any] | None = None) -> dict[str, FieldInfo]:
    """Map the dotted path of every setting of `model` to its field, sections included before their members.

    A component has the settings of all its kinds, of which the first that has a setting describes it; where it is
    known which kind is chosen, that one. A list of components is one setting; where its items are written, theirs
    follow, under their position.

    Args:
        model: The settings.
        prefix: Dotted path of the model inside the whole configuration, with its final dot.
        values: What is written, which says which kinds are chosen.
    """
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        fields[path] = field
        kind = field.annotation
        written = values.get(name) if isinstance(values, Mapping) else None
        if base := listed(kind):
            for index, item in enumerate(written if isinstance(written, list | tuple) else ()):
                fields.update(_of_all_kinds(base, f"{path}.{index}.", item))
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue
        if issubclass(kind, Component):
            fields.update(_of_all_kinds(kind, f"{path}.", written))
        else:
            fields.update(flatten(kind, f"{path}.", written if isinstance(written, Mapping) else None))
    return fields


def leaves(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Map the dotted path of every setting that is no section to its field; see `flatten`."""
    return {path: field for path, field in flatten(model).items() if not hasattr(field.annotation, "model_fields")}


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of a nested mapping; None if there is none."""
    value: Any = tree
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def item_fields(path: str, field: FieldInfo) -> dict[str, FieldInfo]:
    """Return the settings of the items of a list of components, as `PATH[].NAME`; none of another setting."""
    base = listed(field.annotation)
    return {} if base is None else _of_all_kinds(base, f"{path}[].", None)


def _of_all_kinds(base: type[Component], prefix: str, written: Any) -> dict[str, FieldInfo]:
    family = base.family
    chosen = written.get("name", family.default) if isinstance(written, Mapping) else written
    known = [kind for name, kind in family.kinds.items() if name == chosen]
    names: Any = Literal[family.names]
    fields = {f"{prefix}name": FieldInfo(annotation=names, default=family.default, description=family.description)}
    for kind in (*known, *family.kinds.values()):
        for path, field in flatten(kind, prefix).items():
            fields.setdefault(path, field)
    return fields


def describe_allowed(field: FieldInfo) -> str:
    """Say in words what a setting takes, for instance ``an integer, 1 to 2048`` or ``a number, 0 to 180 degrees``."""
    noun, bounds, nullable = _describe_type(field.annotation)
    for item in field.metadata:
        _read_bound(item, bounds)
        if words := getattr(item, "words", ()):
            noun = "one of " + ", ".join(words)
    extra = field.json_schema_extra
    unit = f" {extra['unit']}" if isinstance(extra, dict) and "unit" in extra else ""
    return noun + _describe_bounds(bounds) + unit + (" or null" if nullable else "")


def _describe_type(annotation: Any) -> tuple[str, dict[str, float], bool]:
    """Return (noun, bounds, whether null is allowed) of a type annotation."""
    bounds: dict[str, float] = {}
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        for item in metadata:
            _read_bound(item, bounds)
            for nested in getattr(item, "metadata", ()):
                _read_bound(nested, bounds)
        noun, inner_bounds, nullable = _describe_type(inner)
        return noun, {**inner_bounds, **bounds}, nullable
    if origin in (Union, types.UnionType):
        members = [arg for arg in get_args(annotation) if arg is not type(None)]
        nouns = [_describe_type(member)[0] for member in members]
        return " or ".join(nouns), bounds, len(members) < len(get_args(annotation))
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(annotation)), bounds, False
    if origin is dict:
        return "a mapping of names to " + _describe_type(get_args(annotation)[1])[0], bounds, False
    if origin in (tuple, list):
        base = listed(annotation)
        if base is not None:
            names = ", ".join(base.family.names)
            return f"a list of {names}, each by its name or a mapping of name and settings", bounds, False
        return "a list of " + _describe_type(get_args(annotation)[0])[0], bounds, False
    if (family := family_of(annotation)) is not None:
        return f"a name, {' or '.join(family.names)}, or a mapping of name and settings", bounds, False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping with the keys " + ", ".join(annotation.model_fields), bounds, False
    return _NOUNS.get(annotation, getattr(annotation, "__name__", str(annotation))), bounds, False


def _hint(field: FieldInfo) -> str:
    """Return what else there is to know of a text that is none of the words."""
    hints = [item.hint for item in field.metadata if getattr(item, "hint", "")]
    return f"; {hints[0]}" if hints else ""


def _words(field: FieldInfo) -> list[str]:
    """Return the words that a setting takes."""
    marked = [word for item in field.metadata for word in getattr(item, "words", ())]
    return [*marked, *_words_of(field.annotation)]


def _words_of(annotation: Any) -> list[str]:
    """Return the words that a type annotation allows."""
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if isinstance(value, str)]
    return [word for member in get_args(annotation) for word in _words_of(member)]


def _read_bound(item: Any, bounds: dict[str, float]) -> None:
    for kind, attribute in ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt")):
        if isinstance(item, kind):
            bounds[attribute] = getattr(item, attribute)


def _describe_bounds(bounds: Mapping[str, float]) -> str:
    low = f"{bounds['ge']:g}" if "ge" in bounds else f"above {bounds['gt']:g}" if "gt" in bounds else None
    high = f"{bounds['le']:.10g}" if "le" in bounds else f"below {bounds['lt']:g}" if "lt" in bounds else None
    if low and high:
        return f", {low} to {high}"
    if low:
        return f", {low}" if low.startswith("above") else f", at least {low}"
    return f", {high}" if high else ""


def validation_problems(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str = "",
    sources: Mapping[str, str] | None = None,
    extra_keys: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
) -> list[str]:
    """Turn a pydantic error into one line per problem.

    Args:
        error: What validation raised.
        model: The model that was validated; its fields give the allowed values and the nearest keys.
        prefix: Dotted path of the model inside the whole configuration, with its final dot.
        sources: Dotted path → where the value was written (a file, or the command line).
        extra_keys: Valid dotted keys beyond those of the model, as candidates for a misspelt key.
        values: What was validated, which says which kinds of components are chosen.
    """
    fields = flatten(model, prefix, values)
    candidates = [*fields, *extra_keys]
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path, field = _locate(item["loc"], prefix, fields)
        path = path.removesuffix(".")  # of the whole section
        if path in lines:  # the other members of a union that failed
            continue
        if item["type"] == "extra_forbidden" and (family := _family_at(path, prefix, model, values)):
            lines[path] = _not_of_this_kind(path, item["input"], family, values, prefix, _source(path, sources))
        elif item["type"] == "extra_forbidden":
            lines[path] = unknown_setting(path, candidates, _source(path, sources))
        elif item["type"] == "value_error" or field is None:
            lines[path] = f"{path}: {item['msg'].removeprefix('Value error, ')}{_source(path, sources)}"
        else:
            value = item["input"]
            shown = "null" if value is None else repr(value) if isinstance(value, str) else value
            where = _source(path, sources)
            close = nearest(value, _words(field), 1) if isinstance(value, str) else []
            hint = f"; nearest: {close[0]}" if close else _hint(field)
            lines[path] = f"{path}: {shown} is not allowed{where}; allowed: {describe_allowed(field)}{hint}"
    return list(lines.values())


def _family_at(path: str, prefix: str, model: type[BaseModel], values: Mapping[str, Any] | None) -> Family | None:
    """Return the component that has a setting under another of its kinds."""
    section, _, name = path.rpartition(".")
    fields = flatten(model, prefix, values)
    above = section.rpartition(".")[0]
    base = listed(fields[above].annotation) if above in fields else None
    family = base.family if base else family_of(fields[section].annotation) if section in fields else None
    return family if family is not None and family.readers(name) else None


def _not_of_this_kind(
    path: str, value: Any, family: Family, values: Mapping[str, Any] | None, prefix: str, where: str
) -> str:
    section, _, name = path.rpartition(".")
    written: Any = values
    for part in section.removeprefix(prefix).split("."):
        if isinstance(written, list | tuple):
            written = written[int(part)]
        else:
            written = written.get(part) if isinstance(written, Mapping) else None
    chosen = written.get("name", family.default) if isinstance(written, Mapping) else family.default
    readers = " and ".join(family.readers(name))
    return f"{path}: {value} would be ignored{where}, because {section}.name is {chosen}; it is read by {readers}"


def unknown_setting(path: str, candidates: Iterable[str], where: str = "") -> str:
    """Return the line for a key that does not exist, with the nearest keys that do."""
    candidates = list(candidates)
    parent = path.rpartition(".")[0]
    siblings = [name for each in candidates for above, _, name in [each.rpartition(".")] if above == parent]
    close = nearest_settings(path, candidates)
    hint = f"; nearest: {', '.join(close)}" if close else f"; {parent or 'the top level'} has: {', '.join(siblings)}"
    return f"{path}: unknown setting{where}{hint}"


def nearest_settings(path: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three dotted keys that may be meant by one that does not exist, or by another tool's word."""
    candidates = list(candidates)
    parent, _, leaf = path.rpartition(".")
    beside = {each.rpartition(".")[2]: each for each in candidates if each.rpartition(".")[0] == parent}
    everywhere: dict[str, str] = {}
    for candidate in candidates:
        everywhere.setdefault(candidate.rpartition(".")[2], candidate)
    if not parent and leaf in everywhere:
        return [everywhere[leaf]]
    if (meant := SETTINGS.get(leaf)) in candidates:
        return [str(meant)]
    words = {word: setting for word, setting in SETTINGS.items() if setting in candidates}
    for known in (beside, everywhere, words):
        if close := [known[name] for name in nearest(leaf, known)]:
            return list(dict.fromkeys(close))
    return []


def _locate(
    location: tuple[int | str, ...], prefix: str, fields: Mapping[str, FieldInfo]
) -> tuple[str, FieldInfo | None]:
    """Return the dotted path of an error and the field it belongs to; union tags in the location are dropped."""
    parts: list[str] = []
    field = None
    for part in location:
        path = prefix + ".".join([*parts, str(part)])
        if field is not None and path not in fields and not any(key.startswith(f"{path}.") for key in fields):
            annotation = field.annotation
            if get_origin(annotation) is dict:  # keys of the user's own
                return f"{prefix}{'.'.join(map(str, location))}", None
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                break  # inside a leaf: a union member or a list index
        parts.append(str(part))
        field = fields.get(path)
    return prefix + ".".join(parts), field


def _source(path: str, sources: Mapping[str, str] | None) -> str:
    """Return `` (in FILE)`` for the deepest written ancestor of `path`, or nothing."""
    while sources and path:
        if path in sources:
            return f" ({sources[path]})"
        path = path.rpartition(".")[0]
    return ""
