"""Components in a configuration that was stored: by an earlier version, or where somebody's own parts were known."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from visionforge.config.problems import flatten, value_at
from visionforge.config.schema import RunSettings
from visionforge.config.schema.components import Component, Family, family_of, listed


@cache
def component_paths() -> dict[str, type[Component]]:
    """Return dotted path → base class of the settings that are a component, or a list of them."""
    found = {path: listed(field.annotation) or field.annotation for path, field in flatten(RunSettings).items()}
    return {path: base for path, base in found.items() if family_of(base) is not None}  # type: ignore[misc]


def unknown_parts(config: Mapping[str, Any]) -> list[str]:
    """Return ``path: name`` of every component whose kind is not known here; no package is asked for it."""
    return [f"{path}: {_name(item, family)}" for path, family, item in _parts(config) if not _known(item, family)]


def of_known_parts(config: Mapping[str, Any], unknown: bool = False) -> dict[str, Any]:
    """Return a stored configuration without what it says of components that are not known here.

    That are kinds that nobody has registered, and settings that a kind does not have, as earlier versions stored them.

    Args:
        config: The nested configuration, as it was read.
        unknown: Keep kinds that are not known: the check of the settings looks for them.
    """
    result = {section: dict(tree) if isinstance(tree, Mapping) else tree for section, tree in config.items()}
    for path, base in component_paths().items():
        section, *inner = path.split(".")
        tree = result.get(section)
        for part in inner[:-1]:
            if isinstance(tree, dict) and isinstance(tree.get(part), Mapping):
                tree[part] = dict(tree[part])
            tree = tree.get(part) if isinstance(tree, dict) else None
        if not isinstance(tree, dict) or inner[-1] not in tree:
            continue
        value, family = tree[inner[-1]], base.family
        if isinstance(value, list | tuple):
            tree[inner[-1]] = [_own(item, family) for item in value if unknown or _known(item, family)]
        elif unknown or _known(value, family):
            tree[inner[-1]] = _own(value, family)
        else:
            del tree[inner[-1]]
    return result


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Family, Any]]:
    for path, base in component_paths().items():
        value = value_at(config, path)
        if isinstance(value, list | tuple):
            yield from ((f"{path}.{position}", base.family, item) for position, item in enumerate(value))
        elif value is not None:
            yield path, base.family, value


def _name(value: Any, family: Family) -> Any:
    return value.get("name", family.default) if isinstance(value, Mapping) else value


def _known(value: Any, family: Family) -> bool:
    """Return whether the kind is registered; what is no component at all is left to the check of the settings."""
    name = _name(value, family)
    return not isinstance(name, str) or name in family.kinds


def _own(value: Any, family: Family) -> Any:
    kind = family.kinds.get(str(_name(value, family)))
    if kind is None or not isinstance(value, Mapping):
        return value
    every = {name for other in family.kinds.values() for name in other.model_fields}
    return {key: item for key, item in value.items() if key in kind.model_fields or key not in every}
