"""What storing images costs: JPEG compression, and fewer pixels than the network takes."""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.data.corruption import Corruption

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws

_BEST_QUALITY = 95  # what JPEG files have at most; beyond, they only grow


class _Digital(Corruption):
    group: ClassVar[str] = "digital"


@register
class JpegCompression(_Digital):
    """Compression as JPEG, colours at half the resolution.

    Its blocks are of 8×8 pixels whatever the size of the image, so the qualities of a small image are higher; those at
    224 pixels are those of ImageNet-C.
    """

    position: ClassVar[int] = 20
    grows: ClassVar[float] = -0.5
    unit: ClassVar[str] = "quality, 1 to 95"

    name: Literal["jpeg_compression"] = "jpeg_compression"
    severities: tuple[float, ...] = (70.0, 50.0, 40.0, 28.0, 20.0)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Write and read each image, on the CPU; nothing is drawn."""
        import io

        import numpy as np
        import torch
        from PIL import Image

        quality = min(max(round(strength), 1), _BEST_QUALITY)
        pixels = (images * 255).round().byte().cpu().permute(0, 2, 3, 1).numpy()
        made = np.empty_like(pixels)
        for place, image in enumerate(pixels):
            buffer = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "JPEG", quality=quality)
            with Image.open(buffer) as read:
                made[place] = np.asarray(read).reshape(image.shape)
        return torch.from_numpy(made).permute(0, 3, 1, 2).to(images.device).float() / 255


@register
class Pixelation(_Digital):
    """Fewer pixels, each the mean of its area, enlarged again by area."""

    position: ClassVar[int] = 21
    grows: ClassVar[float] = -0.1
    unit: ClassVar[str] = "share of the pixels along each side that is left"

    name: Literal["pixelation"] = "pixelation"
    severities: tuple[float, ...] = (0.8, 0.6, 0.45, 0.33, 0.25)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Reduce and enlarge; nothing is drawn."""
        from visionforge.data.filters import area_weights

        side = images.shape[-1]
        left = max(1, round(side * min(strength, 1.0)))
        both = area_weights(side, left, images.device) @ area_weights(left, side, images.device)
        return both @ images @ both.T
