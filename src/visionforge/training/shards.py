"""Tensors of which every process has some rows: torch's DTensor, which is imported only where there are any."""

from typing import Any

from torch import Tensor


def is_shard(value: Any) -> bool:
    """Return whether a value is a tensor that is divided among processes."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def whole(value: Any) -> Any:
    """Return a tensor with all its rows, for which all processes have to ask; anything else as it is."""
    return value.full_tensor() if is_shard(value) else value


def shard_like(value: Tensor, model: Any) -> Tensor:
    """Return this process's part of a whole tensor, which all processes have, divided as another of its shape is."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)
