"""A device for one run at a time, among the runs of one user that ask for it."""

import socket

import torch

from visionforge.runs.locks import Lock
from visionforge.runs.paths import cache_folder
from visionforge.training.determinism import device_name


def hold_device(device: torch.device, rank: int, wait_s: float) -> Lock | None:
    """Wait for a device that no other run may use at the same time; the processes of one run share the CPU.

    Raises:
        LockedError: If it is not free in time.
    """
    if device.type == "cpu" and rank != 0:
        return None
    folder = cache_folder() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    name = device_name(device)
    lock = Lock(folder / f"{socket.gethostname()}-{name}.lock", f"exclusive_device: {name}")
    lock.acquire(wait_s)
    return lock
