"""Small changes to finished networks: another first convolution, another stride, another classifier."""

from torch import nn


def replace_convolution(
    old: nn.Conv2d,
    in_channels: int,
    kernel: int | None = None,
    stride: int | None = None,
    padding: int | None = None,
) -> nn.Conv2d:
    """Return a convolution of the class of `old` with other input channels, and another geometry where given."""
    (height, width), strides, paddings = old.kernel_size, old.stride, old.padding
    return type(old)(
        in_channels,
        old.out_channels,
        kernel_size=(kernel, kernel) if kernel else (height, width),
        stride=(stride, stride) if stride else strides,  # type: ignore[arg-type]
        padding=paddings if padding is None else (padding, padding),  # type: ignore[arg-type]
        bias=old.bias is not None,
    )


def remove_stride(module: nn.Module) -> None:
    """Give the one convolution of a module that has a stride the stride 1.

    Raises:
        ValueError: If there is not exactly one.
    """
    strided = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    if len(strided) != 1:
        raise ValueError(f"expected one convolution with a stride, found {len(strided)}")
    strided[0].stride = (1, 1)
