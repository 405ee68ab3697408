"""The Trainer's limits, in which 1 is one batch and 1.0 is all of them."""

import functools
import operator
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin


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


def validation_limit(flags: Mapping[str, Any]) -> Any:
    """Return the limit of the validation during a fit; for Lightning, two flags are above `limit_val_batches`."""
    if flags.get("overfit_batches"):  # as many batches of either split
        return flags["overfit_batches"]
    quick = flags.get("fast_dev_run")
    return int(quick) if quick else flags.get("limit_val_batches")
