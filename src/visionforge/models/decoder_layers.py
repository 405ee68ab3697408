"""What decoders are made of, for images (N, C, H, W) and volumes (N, C, D, H, W) alike."""

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_DROPOUT: dict[int, type[nn.Dropout2d] | type[nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}


def convolution(spatial_dims: int, inputs: int, outputs: int, kernel: int, bias: bool = True) -> nn.Module:
    """Return a convolution that keeps the sides, for 2 or 3 spatial dimensions; `kernel` is odd."""
    return _CONVOLUTION[spatial_dims](inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def batch_norm(spatial_dims: int, channels: int) -> nn.Module:
    """Return batch normalisation for 2 or 3 spatial dimensions."""
    return _BATCH_NORM[spatial_dims](channels)


def classifier(spatial_dims: int, inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return a 1×1 convolution to logits, and in front of it dropout of whole channels (Tompson et al., 2015)."""
    return nn.Sequential(_DROPOUT[spatial_dims](dropout), convolution(spatial_dims, inputs, outputs, kernel=1))


def he_normal(network: nn.Module) -> None:
    """Draw the weights of convolutions that a ReLU follows, those without a bias, as He et al. (2015) do."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resize(maps: Tensor, sides: Sequence[int]) -> Tensor:
    """Return maps at other sides, by bilinear or trilinear interpolation between the centres of pixels.

    Volumes are interpolated within the slices and then over the depth, which is the same: torch sums the gradient of
    its own trilinear interpolation in no fixed order on a GPU, that of the bilinear one it can sum in a fixed one.

    Args:
        maps: (N, C, H, W), or (N, C, D, H, W).
        sides: (H, W), or (D, H, W).
    """
    if tuple(maps.shape[2:]) == tuple(sides):
        return maps
    if maps.ndim == 4:
        return F.interpolate(maps, size=tuple(sides), mode="bilinear", align_corners=False)
    channels, depth = maps.shape[1:3]
    new_depth, height, width = sides
    within = F.interpolate(
        maps.transpose(1, 2).reshape(-1, channels, *maps.shape[3:]),
        size=(height, width),
        mode="bilinear",
        align_corners=False,
    )
    columns = within.reshape(-1, depth, channels, height * width).transpose(1, 2)
    over_depth = F.interpolate(columns, size=(new_depth, height * width), mode="bilinear", align_corners=False)
    return over_depth.reshape(-1, channels, new_depth, height, width)
