"""Components: settings of which there are several kinds, chosen by name, each with fields of its own.

A kind is a class that is declared once, in one file: its settings, and how it is built from them. The kinds of this
package are found in the package of their family, those of others in an entry point, or where somebody registers them.
"""

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Self, TypeVar, cast, get_args, get_origin

from pydantic import GetCoreSchemaHandler, SerializationInfo, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from visionforge.config.registration import import_all, origin, same_definition
from visionforge.config.schema.base import Section

log = logging.getLogger(__name__)

GROUP = "visionforge.components"  # of entry points; a name is FAMILY.NAME


class Family:
    """The kinds of one component, known by name.

    Args:
        path: Dotted path of the setting, such as ``model.optimizer``.
        default: Name of the kind that is taken where none is named.
        package: Package whose modules hold the built-in kinds.
        what: What it is, for messages.
    """

    def __init__(self, path: str, default: str, package: str, what: str) -> None:
        self.path, self.default, self.package, self.what = path, default, package, what
        self._kinds: dict[str, type[Component]] = {}
        self._complete = False

    @property
    def kinds(self) -> "dict[str, type[Component]]":
        """Return name → class of all kinds that are registered, the built-in ones first."""
        self._load_own()
        return dict(self._kinds)

    def __set_name__(self, base: "type[Component]", name: str) -> None:
        self.base = base

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that can be chosen, those of other packages' entry points included."""
        return tuple(dict.fromkeys((*self.kinds, *self._offered())))

    def _load_own(self) -> None:
        if self._complete:
            return
        self._complete = True
        import_all(self.package)
        self._kinds = dict(sorted(self._kinds.items(), key=lambda item: item[1].position))

    def _offered(self) -> dict[str, EntryPoint]:
        prefix = f"{self.path.rpartition('.')[2]}."
        return {name.removeprefix(prefix): point for name, point in _points().items() if name.startswith(prefix)}

    def kind(self, name: object) -> "type[Component]":
        """Return a kind by its name.

        Raises:
            ValidationError: If there is none of that name, or the package that offers it cannot be loaded.
        """
        self._load_own()
        if isinstance(name, str):
            if name not in self._kinds and name in (offered := self._offered()):
                self._load_offered(offered[name], name)
            if name in self._kinds:
                return self._kinds[name]
        context = {"expected": " or ".join(map(repr, self.names))}
        raise _refused(self.path, {"type": "literal_error", "loc": ("name",), "input": name, "ctx": context})

    def _load_offered(self, point: EntryPoint, name: str) -> None:
        try:
            kind = point.load()
            if not (isinstance(kind, type) and issubclass(kind, self.base)):
                raise TypeError(f"it is no subclass of visionforge.{self.base.__name__}")
            if kind.model_fields["name"].default != name:
                raise ValueError(f"its name is {kind.model_fields['name'].default!r}, not {name!r}")
            self.add(kind)
        except Exception as error:  # another package's module may raise anything
            reason = f"{point.value} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            told = PydanticCustomError("value_error", "{reason}", {"reason": reason})
            raise _refused(self.path, {"type": told, "loc": ("name",), "input": name}) from error

    @property
    def description(self) -> str:
        """Return what the kinds are, a sentence each: the first of what they say of themselves."""
        told = ((name, (kind.__doc__ or "").strip().splitlines()) for name, kind in self.kinds.items())
        return " ".join(f"{name}: {lines[0] if lines else 'not described.'}" for name, lines in told)

    def add(self, kind: "type[Component]", replace: bool = False) -> None:
        """Add a kind; the same again, as when a notebook cell is run twice, takes its own place.

        Args:
            kind: The kind.
            replace: Take the place of another that was registered under this name before.

        Raises:
            ValueError: If it has no name of its own, does not do what its family asks for, or the name is that of
                another.
        """
        name = kind.model_fields["name"].default
        if not isinstance(name, str) or not name:
            raise ValueError(f'{kind.__qualname__}: give it a name, such as name: Literal["mine"] = "mine"')
        if kind.__module__.startswith(f"{self.package}."):
            self._kinds[name] = kind
            return
        self._load_own()
        known = self._kinds.get(name)
        if known is not None and known.__module__.startswith(f"{self.package}."):
            raise ValueError(f"{self.what} named {name!r} is registered already: it is built in")
        if all(getattr(kind, method) is getattr(self.base, method) for method in kind.required):
            raise ValueError(f"{kind.__qualname__}: {self.what} has a method {' or '.join(kind.required)}; define it")
        if known is not None and not replace and not _same(known, kind):
            raise ValueError(
                f"{self.what} named {name!r} is registered already, by another class ({origin(known)}); "
                "choose another name, or give replace=True"
            )
        self._kinds[name] = kind

    def readers(self, field: str) -> tuple[str, ...]:
        """Return the names of the kinds that have a field."""
        return tuple(name for name, kind in self.kinds.items() if field in kind.model_fields)


def _same(one: "type[Component]", other: "type[Component]") -> bool:
    """Return whether two kinds are alike, their fields included."""
    fields = [{name: repr(field) for name, field in kind.model_fields.items()} for kind in (one, other)]
    return fields[0] == fields[1] and same_definition(one, other)


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


