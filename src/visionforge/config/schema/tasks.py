"""Tasks by name: those of `visionforge.tasks`, of other packages' entry points, and where somebody registers them."""

import inspect
import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from visionforge.config.registration import import_all, origin, same_definition
from visionforge.config.schema.task import REQUIRED, Task
from visionforge.errors import SettingsError

_PACKAGE = "visionforge.tasks"
ENTRY_POINTS = "visionforge.tasks"  # of other packages: a subclass of Task
FORMS = ("classes", "labels", "grades")  # of whole images
HINT = "one of another package has to be imported first (--import MODULE)"
_ARGUMENTS = {"label_shapes": (1, 2, (8, 8)), "stored": ((), 1)}  # methods that have got further ones
_TASKS: dict[str, Task] = {}
_state = {"complete": False}


class UnknownTaskError(SettingsError, ValueError):
    """No task of a name is known."""


def _load_own() -> None:
    if not _state["complete"]:
        _state["complete"] = True
        import_all(_PACKAGE)


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def tasks() -> dict[str, Task]:
    """Return name → task of all that are registered, in the order in which they are listed."""
    _load_own()
    return dict(sorted(_TASKS.items(), key=lambda item: item[1].position))


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks, those that other packages offer included."""
    return tuple(dict.fromkeys((*tasks(), *_points())))


def task_named(name: str) -> Task:
    """Return a task.

    Raises:
        UnknownTaskError: If there is none of that name, or the package that offers it cannot be loaded.
    """
    _load_own()
    if name not in _TASKS and name in _points():
        _load_offered(name)
    if name not in _TASKS:
        raise UnknownTaskError(f"task: {name!r} is not allowed; allowed: {', '.join(task_names())}; {HINT}")
    return _TASKS[name]


def _load_offered(name: str) -> None:
    point = _points()[name]
    try:
        kind = point.load()
        if not (isinstance(kind, type) and issubclass(kind, Task)):
            raise TypeError("it is no subclass of visionforge.Task")
        if kind.name != name:
            raise ValueError(f"its name is {kind.name!r}")
        register_task(kind)
    except Exception as error:  # another package's module may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UnknownTaskError(f"task: {name}: {point.value} cannot be loaded ({reason})") from error


def default_task() -> str:
    """Return the name of the task that rendered images have."""
    return str(import_module(_PACKAGE).USUAL)


def task_of_form(form: str) -> str:
    """Return the name of the first task whose labels have a form.

    Raises:
        UnknownTaskError: If there is none.
    """
    found = next((name for name, task in tasks().items() if form in task.forms), None)
    if found is None:
        raise UnknownTaskError(f"task: none is known whose labels are {form}; {HINT}")
    return found


def usual_task(several: bool, classes: int, own: bool = False) -> str:
    """Return the name of the task that is meant where nobody says what the labels are.

    Args:
        several: Whether images have several labels, or none.
        classes: Number of classes.
        own: Ask the tasks of this package only.
    """
    asked = (item for item in tasks().items() if not own or _is_own(type(item[1])))
    return next(name for name, task in asked if task.is_usual(several, classes))


def _is_own(kind: type[Task]) -> bool:
    return kind.__module__.startswith(f"{_PACKAGE}.")


def fits(asked: Sequence[str] | None, task: str) -> bool:
    """Return whether a metric or loss fits a task.

    Args:
        asked: Names of tasks, and forms of labels that tasks have; None is what predicts classes or labels of images.
        task: Name of the task.
    """
    wanted = FORMS if asked is None else asked
    return task in wanted or not set(wanted).isdisjoint(task_named(task).forms)


def fitting(asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the registered tasks that a metric or loss fits."""
    return tuple(name for name in tasks() if fits(asked, name))


def asked_problem(asked: Sequence[str]) -> str | None:
    """Return what is wrong with the tasks that a metric or loss says it fits; None if nothing."""
    known = dict.fromkeys((*task_names(), *(form for task in tasks().values() for form in task.forms)))
    if asked and set(asked) <= set(known):
        return None
    return f"tasks: {tuple(asked)} is not allowed; allowed: some of {', '.join(known)}"


