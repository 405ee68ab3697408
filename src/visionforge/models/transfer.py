"""Weight transfer as pure functions: pretrained kernels fitted to another size and another number of channels."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.errors import WeightsError


def resample_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample convolution kernels (O, I, h, w) to (O, I, *size) by bicubic interpolation.

    The values are those of ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)``; a kernel that has
    the size already is returned as it is.
    """
    if tuple(weight.shape[-2:]) == size:
        return weight
    return F.interpolate(weight, size=size, mode="bicubic", align_corners=False)


def match_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Fit convolution kernels (O, I, h, w) to (O, in_channels, h, w).

    RGB to grey sums the kernels over the channels, so that a grey image gives what its three-channel copy gave. Any
    other change spreads that sum evenly, which keeps the response to an image whose channels are equal.
    """
    if weight.shape[1] == in_channels:
        return weight
    return weight.sum(dim=1, keepdim=True).expand(-1, in_channels, -1, -1) / in_channels


@dataclass
class TransferReport:
    """What became of each tensor.

    Attributes:
        loaded: Taken over as they are.
        resampled: Fitted to another kernel size or number of channels.
        new: In the network, but not in the weights: they keep their random values.
        unused: In the weights, but not in the network.
    """

    loaded: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line for the log."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("resampled", "new", "unused"):
            keys = getattr(self, name)
            if keys:
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:4])}{', …' if len(keys) > 4 else ''})")
        return ", ".join(parts)


def transfer_weights(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], stem: str, head: str
) -> tuple[dict[str, Tensor], TransferReport]:
    """Fit a pretrained state dict to a network's state dict.

    Args:
        source: Pretrained tensors by name.
        target: The network's tensors by name.
        stem: Name of the first convolution's weight, the one tensor that may change its shape.
        head: Prefix of the classifier, which is always new.

    Returns:
        The network's complete state dict, and what became of each tensor.

    Raises:
        WeightsError: If another tensor has the wrong shape, or nothing fits.
    """
    state, report, problems = dict(target), TransferReport(), []
    for name, tensor in target.items():
        if name.startswith(head) or name not in source:
            report.new.append(name)
            continue
        value = source[name]
        if name == stem and value.shape != tensor.shape and value.ndim == 4 and value.shape[0] == tensor.shape[0]:
            kernel = resample_kernel(value.to(tensor.dtype), (tensor.shape[2], tensor.shape[3]))
            state[name] = match_channels(kernel, tensor.shape[1]).clone()
            report.resampled.append(name)
        elif value.shape == tensor.shape:
            state[name] = value
            report.loaded.append(name)
        else:
            problems.append(f"{name} has shape {tuple(value.shape)}, the network has {tuple(tensor.shape)}")
    report.unused = [name for name in source if name not in target or name.startswith(head)]
    if not problems and not report.resampled and not any(name.endswith("weight") for name in report.loaded):
        problems.append("no tensor has a name that the network knows")
    if problems:
        raise WeightsError(problems)
    return state, report
