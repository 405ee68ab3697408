"""How pictures are gathered, and what is refused before it is read."""

import math
from dataclasses import dataclass

from visionforge.data.pictures import MAX_PIXELS
from visionforge.errors import SettingsError

BATCH_SIZE, MAX_WAIT_MS, MAX_UPLOAD_MB, MAX_REQUEST_PIXELS, MAX_QUEUE = 32, 5.0, 32.0, 25_000_000, 256
MOST = 1_000_000
MOST_WAIT_MS = 60_000.0
MOST_UPLOAD_MB = 1024.0
HELD_BODIES = 8  # of the largest size; what is in memory of all requests together is no more


@dataclass(frozen=True)
class ServingSettings:
    """How pictures are gathered, and what is refused before it is read.

    Attributes:
        batch_size: Pictures of a pass at most.
        max_wait_ms: So long a batch waits for pictures that are on the way, from its first on, in milliseconds.
        max_upload_mb: Bytes of a request, in millions.
        max_pixels: Pixels of a picture, and voxels of a NIfTI file.
        max_queue: Pictures that may be in work or wait, of all requests together, and so of a single one, too.

    Raises:
        SettingsError: If one is out of its range.
    """

    batch_size: int = BATCH_SIZE
    max_wait_ms: float = MAX_WAIT_MS
    max_upload_mb: float = MAX_UPLOAD_MB
    max_pixels: int = MAX_REQUEST_PIXELS
    max_queue: int = MAX_QUEUE

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {getattr(self, name)} is not allowed; allowed: whole numbers from 1 to {most:,}"
            for name, most in (("batch_size", MOST), ("max_pixels", MAX_PIXELS), ("max_queue", MOST))
            if not 1 <= getattr(self, name) <= most
        ]
        if not 0 <= self.max_wait_ms <= MOST_WAIT_MS:  # NaN is neither
            problems.append(f"max_wait_ms: {self.max_wait_ms:g} is not allowed; allowed: 0 to {MOST_WAIT_MS:,.0f}")
        if not (0 < self.max_upload_mb <= MOST_UPLOAD_MB and math.isfinite(self.max_upload_mb)):
            problems.append(
                f"max_upload_mb: {self.max_upload_mb:g} is not allowed; allowed: above 0 to {MOST_UPLOAD_MB:,.0f}"
            )
        if problems:
            raise SettingsError(problems)

    @property
    def max_bytes(self) -> int:
        """Bytes of a request."""
        return round(self.max_upload_mb * 1e6)
