"""What a file says of a classifier of features; nothing of it needs torch."""

from typing import Literal

from pydantic import Field

from visionforge.config.schema import Section

MOST_NEIGHBOURS, MOST_DEPTH = 10_000, 64


class StoredHead(Section):
    """What a checkpoint says of a classifier beside its buffers."""

    kind: Literal["knn", "gradient_boosting"]
    neighbours: int = Field(1, ge=1, le=MOST_NEIGHBOURS)
    depth: int = Field(0, ge=0, le=MOST_DEPTH)
