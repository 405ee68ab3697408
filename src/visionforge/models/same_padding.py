"""Convolutions that pad as TensorFlow does."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def same_padding(side: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return how many pixels are added before and after a side, so that the output has ⌈side / stride⌉ of them.

    It is TensorFlow's rule ``SAME``: an odd number has its larger half behind. A kernel of 3 with stride 2 adds nothing
    before and one pixel behind an even side, and one on both ends of an odd one, where PyTorch's ``padding=1`` always
    adds one on both.
    """
    outputs = -(-side // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    return total // 2, total - total // 2


class SamePaddingConv2d(nn.Conv2d):
    """A convolution with the padding of `same_padding` where it has a stride, and its own where it has none.

    At stride 1 both are the same, for a `padding` of half an odd kernel: it may lose its stride.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, ⌈H / stride⌉, ⌈W / stride⌉)."""
        if self.stride == (1, 1):
            return super().forward(input)
        sides = [
            same_padding(side, *geometry)
            for side, *geometry in zip(input.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        ]
        padded = F.pad(input, (*sides[1], *sides[0]))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_as_tensorflow(network: nn.Module) -> None:
    """Let all convolutions of a network that have a stride pad as TensorFlow does, in place."""
    for name, old in list(network.named_modules()):
        if isinstance(old, nn.Conv2d) and old.stride != (1, 1):
            new = SamePaddingConv2d(
                old.in_channels,
                old.out_channels,
                kernel_size=old.kernel_size,  # type: ignore[arg-type]
                stride=old.stride,  # type: ignore[arg-type]
                padding=old.padding,  # type: ignore[arg-type]
                dilation=old.dilation,  # type: ignore[arg-type]
                groups=old.groups,
                bias=old.bias is not None,
            )
            new.weight, new.bias = old.weight, old.bias
            network.set_submodule(name, new)
