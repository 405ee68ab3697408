"""NIfTI files from strangers to the cube of voxels that a network takes, a slice in memory at a time.

Only the header goes through nibabel. The voxels are read here, as many bytes as the header's shape asks for: what a
compressed file would unpack to beyond them is never unpacked, and a header's extensions are passed over unread.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from visionforge.data.intensity import Range
from visionforge.data.nifti_header import MAX_VOXELS, NiftiHeader, read_header
from visionforge.data.pictures import MAX_ASPECT, PictureError, opened_file
from visionforge.distribution import how_to_install

SUFFIXES = (".nii", ".nii.gz")
NEEDS_NIBABEL = f"needs the package nibabel: {how_to_install('nifti')}"
PERCENTILES = (0.5, 99.5)  # of the cube's values, which become 0 and 255
_CHUNK = 1 << 20  # bytes that are passed over at once


def is_nifti(path: str | Path) -> bool:
    """Return whether a file's name ends as that of a NIfTI file."""
    return str(path).lower().endswith(SUFFIXES)


def has_nibabel() -> bool:
    """Return whether the package that reads headers is installed."""
    return find_spec("nibabel") is not None


def nibabel_problem(paths: Iterable[str | Path]) -> str | None:
    """Return a line if a file needs the package that reads headers, and it is not installed."""
    first = None if has_nibabel() else next(filter(is_nifti, paths), None)
    return None if first is None else f"{first} {NEEDS_NIBABEL}"


def read_nifti(
    path: Path,
    resolution: int,
    intensity: Range | None = None,
    content: IO[bytes] | None = None,
    max_voxels: int = MAX_VOXELS,
) -> npt.NDArray[np.uint8]:
    """Read a volume from a ``.nii`` or ``.nii.gz`` file, and cut, scale and turn it for a network.

    As of pictures, the middle is kept: the largest cube, measured in millimetres by the header's voxel sizes, around
    the middle of the volume. It is resampled to R×R×R voxels by a triangle along each axis: trilinear interpolation
    where the file is coarser, and where it is finer the mean that Pillow's antialiased bilinear filter takes.

    The axes become those of a stack of slices as a viewer shows them, the closest to the file's: depth from the feet
    to the head, height from front to back, width from the patient's right to the left. DICOM has the same directions.
    Without an orientation (`sform_code` and `qform_code` are 0) the file's last axis is depth, its first is width.

    Values of uint8 without a slope, and RGB, stay as they are. Others become slope · value + intercept, of which
    those of `intensity` become 0 and 255. Without it,
    the 0.5th percentile of the cube becomes 0 and the 99.5th 255, what is beyond them, too: a few bright voxels
    of metal or noise would otherwise leave no contrast to the rest. Where both percentiles are the same, as in masks of
    small things, the smallest and the largest value take their place.

    Args:
        path: The file; it may come from strangers.
        resolution: Depth, height and width R of the result, in voxels.
        intensity: Values that become 0 and 255; None takes percentiles of each volume.
        content: What is in it; None opens it.
        max_voxels: The most that it may hold.

    Returns:
        (R, R, R), or (R, R, R, 3) of RGB.

    Raises:
        PictureError: If it is no such file, is damaged or too large, holds several volumes, NaN or infinity, or one
            side is far longer than another.
    """
    if not has_nibabel():
        raise PictureError(NEEDS_NIBABEL)
    try:
        with opened_file(path if content is None else content) as packed:
            file = cast(IO[bytes], gzip.GzipFile(fileobj=packed)) if path.suffix.lower() == ".gz" else packed
            header = read_header(file)
            if prod(header.shape) > max_voxels:
                raise PictureError(f"has {'×'.join(map(str, header.shape))} voxels, more than {max_voxels:,}")
            cube = middle_cube(header.shape, header.voxel_sizes, _slices(file, header), resolution)
    except (OSError, EOFError, zlib.error) as error:  # gzip's own are of these
        raise PictureError(f"cannot be read as NIfTI ({error})") from error
    plain = header.dtype == np.uint8 and header.scaling is None
    return _oriented(np.rint(np.clip(cube if plain else stretched(cube, intensity), 0, 255)).astype(np.uint8), header)


# --- the voxels


