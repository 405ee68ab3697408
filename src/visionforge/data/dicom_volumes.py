"""The frames of a DICOM file, or the files of a series, as a volume."""

from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from visionforge.data.dicom import NEEDS_PYDICOM, DicomFile, has_pydicom
from visionforge.data.dicom_header import read_header
from visionforge.data.dicom_series import series_of
from visionforge.data.intensity import Range
from visionforge.data.nifti import middle_cube, stretched
from visionforge.data.nifti_header import MAX_SLICE, MAX_VOXELS
from visionforge.data.pictures import MAX_FILE, PictureError, as_picture_errors, opened_file


def read_frames(
    source: Path | IO[bytes], resolution: int, intensity: Range | None = None, max_voxels: int = MAX_VOXELS
) -> npt.NDArray[np.uint8]:
    """Read the frames of a DICOM file, and cut and scale their middle cube for a network.

    They are the slices along the depth, in the order of the file, as far apart as its header says. A file with one
    frame stands for all files of its series in its folder, which lie along the depth as their positions say, or
    else their numbers. Otherwise as of `read_nifti`. Windows count for nothing here: values are those of the modality,
    of which percentiles of the cube become 0 and 255.

    Args:
        source: The file, or its content; it may come from strangers.
        resolution: Depth, height and width R of the result, in voxels.
        intensity: Values that become 0 and 255; None takes percentiles of each volume.
        max_voxels: The most that it may hold.

    Returns:
        (R, R, R), or (R, R, R, 3) of colours.

    Raises:
        PictureError: If it is no such file, is damaged or too large, is the only slice, holds NaN or infinity, the
            slices of its series cannot be brought into an order, or one side is far longer than another.
    """
    if not has_pydicom():
        raise PictureError(NEEDS_PYDICOM)
    with as_picture_errors(), opened_file(source, MAX_FILE) as file:
        found = DicomFile(read_header(file, MAX_SLICE), file)
        series = series_of(source) if found.header.frames == 1 and isinstance(source, Path) else None
        count = found.header.frames if series is None else len(series.paths)
        if count < 2:
            raise PictureError("has one frame; a volume has several, or several files of its series in the same folder")
        shape = found.header.width, found.header.height, count
        if prod(shape) > max_voxels:
            raise PictureError(f"has {'×'.join(map(str, shape))} voxels, more than {max_voxels:,}")
        across, down, apart = found.spacing()
        if series is not None and series.apart is not None:
            apart = series.apart
        slices = found.slices() if series is None else series.slices(found.header)
        cube = middle_cube(shape, np.array([across, down, apart]), slices, resolution)
        if found.is_grey:
            cube = stretched(cube, intensity)
            if found.inverted:
                cube = 255 - cube
        volume = np.rint(np.clip(cube, 0, 255)).astype(np.uint8)
        return volume[..., 0] if found.is_grey else volume