TaskT = TypeVar("TaskT", bound=type[Task])


def register_task(kind: TaskT, replace: bool = False) -> TaskT:
    """Make a task known by its name, so that data sets can have it; for use as a decorator.

    Args:
        kind: A subclass of `Task` with a `name`. Two are the same if module, name and code are.
        replace: Take the place of another one of yours that was registered under this name before.

    Raises:
        TypeError: If it is no subclass of `Task`.
        ValueError: If the name is not allowed or taken, or what the class says of itself does not fit together.

    Example::

        from visionforge.tasks.binary import Binary

        @vf.register_task
        class Screening(Binary):
            \"\"\"Two classes, of which the second is reported from a probability of 0.2 on.\"\"\"

            name = "screening"

            def is_usual(self, several, classes):
                return False

            def decide(self, probabilities, thresholds=None):
                return (probabilities[:, 1] >= 0.2) * 1
    """
    if not (isinstance(kind, type) and issubclass(kind, Task) and kind is not Task):
        raise TypeError(f"{getattr(kind, '__qualname__', repr(kind))}: a task is a subclass of visionforge.Task")
    if problem := _class_problem(kind):
        raise ValueError(problem)
    name, own = kind.name, _is_own(kind)
    if not own:
        _load_own()  # so that no name of this package's is taken
    known = _TASKS.get(name)
    if known is not None and not own:
        if _is_own(type(known)):
            raise ValueError(f"a task named {name!r} is registered already: it is built in")
        if not replace and not same_definition(type(known), kind):
            raise ValueError(f"a task named {name!r} is registered already, by {origin(type(known))}")
    _TASKS[name] = kind()
    return kind


def _class_problem(kind: type[Task]) -> str | None:
    """Return what is wrong with the class of a task; None if nothing."""
    name, who, taken = kind.name, kind.__qualname__, tuple(dict.fromkeys((*FORMS, *REQUIRED)))
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9-]{0,39}", name) or name in taken:
        return (
            f"task {name!r}: its name is not allowed; allowed: small letters, digits and -, at most 40, and not "
            f"{', '.join(taken)}"
        )
    forms = set(REQUIRED) & set(kind.forms) if isinstance(kind.forms, tuple) else set()
    if len(forms) != 1:
        return f"{who}: give it forms, a tuple with one of {', '.join(REQUIRED)}"
    if kind.several != ("labels" in kind.forms):
        return f"{who}: several is {kind.several}; it is true of labels, and of them only"
    if not isinstance(kind.default_loss, str) or kind.default_loss in ("", "auto"):
        return f"{who}: give it a default_loss, the name of a loss"
    if kind.class_count is not None and (type(kind.class_count) is not int or kind.class_count < 2):
        return f"{who}: class_count: {kind.class_count!r} is not allowed; allowed: an integer, at least 2, or None"
    if kind.has_positive and kind.class_count != 2:
        return f"{who}: has_positive needs a class_count of 2"
    if not kind.several and kind.thresholds is not Task.thresholds:
        return f"{who}: thresholds are of labels that do not exclude each other; let `decide` do what they would"
    if missing := [method for method in REQUIRED[forms.pop()] if getattr(kind, method) is getattr(Task, method)]:
        return f"{who}: a task has to define {', '.join(missing)}; ClassTask, MultiLabel and MaskTask define them all"
    for method, given in _ARGUMENTS.items():
        try:
            inspect.signature(getattr(kind, method)).bind(kind, *given)
        except TypeError:
            return f"{who}.{method}: has other parameters than those of visionforge.Task.{method}"
    return None


class OneOfTasks:
    """Marks a text that is the name of a task."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return what is allowed."""
        return task_names()

    hint = HINT

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse what is no task."""
        return core_schema.no_info_after_validator_function(_known, handler(source))


def _known(name: str) -> str:
    if name == default_task():  # which is known without loading the others
        return name
    if name not in task_names():
        expected = " or ".join(map(repr, task_names()))
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
    try:
        task_named(name)
    except UnknownTaskError as error:
        raise PydanticCustomError("value_error", "{reason}", {"reason": error.problems[0]}) from error
    return name


TaskName = Annotated[str, OneOfTasks()]
