"""A plain function as a part of a configuration: its name chooses it, its keyword-only arguments are settings."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema import AugmentationOperation, Loss
from visionforge.config.schema.components import Component

OPERATIONS = "data.augmentation.operations"
PLACES: dict[str, Callable[..., Any]] = {}  # setting → what makes a function known that is given there
WEIGHED = "weights"  # of a loss: its third argument
_OF_MODULE = "; of a module, write a function that makes or calls it"
BY_BATCH = "generator"  # of an operation: its second argument, where it draws for the batch as a whole


def loss_of(function: Callable[..., Any], name: str | None = None, tasks: tuple[str, ...] = ("classes",)) -> type[Loss]:
    """Return the loss that a function computes.

    Args:
        function: ``(logits, targets)`` or ``(logits, targets, weights)``, as `Loss.loss` has them, to the mean of a
            batch or to the loss of each image, (N,); of the latter class weights make a weighted mean. Arguments
            behind a ``*`` are settings.
        name: Its name; None takes the function's.
        tasks: What it is for, as `Loss.tasks`.

    Raises:
        ValueError: If it takes other arguments, or a setting has no default.
    """
    taken, settings = _arguments(function, ("logits", "targets"), (WEIGHED,))

    def loss(self: Any, logits: Any, targets: Any, weights: Any) -> Any:
        more = {setting: getattr(self, setting) for setting in settings}
        if WEIGHED in taken:
            value = function(logits, targets, weights, **more)
        else:
            value = function(logits, targets, **more)
            if weights is not None and value.ndim == 0:
                raise ValueError(
                    f"model.loss.class_weights: {_shown(function)} returns one number; let it return the loss of each "
                    "image, or take weights as its third argument"
                )
            if weights is not None:
                share = (targets * weights).sum(dim=1)
                return (value * share).sum() / share.sum()
        return value.mean() if value.ndim else value

    made: type[Loss] = _kind(
        Loss, function, name, settings, {"loss": loss, "tasks": tasks}, {"tasks": ClassVar[tuple[str, ...]]}
    )
    return made


def operation_of(function: Callable[..., Any], name: str | None = None) -> type[AugmentationOperation]:
    """Return the augmentation operation that a function is.

    Args:
        function: ``(images, draws)``, where each image has numbers of its own, or ``(images, generator)``, as
            `AugmentationOperation.build` says, to images of the same shape. Arguments behind a ``*`` are settings.
        name: Its name; None takes the function's.

    Raises:
        ValueError: If it takes other arguments, or a setting has no default.
    """
    taken, settings = _arguments(function, ("images",), ("draws", BY_BATCH), at_least=1)

    def build(self: Any) -> Callable[[Any, Any], Any]:
        more = {setting: getattr(self, setting) for setting in settings}

        def operation(images: Any, source: Any) -> Any:
            return function(images, source, **more)

        return operation

    members = {"build": build, "by_image": BY_BATCH not in taken}
    annotations = {"by_image": ClassVar[bool]}
    made: type[AugmentationOperation] = _kind(AugmentationOperation, function, name, settings, members, annotations)
    return made


def builder_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a builder of networks that gives a function those of a builder's arguments that it takes.

    Args:
        function: Takes some of ``in_channels``, ``num_classes``, ``dropout``, ``resolution`` and ``scale`` by their
            names, the first two in any case, and returns a network.

    Raises:
        ValueError: If it takes other arguments.
    """
    known = ("in_channels", "num_classes", "dropout", "resolution", "scale")
    parameters = _signature(function).parameters
    others = [p.name for p in parameters.values() if p.name not in known and p.default is p.empty]
    missing = [name for name in known[:2] if name not in parameters]
    if others or missing:
        wrong = f"takes {', '.join(others)}" if others else f"lacks {', '.join(missing)}"
        raise ValueError(
            f"{_shown(function)}: a backbone's function takes in_channels, num_classes and, where it reads them, "
            f"dropout, resolution, scale; it {wrong}{_OF_MODULE if hasattr(function, 'forward') else ''}"
        )
    if all(name in parameters for name in known):
        return function

    def build(**arguments: Any) -> Any:
        return function(**{name: value for name, value in arguments.items() if name in parameters})

    build.__module__, build.__qualname__, build.__doc__ = function.__module__, function.__qualname__, function.__doc__
    return build


