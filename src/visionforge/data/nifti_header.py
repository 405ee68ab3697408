"""The header of a NIfTI file from strangers, checked before anything is done that its numbers ask for."""

from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.pictures import PictureError

MAX_SIDE = 4096  # voxels along an axis
MAX_SLICE = 1 << 22  # voxels of a slice, of which one for each reading thread is in memory: 2048 × 2048
MAX_VOXELS = 1 << 28  # of a file: 1024 × 512 × 512; of doubles, 2 GiB are unpacked, in some tens of seconds
MAX_OFFSET = 1 << 24  # bytes before the first voxel; what is there beside the header are extensions
# Bytes of a header → the place where it says that the voxels follow it, and how
_HEADERS = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}
_RGB = 128
_TYPES = {2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64", _RGB: "RGB"}
_TYPES |= {256: "int8", 512: "uint16", 768: "uint32", 1024: "int64", 1280: "uint64"}
_REFUSED = {1: "bits", 32: "complex64", 1536: "float128", 1792: "complex128", 2048: "complex256", 2304: "RGBA"}


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says, checked.

    Attributes:
        shape: Voxels along the three axes of the file; the first runs fastest.
        dtype: Of a voxel, or of a colour of it, in the file's byte order.
        colours: 3 of RGB, else 1.
        offset: Bytes from the header's end to the first voxel.
        scaling: Slope and intercept; None keeps the stored values.
        affine: (4, 4) from indices to millimetres right, forward and up; its columns' lengths are the voxels' sizes.
        oriented: Whether the file says what its axes are.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    colours: int
    offset: int
    scaling: tuple[float, float] | None
    affine: npt.NDArray[np.float64]
    oriented: bool

    @property
    def voxel_sizes(self) -> npt.NDArray[np.float64]:
        """Return (3,) the sides of a voxel along the file's axes, in millimetres."""
        return _lengths(self.affine)


def read_header(file: IO[bytes]) -> NiftiHeader:
    """Read and check a header, and leave the stream behind it.

    Raises:
        PictureError: If it is none, or describes no volume of numbers that may be read.
    """
    import nibabel

    block = file.read(min(_HEADERS))
    size = next((s for s in _HEADERS if s in (int.from_bytes(block[:4], order) for order in ("little", "big"))), None)
    if size is None:
        raise PictureError("does not begin as a NIfTI file does")
    block += file.read(size - len(block))
    if len(block) < size:
        raise PictureError("ends within its header")
    place, magic = _HEADERS[size]
    header: Any = (nibabel.Nifti1Header if size == min(_HEADERS) else nibabel.Nifti2Header)(block, check=False)
    if int(header["sizeof_hdr"]) != size or not block[place:].startswith(magic):
        raise PictureError("is no NIfTI file that holds its voxels (with a .hdr and an .img file, save it as one .nii)")
    code = int(header["datatype"])
    if code not in _TYPES:
        kind = _REFUSED.get(code, f"the unknown type {code}")
        raise PictureError(f"holds {kind}; voxels are {', '.join(_TYPES.values())}")
    shape = _shape([int(side) for side in header["dim"]])
    scaling = None if code == _RGB else _scaling(float(header["scl_slope"]), float(header["scl_inter"]))
    offset = float(header["vox_offset"]) or float(size + 4)  # 0 means where they can begin first
    if not size + 4 <= offset <= MAX_OFFSET:
        raise PictureError(f"says that its voxels begin at byte {offset:g}; allowed: {size + 4} to {MAX_OFFSET:,}")
    dtype = np.dtype(np.uint8) if code == _RGB else header.get_data_dtype()
    oriented = bool(int(header["sform_code"]) or int(header["qform_code"]))
    colours = 3 if code == _RGB else 1
    return NiftiHeader(shape, dtype, colours, int(offset) - size, scaling, _affine(header), oriented)


def _shape(dim: list[int]) -> tuple[int, int, int]:
    """Return the sides of one volume, whose further axes have one place each."""
    sides = dim[1 : dim[0] + 1] if 0 < dim[0] < len(dim) else []
    if len(sides) < 3 or min(sides) < 1 or 1 in sides[:3] or any(side > 1 for side in sides[3:]):
        raise PictureError(
            f"has the shape {tuple(sides)}; one volume has three sides of at least 2 voxels; save each of several "
            "in a file of its own"
        )
    voxels = prod(sides)
    if max(sides) > MAX_SIDE or sides[0] * sides[1] > MAX_SLICE or voxels > MAX_VOXELS:
        raise PictureError(
            f"has {'×'.join(map(str, sides[:3]))} voxels; allowed: {MAX_SIDE:,} along an axis, {MAX_SLICE:,} in a "
            f"slice, {MAX_VOXELS:,} in all"
        )
    return sides[0], sides[1], sides[2]


def _scaling(slope: float, intercept: float) -> tuple[float, float] | None:
    """Return slope and intercept if they change anything; a slope of 0 or no number means that there is none."""
    if slope == 0 or not np.isfinite(slope) or (slope, intercept) == (1, 0):
        return None
    if not np.isfinite(intercept):
        raise PictureError(f"has {intercept} as intercept of its values")
    return slope, intercept


def _affine(header: Any) -> npt.NDArray[np.float64]:
    from nibabel.spatialimages import HeaderDataError

    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:  # quaternions that are no rotation
        raise PictureError(f"has an orientation that cannot be read ({error})") from error
    with np.errstate(all="ignore"):
        sizes = _lengths(affine)
        sound = np.isfinite(sizes).all() and sizes.min() > 0 and np.linalg.matrix_rank(affine[:3, :3] / sizes) == 3
    if not sound:
        raise PictureError("has voxels without a size, or axes of one direction, in its header")
    return affine


def _lengths(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sqrt(np.sum(affine[:3, :3] ** 2, axis=0)))
