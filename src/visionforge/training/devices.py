"""The accelerators that this machine has."""

from typing import Any

import torch


def accelerators() -> list[dict[str, Any]]:
    """Return the name of every accelerator, and the memory of those that have their own."""
    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append({"name": properties.name, "memory_gb": round(total / 1e9, 1), "free_gb": round(free / 1e9, 1)})
    if torch.backends.mps.is_available():
        found.append({"name": "Apple GPU (mps)"})
    return found
