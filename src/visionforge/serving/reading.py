"""Pictures of requests on their way through a network that says something of each as a whole."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from visionforge.data.dicom import SUFFIXES as DICOM_SUFFIXES
from visionforge.data.dicom import has_pydicom
from visionforge.data.nifti import SUFFIXES as NIFTI_SUFFIXES
from visionforge.data.nifti import has_nibabel
from visionforge.data.pictures import SUFFIXES, read_picture
from visionforge.data.stream import with_channels
from visionforge.data.volume_files import named_by_content, read_volume, volume_with_channels
from visionforge.serving.answers import Answer, class_answers

if TYPE_CHECKING:
    from visionforge.inference.predictions import Predictor


@dataclass(frozen=True)
class Picture:
    """A picture that was read.

    Attributes:
        name: Of the file.
        pixels: What the network is shown of it; the array, or what the way to read it gives.
    """

    name: str
    pixels: Any


class Reader(Protocol):
    """How pictures are read and answered; answers are given by one thread, pictures read by several."""

    suffixes: tuple[str, ...]

    def read(self, name: str, content: bytes, max_pixels: int) -> Picture:
        """Read a picture.

        Raises:
            PictureError: If it is none.
        """

    def answers(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return what is said of pictures, in their order."""


class ClassReader:
    """Classes and labels of whole pictures, or of volumes, of which a batch is one pass.

    Args:
        predictor: Says something of images.
    """

    def __init__(self, predictor: "Predictor") -> None:
        self._predictor = predictor
        self._volumes = predictor.spec.spatial_dims == 3
        volumes = (".npy", *(NIFTI_SUFFIXES if has_nibabel() else ()), *(DICOM_SUFFIXES if has_pydicom() else ()))
        self.suffixes = volumes if self._volumes else tuple(sorted(SUFFIXES))

    def read(self, name: str, content: bytes, max_pixels: int) -> Picture:
        """Read a picture to (C, R, R) uint8, as `predict` does."""
        spec = self._predictor.spec
        if self._volumes:
            volume = read_volume(
                named_by_content(name, content), spec.resolution, spec.intensity, io.BytesIO(content), max_pixels
            )
            return Picture(name, volume_with_channels(volume, spec.channels))
        image = read_picture(io.BytesIO(content), spec.resolution, spec.fit, spec.intensity, max_pixels)
        return Picture(name, with_channels(image, spec.channels))

    def answers(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return what is said of pictures, in one pass."""
        pixels: npt.NDArray[np.uint8] = np.stack([picture.pixels for picture in pictures])
        return class_answers(self._predictor.spec, self._predictor(pixels), [picture.name for picture in pictures])
