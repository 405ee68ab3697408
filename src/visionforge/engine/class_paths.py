"""What is wrong with the classes that the Trainer's settings name: loggers, callbacks, profiler, strategy, plugins.

The settings are looked at as they were written; jsonargparse alone tells of all that it has tried, without the key.
"""

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from visionforge.config.problems import nearest
from visionforge.printable import printable

SPEC = ("class_path", "init_args", "dict_kwargs")  # the keys by which a class is given
_LONGEST = 80  # characters of a value in a message


def bases() -> dict[str, tuple[type, ...]]:
    """Return Trainer flag → the classes of which its values are."""
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins import CheckpointIO, LayerSync, Precision
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy

    plugins = (Precision, ClusterEnvironment, CheckpointIO, LayerSync)
    return {
        "logger": (Logger,),
        "callbacks": (Callback,),
        "profiler": (Profiler,),
        "strategy": (Strategy,),
        "plugins": plugins,
    }


def class_problems(trainer: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return a line for every mistake in a class of the Trainer's flags.

    Args:
        trainer: The section `trainer`, as it was written.
        sources: Dotted path → where it was written.
    """
    problems: list[str] = []
    for flag, kinds in bases().items():
        value, path = trainer.get(flag), f"trainer.{flag}"
        if value is None or isinstance(value, bool) or (isinstance(value, str) and flag in ("profiler", "strategy")):
            continue  # nothing, or a name that the Trainer knows
        where = f" ({sources[path]})" if path in sources else ""
        several = isinstance(value, list)
        for place, item in enumerate(value if several else [value]):
            problems += _problems(item, f"{path}.{place}" if several else path, kinds, where)
    return problems


def _problems(item: Any, path: str, kinds: tuple[type, ...], where: str) -> Iterator[str]:
    """Yield the mistakes in one class."""
    names = " or ".join(kind.__name__ for kind in kinds)
    spec = {"class_path": item} if isinstance(item, str) else item
    if not isinstance(spec, Mapping) or not isinstance(spec.get("class_path"), str):
        wrong = [key for key in spec if key not in SPEC] if isinstance(spec, Mapping) else []
        hint = f"; {wrong[0]} is unknown" if wrong else ""
        yield f"{path}: names no class{where}{hint}; allowed: a {names}, as a class_path with its init_args"
        return
    known = _classes(kinds)
    name = spec["class_path"]
    found = known.get(name) if "." not in name else _imported(name)
    if found is None:
        close = nearest(name.rpartition(".")[2], known)
        hint = f"nearest: {', '.join(close)}" if close else "a class of your own is named by its module, too"
        other = next((kind for kind in sum(bases().values(), ()) if name in _classes((kind,))), None)
        fault = "does not exist" if other is None else f"is a {other.__name__}, no {names}"
        yield f"{path}: the class {name} {fault}{where}; {hint}"
    elif not (inspect.isclass(found) and issubclass(found, kinds)):
        yield f"{path}: {name} is no {names}{where}"
    else:
        yield from _argument_problems(found, spec, f"{path}.init_args", where)


def _classes(kinds: tuple[type, ...]) -> dict[str, type]:
    """Return name → class of all classes of these kinds that are known without their module."""
    found: dict[str, type] = {}
    for kind in kinds:
        package = import_module(kind.__module__.rpartition(".")[0])
        waiting = [*(each for each in vars(package).values() if inspect.isclass(each)), *kind.__subclasses__()]
        while waiting:
            each = waiting.pop()
            if issubclass(each, kind) and each.__name__ not in found and not each.__name__.startswith("_"):
                found[each.__name__] = each
                waiting += each.__subclasses__()
    return found


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    with contextlib.suppress(Exception):  # the module of somebody else may raise anything
        return getattr(import_module(module), name, None)
    return None


def _argument_problems(kind: type, spec: Mapping[str, Any], path: str, where: str) -> Iterator[str]:
    """Yield the arguments that a class does not take, needs, or takes with other values."""
    given = spec.get("init_args") or {}
    extra = spec.get("dict_kwargs") or {}
    if not isinstance(given, Mapping) or not isinstance(extra, Mapping):
        yield f"{path}: is no mapping of arguments{where}"
        return
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    names = [action.dest for action in parser._actions if action.dest.rpartition(".")[2] != "help"]
    for name in given:
        if name not in names:
            close = nearest(str(name), names)
            hint = f"nearest: {', '.join(close)}" if close else f"{kind.__name__} takes: {', '.join(names)}"
            yield f"{path}.{name}: unknown argument of {kind.__name__}{where}; {hint}"
    try:
        parser.parse_object({name: value for name, value in {**extra, **given}.items() if name in names})
    except ArgumentError as error:
        yield from _told(str(error), given, kind, path, where)


def _told(message: str, given: Mapping[str, Any], kind: type, path: str, where: str) -> Iterator[str]:
    """Yield in one line each what the parser of a class's arguments complains of."""
    missing = re.search(r"arguments are required: (.+)$", message)
    key = re.search(r'Parser key "([^"]+)"', message)
    for name in missing[1].split(", ") if missing else ():
        yield f"{path}.{name}: missing{where}; {kind.__name__} needs it"
    if missing or key is None:
        if not missing:
            yield f"{path}: {' '.join(message.split())}{where}"
        return
    kinds = re.findall(r"Expected an? <class '([\w.]+)'>", message)
    allowed = " or ".join("null" if each == "NoneType" else each for each in kinds) or "another value"
    value = printable(repr(given.get(key[1])), _LONGEST)
    yield f"{path}.{key[1]}: {value} is not allowed{where}; allowed: {allowed}"
