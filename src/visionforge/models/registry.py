"""The registry of backbones: names and facts without torch, builders loaded on first use.

A backbone comes from the built-in table, from `register_backbone`, from another package's entry point in the group
`visionforge.backbones`, or, under the prefixes ``torchvision/`` and ``timm/``, from one of those libraries.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from visionforge.config.functions import PLACES, builder_of, part_name
from visionforge.config.problems import nearest
from visionforge.config.registration import origin, same_definition
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.models.builtin import BUILTIN
from visionforge.models.entry import BackboneEntry, Builder

__all__ = [
    "BackboneEntry",
    "backbone_entry",
    "backbone_names",
    "backbones_taking",
    "backbones_with_maps",
    "described_backbones",
    "register_backbone",
]

ENTRY_POINTS = "visionforge.backbones"
LIBRARIES = ("torchvision", "timm")

_ENTRIES: dict[str, BackboneEntry] = {entry.name: entry for entry in BUILTIN}


def register_backbone(entry: BackboneEntry | Callable[..., Any], replace: bool = False) -> Any:
    """Add a backbone under its name; the same again, as when a notebook cell is run twice, takes its own place.

    Args:
        entry: The backbone. Two builders are the same if module, name and code are. Or a function of ``in_channels``,
            ``num_classes`` and, where it reads them, ``dropout``, ``resolution`` and ``scale`` that returns a network
            from (N, C, H, W) to logits (N, K), whose name and docstring are the backbone's; this is then a decorator.
        replace: Take the place of another builder that was registered under this name before.

    Returns:
        What was given.

    Raises:
        ValueError: If the name is taken, or has the form of a library's, or a function takes other arguments.
    """
    if not isinstance(entry, BackboneEntry):
        told = (inspect.getdoc(entry) or f"A function of {entry.__module__}").splitlines()[0].rstrip(".")
        builder = builder_of(entry)
        made = BackboneEntry(name=part_name(entry), builder=builder, description=told, feature_maps=False)
        register_backbone(made, replace)
        return entry
    if "/" in entry.name:
        raise ValueError(f"a backbone's name has no slash: {entry.name!r}")
    known = _ENTRIES.get(entry.name)
    if known is not None and known.is_builtin:
        raise ValueError(f"a backbone named {entry.name!r} is registered already: it is built in")
    if known is not None and not replace and not same_definition(known.builder, entry.builder):
        raise ValueError(
            f"a backbone named {entry.name!r} is registered already, with another builder ({origin(known.builder)}); "
            "choose another name, or give replace=True"
        )
    _ENTRIES[entry.name] = entry
    return entry


PLACES |= dict.fromkeys(("model.backbone", "model.backbone.name"), register_backbone)


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def backbone_names(pattern: str = "*") -> list[str]:
    """Return the names that match a glob pattern, sorted; a library's only if the pattern begins with its prefix."""
    names = {*_ENTRIES, *_entry_points()}
    library = pattern.partition("/")[0]
    if library in LIBRARIES and "/" in pattern:
        names |= {f"{library}/{name}" for name in _library(library).names()}
    return sorted(name for name in names if fnmatch(name, pattern))


def backbones_taking(spatial_dims: int) -> list[str]:
    """Return the names of the registered backbones that take images (2) or volumes (3), sorted; of another package's
    entry points only those that are loaded already, and none of a library's.
    """  # noqa: D205
    return sorted(name for name, entry in _ENTRIES.items() if spatial_dims in entry.spatial_dims)


def backbones_with_maps(spatial_dims: int) -> list[str]:
    """Return those of `backbones_taking` that give feature maps of falling size."""
    return [name for name in backbones_taking(spatial_dims) if _ENTRIES[name].feature_maps]


def described_backbones(pattern: str = "*") -> tuple[list[str], list[BackboneEntry], list[str]]:
    """Return the names that match a glob pattern, their entries, and a line for each problem of another package's.

    A library has hundreds of models, each of which would have to be looked up; those have no entry here.

    Raises:
        SettingsError: If no name matches.
    """
    names = backbone_names(pattern)
    if not names:
        known = ", ".join(backbone_names())
        raise SettingsError(f"models list: no backbone matches {pattern!r}; registered: {known}")
    entries: list[BackboneEntry] = []
    problems: list[str] = []
    for name in names:
        if name.startswith(tuple(f"{library}/" for library in LIBRARIES)):
            continue
        try:
            entries.append(backbone_entry(name))
        except VisionForgeError as error:
            problems += error.problems
    return names, entries, problems


def backbone_entry(name: str) -> BackboneEntry:
    """Return a backbone by its name.

    Raises:
        SettingsError: If there is none of that name; the nearest names are in the message.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    library, slash, model = name.partition("/")
    if slash and library in LIBRARIES:
        return _library_entry(library, model)
    points = _entry_points()
    if name in points:
        return _load_entry_point(points[name])
    close = nearest(name, [*_ENTRIES, *points]) or backbone_names()
    raise SettingsError(
        f"model.backbone.name: {name!r} is unknown; nearest: {', '.join(close)} "
        "(`visionforge models list` shows all; torchvision/NAME and timm/NAME take theirs)"
    )


def _load_entry_point(point: EntryPoint) -> BackboneEntry:
    """Load what another package offers: a BackboneEntry, or a builder function."""
    try:
        offered: BackboneEntry | Builder = point.load()
    except Exception as error:  # the other package's code may raise anything
        raise SettingsError(f"model.backbone.name: {point.name} ({point.value}) cannot be loaded: {error}") from error
    if isinstance(offered, BackboneEntry):
        return replace(offered, name=point.name)
    if not callable(offered):
        raise SettingsError(
            f"model.backbone.name: {point.name} ({point.value}) is neither a function nor a BackboneEntry"
        )
    return BackboneEntry(
        point.name, offered, (getattr(offered, "__doc__", None) or point.value).strip().splitlines()[0]
    )


class Library(Protocol):
    """What a module for another library's models has."""

    names: Callable[[], list[str]]
    entry: Callable[[str], BackboneEntry]


def _library(name: str) -> Library:
    module: Library = import_module(f"visionforge.models.from_{name}")
    return module


@cache
def _library_entry(library: str, model: str) -> BackboneEntry:
    module = _library(library)
    known = module.names()
    if model.partition(".")[0] not in known and model not in known:
        close = [f"{library}/{name}" for name in nearest(model, known)]
        hint = f"nearest: {', '.join(close)}" if close else f'`visionforge models list "{library}/*"` shows all'
        raise SettingsError(f"model.backbone.name: {library} has no classification model {model!r}; {hint}")
    return module.entry(model)