def is_function(given: object) -> bool:
    """Return whether something is called, and is no class."""
    return callable(given) and not isinstance(given, type)


def with_names(settings: Any, path: str = "") -> Any:
    """Return settings in which functions are named instead: each is registered as the part that its place asks for.

    Args:
        settings: Nested settings, as they are given in Python.
        path: Where they stand, such as ``model``.
    """
    import visionforge.config.parts  # noqa: F401  # which adds its places

    if is_function(settings) and (known := PLACES.get(path)) is not None:
        known(settings, replace=True)
        name = part_name(settings)
        return {"name": name} if path == "model.backbone" else name
    if isinstance(settings, Mapping):
        return {key: with_names(value, f"{path}.{key}" if path else str(key)) for key, value in settings.items()}
    if isinstance(settings, list | tuple) and path == OPERATIONS:
        return [with_names(item, path) for item in settings]
    return settings


def _arguments(
    function: Callable[..., Any], first: tuple[str, ...], then: tuple[str, ...], at_least: int = 0
) -> tuple[tuple[str, ...], dict[str, inspect.Parameter]]:
    """Return the names of a function's positional arguments, and the others, which are settings."""
    parameters = list(_signature(function).parameters.values())
    taken = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
    settings = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    wrong = len(taken) - len(first) not in range(at_least, 2) or (taken[len(first) :] and taken[-1] not in then)
    if wrong or len(taken) + len(settings) < len(parameters):
        allowed = " or ".join(f"({', '.join((*first, name))})" for name in then)
        short = "" if at_least else f"({', '.join(first)}) or "
        hint = _OF_MODULE if hasattr(function, "forward") else ""
        raise ValueError(
            f"{_shown(function)}: takes ({', '.join(taken)}); allowed: {short}{allowed}, and settings behind *{hint}"
        )
    bare = [name for name, p in settings.items() if p.default is p.empty]
    if bare:
        raise ValueError(f"{_shown(function)}: {', '.join(bare)} behind * is a setting, which needs a default")
    return taken, settings


def _kind(
    base: type[Component],
    function: Callable[..., Any],
    name: str | None,
    settings: dict[str, inspect.Parameter],
    members: dict[str, Any],
    annotations: dict[str, Any],
) -> Any:
    """Return a component class that does what a function does."""
    if taken := [setting for setting in settings if setting in base.model_fields]:
        raise ValueError(f"{_shown(function)}: {taken[0]} is a setting that every such part has; rename it")
    chosen = name or part_name(function)
    namespace: dict[str, Any] = {
        "__module__": function.__module__ or "__main__",
        "__qualname__": _shown(function),
        "__doc__": (inspect.getdoc(function) or f"{chosen}: a function of {function.__module__}.").strip(),
        "__annotations__": {**annotations, "name": Literal[chosen]},
        "name": chosen,
        **members,
    }
    for setting, parameter in settings.items():
        given = parameter.annotation
        kind = type(parameter.default) if given is parameter.empty or isinstance(given, str) else given
        namespace["__annotations__"][setting] = kind
        namespace[setting] = Field(default=parameter.default, description=f"Argument of {chosen}.")
    metaclass: Any = type(base)
    return metaclass(chosen, (base,), namespace)


def part_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, which a configuration can have."""
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{_shown(function)}: has no name that a configuration could have; define it with def")
    return name


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # an annotation of what is imported for type checkers only
        return inspect.signature(function)


def _shown(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
