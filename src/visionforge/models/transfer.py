"""Weight transfer as pure functions: pretrained kernels fitted to another size and another number of channels."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.errors import WeightsError

Fit = Callable[[Tensor, Tensor], Tensor]  # (pretrained, network's own) -> pretrained in the network's shape


def resample_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample convolution kernels (O, I, h, w) to (O, I, *size) by bicubic interpolation.

    The values are those of ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)``; a kernel that has
    the size already is returned as it is.
    """
    if tuple(weight.shape[-2:]) == size:
        return weight
    return F.interpolate(weight, size=size, mode="bicubic", align_corners=False)


def resample_patches(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample patch embeddings (O, I, h, w) to (O, I, *size), and keep the response to a uniform patch.

    A kernel with fewer pixels sums over fewer; where no normalisation follows, as in a vision transformer, it is scaled
    by the ratio of the areas so that its output keeps its size beside the position embeddings.
    """
    height, width = weight.shape[-2:]
    return resample_kernel(weight, size) * (height * width / (size[0] * size[1]))


def match_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Fit convolution kernels (O, I, h, w), or (O, I, d, h, w), to `in_channels` channels.

    RGB to grey sums the kernels over the channels, so that a grey image gives what its three-channel copy gave. Any
    other change spreads that sum evenly, which keeps the response to an image whose channels are equal.
    """
    if weight.shape[1] == in_channels:
        return weight
    others = (-1,) * (weight.ndim - 2)
    return weight.sum(dim=1, keepdim=True).expand(-1, in_channels, *others) / in_channels


def fit_convolution(weight: Tensor, own: Tensor) -> Tensor:
    """Fit a first convolution to the network's own in kernel size and channels.

    Raises:
        ValueError: If it is one of volumes whose kernel has another size.
    """
    if own.ndim == 5:
        if weight.shape[2:] != own.shape[2:]:
            sizes = ["×".join(map(str, given.shape[2:])) for given in (weight, own)]
            raise ValueError(f"its kernel of {sizes[0]} voxels cannot become one of {sizes[1]}")
        return match_channels(weight, own.shape[1])
    return match_channels(resample_kernel(weight, (own.shape[2], own.shape[3])), own.shape[1])


def fit_patches(weight: Tensor, own: Tensor) -> Tensor:
    """Fit a patch embedding to the network's own in patch size and channels."""
    return match_channels(resample_patches(weight, (own.shape[2], own.shape[3])), own.shape[1])


@dataclass
class TransferReport:
    """What became of each tensor.

    Attributes:
        source: Where the weights came from.
        sha256: SHA-256 of the file, if they came from one.
        revision: Version of the package, or commit of the repository, that they came from.
        mapping: How each tensor was found: by ``name``, or by ``order`` and shape.
        alike: By order, how many share their shape and kind with another, so that a swap would not show.
        mean: What they expect to be subtracted from red, green and blue, of values in [0, 1]; empty if that is unknown.
        std: What they expect them to be divided by.
        loaded: Taken over as they are.
        resampled: Fitted to another kernel size, number of channels or number of positions.
        new: In the network, but not in the weights: they keep their random values.
        unused: In the weights, but not in the network.
        inflated: Of those that were taken over, kernels that were then repeated over the depth of volumes.
    """

    source: str = ""
    sha256: str | None = None
    revision: str | None = None
    mapping: str = "name"
    alike: int = 0
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line for the log."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("resampled", "new", "unused", "inflated"):
            keys = getattr(self, name)
            if keys:
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:4])}{', …' if len(keys) > 4 else ''})")
        if self.mapping == "order":
            parts.append(
                f"found by order and shape, as no name is known; {self.alike} share theirs with another, of which a "
                "swap would not show"
            )
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and checkpoints."""
        return asdict(self)


def transfer_weights(
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    head: str | tuple[str, ...],
    fits: Mapping[str, Fit],
    computed: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor], TransferReport]:
    """Fit a pretrained state dict to a network's state dict.

    Args:
        source: Pretrained tensors by name.
        target: The network's tensors by name.
        head: Prefix of the classifier, or several; it is always new.
        fits: Name of a tensor that may change its shape → how it is fitted.
        computed: Last parts of the names of buffers that the network computes itself, and keeps.

    Returns:
        The network's complete state dict, and what became of each tensor.

    Raises:
        WeightsError: If another tensor has the wrong shape, one holds no numbers, or nothing fits.
    """
    state, report, problems = dict(target), TransferReport(), []
    for name, tensor in target.items():
        if name.rpartition(".")[2] in computed:
            continue
        if name.startswith(head) or name not in source:
            report.new.append(name)
            continue
        value = source[name]
        if problem := _value_problem(name, value):
            problems.append(problem)
        elif value.shape == tensor.shape:
            state[name] = value
            report.loaded.append(name)
        elif name in fits and value.ndim == tensor.ndim and value.shape[0] == tensor.shape[0]:
            try:
                state[name] = fits[name](value.to(tensor.dtype), tensor).clone()
                report.resampled.append(name)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        else:
            problems.append(f"{name} has shape {tuple(value.shape)}, the network has {tuple(tensor.shape)}")
    report.unused = [
        name
        for name in source
        if (name not in target or name.startswith(head)) and name.rpartition(".")[2] not in computed
    ]
    if not problems and not report.resampled and not any(name.endswith("weight") for name in report.loaded):
        problems.append("no tensor has a name that the network knows")
    if problems:
        raise WeightsError(problems)
    return state, report


def _value_problem(name: str, value: Tensor) -> str:
    """Return what is wrong with the values of a pretrained tensor, or nothing."""
    if value.is_floating_point() and not value.isfinite().all():
        return f"{name} has {int((~value.isfinite()).sum())} values that are NaN or infinite"
    if name.endswith("running_var") and (value < 0).any():
        return f"{name} has variances below 0"
    return ""
