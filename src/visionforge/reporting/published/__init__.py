"""Published results that ship as data, a YAML file for each source, to stand beside one's own."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True)
class Published:
    """One published result.

    Attributes:
        dataset: Data set.
        resolution: Height and width of the images in pixels.
        method: What was trained, as its source calls it.
        values: Name of a metric → value on the test split.
        table: Name of the table.
        source: What to cite.
        note: What the values are.
    """

    dataset: str
    resolution: int
    method: str
    values: dict[str, float]
    table: str
    source: str
    note: str


@cache
def published() -> tuple[Published, ...]:
    """Return all published results that ship with the package.

    Raises:
        ValueError: If a file is damaged.
    """
    found: list[Published] = []
    for file in sorted(files(__name__).iterdir(), key=lambda each: each.name):
        if file.name.endswith(".yaml"):
            found += _rows(file.name, yaml.safe_load(file.read_text(encoding="utf-8")))
    return tuple(found)


def _rows(name: str, content: dict[str, Any]) -> list[Published]:
    metrics, rows = content["metrics"], []
    for dataset, resolution, method, *values in content["rows"]:
        if len(values) != len(metrics) or not all(0 <= value <= 1 for value in values):
            raise ValueError(f"{name}: {dataset} {method}: {len(metrics)} values from 0 to 1 are needed")
        told = dict(zip(metrics, map(float, values), strict=True))
        rows.append(
            Published(dataset, int(resolution), method, told, content["name"], content["source"], content["note"])
        )
    return rows
