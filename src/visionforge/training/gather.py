"""Bring what the ranks of a distributed run hold back into one order."""

import torch
from torch import Tensor


def place_in_group() -> tuple[int, int]:
    """Return the number of this process among those that train together, and how many they are."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def sum_over_group(value: Tensor) -> Tensor:
    """Return the sum of a value over the processes that train together, which all of them must ask for.

    Args:
        value: Of any shape, the same on all; not to be learnt through.
    """
    if place_in_group()[1] == 1:
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def gather_rows(values: Tensor, world_size: int) -> Tensor:
    """Return the rows of all ranks in the order of the split; every rank gets all of them.

    Rank r of W holds the rows r, r + W, and so on, as an `EpochSampler` hands them out; the ranks may hold different
    numbers of them, so no row is repeated or lost.

    Args:
        values: (N_r, ...) rows of this rank.
        world_size: Number of ranks W.
    """
    if world_size == 1:
        return values
    ranks: list[Tensor | None] = [None] * world_size
    torch.distributed.all_gather_object(ranks, values.cpu())
    return interleave([rows for rows in ranks if rows is not None]).to(values.device)


def interleave(ranks: list[Tensor]) -> Tensor:
    """Merge the rows of W ranks: row i of rank r becomes row i·W + r."""
    out = ranks[0].new_empty((sum(len(rows) for rows in ranks), *ranks[0].shape[1:]))
    for index, rows in enumerate(ranks):
        out[index :: len(ranks)] = rows
    return out
