"""Where the masks of pictures go, and how large pictures are divided; nothing of it needs torch."""

from dataclasses import dataclass
from pathlib import Path

from visionforge.evaluation.table_writers import Column

OVERLAP, MOST_OVERLAP = 0.25, 0.75  # of a tile, with the next one
ERROR_COLUMNS = (Column("path"), Column("reason"))


@dataclass(frozen=True)
class Tiles:
    """How pictures become tiles of the size that a network takes.

    Attributes:
        scaled: Scale a picture as training pictures were; otherwise it keeps its size.
        overlap: Smallest share of a tile that is also in the next one.
    """

    scaled: bool
    overlap: float


def mask_folder(out: Path) -> Path:
    """Return the folder of the masks that belong to a table."""
    return out.with_name(f"{out.stem}_masks")