def _slices(file: IO[bytes], header: NiftiHeader) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the slices (Y, X, colours) across the file's last axis, scaled, in order."""
    left = header.offset
    while left > 0:
        skipped = len(file.read(min(left, _CHUNK)))
        if not skipped:
            raise PictureError("ends before its voxels")
        left -= skipped
    width, height, depth = header.shape
    wanted = width * height * header.colours * header.dtype.itemsize
    for index in range(depth):
        data = file.read(wanted)
        if len(data) < wanted:
            raise PictureError(f"ends within slice {index + 1} of {depth}")
        with np.errstate(all="ignore"):
            part = np.frombuffer(data, header.dtype).reshape(height, width, header.colours).astype(np.float64)
            if header.scaling is not None:
                part = part * header.scaling[0] + header.scaling[1]
        if not np.isfinite(part).all():
            raise PictureError("holds NaN or infinity; replace them, or save the volume as uint8")
        yield part
    file.read(1)  # at its end, gzip compares the checksum


def middle_cube(
    shape: tuple[int, int, int],
    voxel_sizes: npt.NDArray[np.float64],
    slices: Iterable[npt.NDArray[np.float64]],
    resolution: int,
) -> npt.NDArray[np.float64]:
    """Return the middle cube (R, R, R, colours) of slices, which come one by one; see `read_nifti`.

    Args:
        shape: Width, height and number of the slices.
        voxel_sizes: (3,) distances along these axes, in millimetres.
        slices: (height, width, colours) each.
        resolution: R.

    Raises:
        PictureError: If one side is far longer than another.
    """
    sizes = np.asarray(shape) * voxel_sizes
    if sizes.max() > MAX_ASPECT * sizes.min():
        raise PictureError(f"is longer along one axis than {MAX_ASPECT} times along another")
    kept = [float(side * sizes.min() / size) for side, size in zip(shape, sizes, strict=True)]
    across, down, through = map(triangle_weights, shape, kept, (resolution,) * 3)
    cube: npt.NDArray[np.float64] | None = None
    for index, part in enumerate(slices):
        rows = np.flatnonzero(through[:, index])
        if len(rows):
            small = np.stack([down @ part[..., colour] @ across.T for colour in range(part.shape[2])], axis=-1)
            cube = np.zeros((*(resolution,) * 3, part.shape[2])) if cube is None else cube
            cube[rows] += through[rows, index, None, None, None] * small
    assert cube is not None
    return cube


def triangle_weights(side: int, kept: float, resolution: int) -> npt.NDArray[np.float64]:
    """Return the weights (resolution, side) with which the voxels along an axis make those of the middle part.

    Args:
        side: Voxels along the axis.
        kept: How many of them, around the middle, the result spans; need not be whole.
        resolution: Voxels that they become.
    """
    step = kept / resolution
    centres = (side - kept) / 2 + (np.arange(resolution) + 0.5) * step
    distance = np.abs(np.arange(side) + 0.5 - centres[:, None])
    weights = np.maximum(0.0, 1 - distance / max(1.0, step))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def stretched(cube: npt.NDArray[np.float64], intensity: Range | None) -> npt.NDArray[np.float64]:
    """Return values whose `PERCENTILES`, or those of `intensity`, are 0 and 255.

    Raises:
        PictureError: If they are too large to be scaled.
    """
    low, high = np.percentile(cube, PERCENTILES) if intensity is None else np.asarray(intensity)
    if high <= low:
        low, high = cube.min(), cube.max()
    with np.errstate(over="ignore"):
        span = high - low
    if not np.isfinite(span):
        raise PictureError("holds values that are too large")
    return (cube - low) * (255 / span) if span > 0 else np.zeros_like(cube)


def _oriented(cube: npt.NDArray[np.uint8], header: NiftiHeader) -> npt.NDArray[np.uint8]:
    """Return a cube with the file's axes in reverse as (depth, height, width), without an axis of one colour."""
    if header.oriented:
        from nibabel.orientations import apply_orientation, io_orientation

        right_front_up = apply_orientation(cube.swapaxes(0, 2), io_orientation(header.affine))
        cube = right_front_up[::-1, ::-1].swapaxes(0, 2)
    return np.ascontiguousarray(cube if header.colours == 3 else cube[..., 0])
