"""Where the images of a split are kept: in memory, on the training device, or on disk behind a memory map."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

CacheMode = Literal["auto", "ram", "mmap", "device"]
CacheKind = Literal["ram", "mmap", "device"]

SMALL_IMAGES = 50_000  # fewer than this are always read into memory, if they fit
LARGE_IMAGES = 100_000  # more than this are always read in slices of the map
SHARE = 0.5  # of the free memory that one split may take
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


@dataclass(frozen=True)
class CacheChoice:
    """Where a split is kept, and why.

    Attributes:
        kind: In memory, behind a memory map, or on the device.
        reason: Half a sentence for the log.
    """

    kind: CacheKind
    reason: str


def free_memory() -> int:
    """Return the bytes that this process may still take: the machine's, or its container's if that has less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (path.read_text().strip() for path in _CGROUP)
        if limit != "max":
            free = min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        pass  # no control group, or another version of it
    return free


def choose_cache(
    mode: CacheMode, images: int, split_bytes: int, total_bytes: int, free: int, device_free: int | None
) -> CacheChoice:
    """Decide where a split is kept.

    Args:
        mode: The setting; anything but `auto` decides by itself.
        images: Number of images of the split.
        split_bytes: Size of the split.
        total_bytes: Size of all splits that the stage needs.
        free: Free memory in bytes.
        device_free: Free memory of the training device in bytes; None if it is the CPU.
    """
    if mode != "auto":
        return CacheChoice(mode, "as set")
    if device_free is not None and total_bytes <= SHARE * device_free:
        return CacheChoice(
            "device", f"everything ({_size(total_bytes)}) fits on the device ({_size(device_free)} free)"
        )
    if split_bytes > SHARE * free:
        return CacheChoice("mmap", f"{_size(split_bytes)} would take over half of the free memory ({_size(free)})")
    if images > LARGE_IMAGES:
        return CacheChoice("mmap", f"{images:,} images are more than {LARGE_IMAGES:,}")
    size = f"fewer than {SMALL_IMAGES:,} images" if images < SMALL_IMAGES else f"{images:,} images that fit easily"
    return CacheChoice("ram", f"{size}, {_size(split_bytes)}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
