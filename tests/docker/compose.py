"""Reads our compose files as `docker compose` does."""

import re
from pathlib import Path

import yaml

from tests.conftest import REPOSITORY

COMPOSE = (REPOSITORY / "docker" / "compose.yaml", REPOSITORY / "docker" / "compose.gpu.yaml")


def interpolated(path: Path, **variables: str) -> dict:
    """Return a compose file with its variables in place: text stays text, as `docker compose` has it.

    Raises:
        KeyError: If a required one is missing.
    """

    def value(found: re.Match) -> str:
        name, operator, rest = found.groups()
        if variables.get(name):
            return variables[name]
        if operator != ":-":
            raise KeyError(name)
        return rest

    def walk(tree: object) -> object:
        if isinstance(tree, dict):
            return {key: walk(item) for key, item in tree.items()}
        if isinstance(tree, list):
            return [walk(item) for item in tree]
        return re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, tree) if isinstance(tree, str) else tree

    return walk(yaml.safe_load(path.read_text(encoding="utf-8")))
