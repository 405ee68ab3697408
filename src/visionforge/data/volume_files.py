"""One volume of a file or an archive to the cube of voxels that a network takes."""

import io
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.dicom import has_dicom_name, is_dicom
from visionforge.data.dicom_volumes import read_frames
from visionforge.data.intensity import Range
from visionforge.data.nifti import SUFFIXES, is_nifti, read_nifti
from visionforge.data.nifti_header import MAX_VOXELS
from visionforge.data.npy import read_array, read_header
from visionforge.data.pictures import PictureError, opened_file

VOLUME_SUFFIXES = (".npy", *SUFFIXES)  # of names; that of a path would be .gz
COLOURS = 3


def is_volume(path: str | Path) -> bool:
    """Return whether a file's name ends as that of a volume."""
    return str(path).lower().endswith(VOLUME_SUFFIXES)


def named_by_content(name: str, content: bytes) -> Path:
    """Return a name by which `read_volume` knows what a file is that has come without one that says so.

    Args:
        name: The name.
        content: What is in it.
    """
    if is_volume(name):
        return Path(name)
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}  # of a NIfTI header, which begins so
    suffix = ".npy" if content[:6] == b"\x93NUMPY" else ".nii.gz" if content[:2] == b"\x1f\x8b" else ""
    return Path(f"{name}{suffix or ('.nii' if sizes & {348, 540} else '')}")


def read_volume(
    path: Path,
    resolution: int,
    intensity: Range | None = None,
    content: IO[bytes] | None = None,
    max_voxels: int = MAX_VOXELS,
) -> npt.NDArray[np.uint8]:
    """Read a volume from an ``.npy``, NIfTI or DICOM file, whose header is checked before memory is taken.

    An array has to have the network's size; a NIfTI file, and the frames of a DICOM file, are cut and scaled to it, see
    `read_nifti` and `read_frames`.

    Args:
        path: The file; it may come from strangers.
        resolution: Depth, height and width of the result, in voxels.
        intensity: Values that become 0 and 255; None is as `read_nifti` says. Of uint8 they stay.
        content: What is in it; None opens it.
        max_voxels: The most of a NIfTI or DICOM file.

    Returns:
        (R, R, R), or (R, R, R, 3) with colours.

    Raises:
        PictureError: If it is no such array of uint8, or no such file.
    """
    if is_dicom(path if content is None or has_dicom_name(path) else content):
        return read_frames(path if content is None else content, resolution, intensity, max_voxels)
    if not is_volume(path):
        raise PictureError(
            "is no volume; the network takes volumes: .npy files of uint8, NIfTI files (.nii, .nii.gz), DICOM files "
            "of several frames, or an .npz archive"
        )
    if is_nifti(path):
        return read_nifti(path, resolution, intensity, content, max_voxels)
    try:
        with opened_file(path if content is None else content) as file:
            shape, dtype = read_header(file)
            if dtype != np.uint8:
                kind = "Python objects, which are never loaded" if dtype.hasobject else str(dtype)
                raise PictureError(f"holds {kind}; voxels are uint8")
            require_cube(shape, resolution)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            volume = read_array(file, size, resolution**3 * COLOURS)
            return volume[..., 0] if volume.shape[3:] == (1,) else volume
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be read as an array ({error})") from error


def require_cube(shape: tuple[int, ...], resolution: int) -> None:
    """Refuse what is no volume of the network's size.

    Raises:
        PictureError: If it is.
    """
    cube = (resolution,) * 3
    if shape not in (cube, (*cube, 1), (*cube, COLOURS)):
        size = "×".join(map(str, cube))
        raise PictureError(f"has the shape {shape}; volumes have to be of {size} voxels")


def volume_with_channels(volume: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    """Return a volume (R, R, R[, C]) as (channels, R, R, R); a grey one fills all of them.

    Raises:
        PictureError: If it has colours, and the network takes none.
    """
    planes = volume[None] if volume.ndim == 3 else np.moveaxis(volume, -1, 0)
    if len(planes) > channels:
        raise PictureError("has colours; the network takes grey volumes")
    return np.broadcast_to(planes, (channels, *planes.shape[1:]))