class Component(Section):
    """Base of all components; a family's base class sets `family`, a kind sets `name`."""

    family: ClassVar[Family]
    required: ClassVar[tuple[str, ...]] = ()  # methods of which a kind of another package defines at least one
    position: ClassVar[int] = 100  # among the kinds, where they are listed
    tolerates: ClassVar[tuple[str, ...]] = ()  # settings of other kinds that may stand beside it
    off: ClassVar[bool] = False  # this kind is the absence of the thing, so settings of the others do no harm

    name: str = ""

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Make the kind that `name` says, where the family's base class is called."""
        chosen = cls.family.kind(fields.get("name", cls.family.default)) if "family" in cls.__dict__ else cls
        return cast(Self, super().__new__(chosen))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let the family's base class validate as the kind that `name` says, and dump what that kind has."""
        schema = handler(source)
        if "family" not in cls.__dict__:
            return schema
        dump = core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True)
        return core_schema.no_info_wrap_validator_function(
            lambda value, _: cls._chosen(value), schema, serialization=dump
        )

    @classmethod
    def usual(cls) -> Self:
        """Return the kind that is taken where none is named, with its defaults."""
        return cls(name=cls.family.default)

    @classmethod
    def _chosen(cls, value: Any) -> "Component":
        family = cls.family
        if isinstance(value, Component):
            if not isinstance(value, cls):
                raise PydanticCustomError("component_type", "another component")
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            raise PydanticCustomError("component_type", "Input should be a mapping")
        try:
            kind = family.kind(value.get("name", family.default))
        except ValidationError as error:
            raise _with_common(error, cls, value) from error
        return kind.model_validate(_without_others(family, kind, dict(value)))


def _with_common(error: ValidationError, base: type[Component], value: Mapping[str, Any]) -> ValidationError:
    """Return an error of an unknown name, and of what all kinds have."""
    problems = list(error.errors(include_url=False))
    common = {key: item for key, item in value.items() if key in base.model_fields and key != "name"}
    try:
        next(iter(base.family.kinds.values())).model_validate(common)
    except ValidationError as other:
        problems += [problem for problem in other.errors(include_url=False) if problem["loc"][0] in common]
    if len(problems) == 1:
        return error
    details = [_as_raised(problem) for problem in problems]
    return ValidationError.from_exception_data(base.family.path, details)


def _as_raised(problem: ErrorDetails) -> InitErrorDetails:
    kind: Any = problem["type"]
    return {"type": kind, "loc": problem["loc"], "input": problem["input"], "ctx": problem.get("ctx", {})}


def _refused(path: str, problem: InitErrorDetails) -> ValidationError:
    return ValidationError.from_exception_data(path, [problem])


def _dump(value: Component, info: SerializationInfo) -> dict[str, Any]:
    """Return what a kind has; its name also where only what was given is asked for."""
    found = value.model_dump(mode=info.mode, exclude_unset=info.exclude_unset, exclude_defaults=info.exclude_defaults)
    return {"name": value.name, **found}


def _without_others(family: Family, kind: type[Component], values: dict[str, Any]) -> dict[str, Any]:
    """Leave out the settings that other kinds have and that say nothing here: their defaults, as older files have.

    A family without a usual kind is one of lists, of which there are no older files.
    """
    left_out: list[str] = []
    if not family.default:
        return values
    for key in [key for key in values if key not in kind.model_fields]:
        others = [other.model_fields[key] for other in family.kinds.values() if key in other.model_fields]
        plain = isinstance(values[key], bool | int | float | str | None)
        if others and plain and (kind.off or key in kind.tolerates or any(values[key] == o.default for o in others)):
            del values[key]
            left_out.append(f"{family.path}.{key}")
    if left_out:
        _tell(", ".join(left_out), kind.model_fields["name"].default)
    return values


@cache
def _tell(settings: str, name: str) -> None:
    """Tell once of settings that were left out."""
    log.warning("%s: not read by %s, so leave it out", settings, name)


KindT = TypeVar("KindT", bound=type[Component])


def register(kind: KindT, base: type[Component] | None = None, replace: bool = False) -> KindT:
    """Make a component known by its name, so that a configuration can choose it; for use as a decorator.

    Args:
        kind: The kind, a subclass of its family's base class.
        base: That base class; None takes it from the kind.
        replace: Take the place of another that was registered under this name before.

    Raises:
        TypeError: If it is no subclass of that base class.
        ValueError: If the name is missing or taken, or what it has to do is not defined.
    """
    if base is not None and not (isinstance(kind, type) and issubclass(kind, base) and kind is not base):
        shown = getattr(kind, "__qualname__", repr(kind))
        raise TypeError(f"{shown}: {base.family.what} is a subclass of visionforge.{base.__name__}")
    kind.family.add(kind, replace)
    return kind


def family_of(annotation: Any) -> Family | None:
    """Return the family of which a setting holds one kind; None if it holds something else."""
    return annotation.family if isinstance(annotation, type) and issubclass(annotation, Component) else None


def listed(annotation: Any) -> type[Component] | None:
    """Return the base class of the components of which a setting holds a list; None if it holds something else."""
    first = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return first if family_of(first) is not None else None
