"""The Trainer's limits, in which 1 is one batch and 1.0 is all of them."""

import functools
import operator
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from visionforge.runs.identity import processes_of


def integers_first(annotation: Any) -> Any:
    """Return a union of types in which int comes before float; None if there is nothing to do.

    ``Union[int, float]`` of the typing module is whichever of ``Union[int, float]`` and ``Union[float, int]`` was made
    first in this process, since both are equal and it keeps them in a cache. With float first, a parser reads 1 as 1.0.
    """
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    if int not in members or float not in members:
        return None
    return functools.reduce(operator.or_, (int, *(member for member in members if member is not int)))


def limited(images: int, limit: Any, batch: int) -> int:
    """Return how many of the first images a limit such as `limit_val_batches` leaves.

    Args:
        images: All images.
        limit: A number of batches (int) or a share of them (float); None is all.
        batch: Images per batch, of all processes together.
    """
    batches = -(-images // batch)
    if limit is None or isinstance(limit, bool):
        return images
    return min(images, batch * (int(batches * limit) if isinstance(limit, float) else int(limit)))


def processes_or_one(trainer: Mapping[str, Any]) -> int:
    """Return the number of training processes, as far as the flags of a Trainer tell."""
    return processes_of(trainer) or 1
