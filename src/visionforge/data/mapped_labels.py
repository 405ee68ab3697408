"""Labels as large as images, checked and made smaller where they lie in a file: memory never holds all of them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import sides_of
from visionforge.data.info import DatasetInfo
from visionforge.errors import DataError

Array = npt.NDArray[Any]
_CHUNK_BYTES = 1 << 22  # of labels that are converted together


def check_mapped(labels: Array, info: DatasetInfo, where: str, resolution: int) -> None:
    """Check the values of labels.

    Args:
        labels: A map of them, of the shape and type that the catalog entry says.
        info: The catalog entry.
        where: What they are called in messages.
        resolution: Height and width of the images, and depth of volumes.

    Raises:
        DataError: If there are none, or one is outside the classes.
    """
    task = task_named(info.task)
    if problem := task.label_problem(labels, len(labels), len(info.classes), sides_of(info, resolution)):
        raise DataError(f"{where}: {problem}")


def write_as_bytes(labels: Array, info: DatasetInfo, target: Path) -> int | None:
    """Write labels of a larger type as the bytes by which their task keeps them, so that these can be mapped.

    Args:
        labels: A map of them, whose values were checked.
        info: The catalog entry.
        target: The `.npy` file.

    Returns:
        Bytes before the first label of the file; None if nothing was written, because they are bytes already, or
        their task keeps another type.
    """
    task = task_named(info.task)
    if labels.dtype == np.uint8 or task.stored(labels[:1], 1).dtype != np.uint8:
        return None
    step = max(1, _CHUNK_BYTES // max(1, labels[:1].nbytes))
    with target.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": labels.shape})
        offset = file.tell()
        for start in range(0, len(labels), step):
            part = labels[start : start + step]
            file.write(np.ascontiguousarray(task.stored(part, len(part))).data)
        file.flush()
        os.fsync(file.fileno())
    return offset
