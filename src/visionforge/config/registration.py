"""What registries have in common: their built-in entries, and whether one is the same as before, in a notebook say."""

import pkgutil
from functools import partial
from importlib import import_module
from types import CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (str, bytes, int, float, bool, tuple, frozenset, type(None))


def import_all(package: str) -> None:
    """Import the modules of a package, in the order of their names, so that they register what they define."""
    found = pkgutil.iter_modules(import_module(package).__path__)
    for module in sorted(info.name for info in found):
        import_module(f"{package}.{module}")


def same_definition(one: object, other: object) -> bool:
    """Return whether two functions or classes were written alike in the same place: module, name and code.

    Comments and line numbers do not count; defaults and what a function has closed over do.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, partial) and isinstance(other, partial):
        return same_definition(one.func, other.func) and (one.args, one.keywords) == (other.args, other.keywords)
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return same_definition(one.__func__, other.__func__) and _equal(one.__self__, other.__self__)
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        return origin(one) == origin(other) and _same_function(one, other)
    if isinstance(one, type) and isinstance(other, type):
        return origin(one) == origin(other) and _same_class(one, other)
    return bool(one == other)


def origin(definition: object) -> str:
    """Return ``module.name`` of a function or class, as an error names it."""
    name = getattr(definition, "__qualname__", None)
    return f"{getattr(definition, '__module__', '')}.{name}" if name else str(definition)


def _same_function(one: FunctionType, other: FunctionType) -> bool:
    held = [[cell.cell_contents for cell in function.__closure__ or ()] for function in (one, other)]
    return (
        _code(one.__code__) == _code(other.__code__)
        and _equal(one.__defaults__, other.__defaults__)
        and _equal(one.__kwdefaults__, other.__kwdefaults__)
        and len(held[0]) == len(held[1])
        and all(_equal(mine, theirs) for mine, theirs in zip(*held, strict=True))
    )


def _code(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, without where it stands; constants with their types, as 1 equals True."""
    constants = tuple(_code(c) if isinstance(c, CodeType) else (type(c), c) for c in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _same_class(one: type, other: type) -> bool:
    mine, theirs = vars(one), vars(other)
    if mine.keys() != theirs.keys() or [*map(origin, one.__bases__)] != [*map(origin, other.__bases__)]:
        return False
    names = [name for name in mine if name != "__firstlineno__" and not _generated(one, mine[name], name)]
    return all(_same_member(mine[name], theirs[name]) for name in names)


def _generated(owner: type, member: object, name: str) -> bool:
    """Return whether a library has made the hash of a class, as pydantic does for frozen models."""
    return name == "__hash__" and getattr(member, "__module__", owner.__module__) != owner.__module__


def _same_member(one: object, other: object) -> bool:
    if isinstance(one, property) and isinstance(other, property):
        return same_definition(one.fget, other.fget)
    one, other = getattr(one, "__func__", one), getattr(other, "__func__", other)
    if isinstance(one, (FunctionType, type, *_PLAIN)):
        return _equal(one, other)
    return type(one) is type(other)  # descriptors and the like, which belong to the class


def _equal(one: object, other: object) -> bool:
    """Return whether two values are the same; of such as have no plain answer (arrays), whether they are one object."""
    if isinstance(one, FunctionType | type | partial | MethodType):
        return same_definition(one, other)
    return one is other or (type(one) is type(other) and (one == other) is True)
