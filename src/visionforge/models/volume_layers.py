"""Layers of networks for volumes (N, C, D, H, W) that torch does not have in the form that is needed."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class SliceRepeatingConv3d(nn.Conv3d):
    """A convolution that pads the depth with the outermost slices, and height and width with zeros.

    The slices are put in front and behind by concatenation: the gradient of `torch.nn.functional.pad` in the mode
    ``replicate`` is summed in no fixed order on a GPU. On a CPU, that costs a training step of mini_cnn a quarter more
    time than zeros would, and one of ResNet-18 nothing that could be measured.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, O, D', H', W'), the sizes of a convolution with `padding` on all sides."""
        depth, height, width = (int(side) for side in self.padding)
        if depth:
            first = input[:, :, :1].expand(-1, -1, depth, -1, -1)
            last = input[:, :, -1:].expand(-1, -1, depth, -1, -1)
            input = torch.cat([first, input, last], dim=2)
        padding = (0, height, width)
        return F.conv3d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ACSConv3d(nn.Conv2d):
    """A convolution of volumes by two-dimensional kernels in three directions (Yang et al., 2021, arXiv:1911.10477).

    The output channels are divided in three parts whose sizes differ by one at most, the larger ones first. Kernels of
    the first part look at height and width (1×k×k), those of the second at depth and width (k×1×k), those of the third
    at depth and height (k×k×1). Weights have the names and shapes of a `torch.nn.Conv2d`; kernel, stride, padding and
    dilation are the same in all directions, and the padding is half the kernel.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, O, D', H', W')."""
        stride = self.stride[0]
        if self.kernel_size == (1, 1):  # the same in every direction
            return F.conv3d(input, self.weight[..., None], self.bias, stride, groups=self.groups)
        biases = (None,) * 3 if self.bias is None else self.bias.tensor_split(3)
        inputs = (input,) * 3 if self.groups == 1 else input.tensor_split(3, dim=1)
        outputs = []
        for axis, (part, weight, bias) in enumerate(zip(inputs, self.weight.tensor_split(3), biases, strict=True)):
            if not len(weight):  # of fewer than three output channels
                continue
            padding, dilation = [int(self.padding[0])] * 3, [self.dilation[0]] * 3
            padding[axis], dilation[axis] = 0, 1
            groups = 1 if self.groups == 1 else len(weight)
            outputs.append(F.conv3d(part, weight.unsqueeze(2 + axis), bias, stride, padding, dilation, groups))
        return torch.cat(outputs, dim=1)


class MaxPool3d(nn.Module):
    """Max-pooling of volumes, first within the slices and then over the depth; the same as over all three at once.

    torch sums the gradient of its pooling over three dimensions in no fixed order on a GPU, that over two it does not.

    Args:
        kernel_size: Side of the window in voxels, in all directions; likewise the others.
        stride: Step.
        padding: Voxels that are added on both sides, which are never the largest.
        dilation: Distance of the voxels of a window.
        ceil_mode: Whether a window that begins within the volume may end beyond it.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, C, D', H', W')."""
        count, channels, depth = input.shape[:3]
        within = input.transpose(1, 2).flatten(0, 1)  # channels last in, channels last out: nothing is copied
        within = F.max_pool2d(
            within, self.kernel_size, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode
        )
        height, width = within.shape[2:]
        columns = within.permute(0, 2, 3, 1).reshape(count, 1, depth, height * width * channels)
        over_depth = F.max_pool2d(
            columns,
            (self.kernel_size, 1),
            (self.stride, 1),
            (self.padding, 0),
            (self.dilation, 1),
            ceil_mode=self.ceil_mode,
        )
        return over_depth.view(count, -1, height, width, channels).permute(0, 4, 1, 2, 3)
