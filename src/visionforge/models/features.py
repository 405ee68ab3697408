"""Feature maps of a backbone: one for every stride, found by looking at what its modules give."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_POOLS_ALL = re.compile(r"(Adaptive\w*|Global\w*)Pool")  # names of classes that make one pixel of a map
_CHAINS = (nn.Sequential, nn.ModuleList)
_ONE_STEP = 2.5  # a module that divides the side by more than this is looked into; 7 → 3 is one step


@dataclass(frozen=True)
class _Output:
    """What one call of a module gave: `channels` is 0 if that is no map, `tokens` says whether it is a sequence."""

    module: str
    call: int
    sides: tuple[int, int]  # of what it was given and what it gave; 0 where that is no map
    channels: int
    channels_last: bool
    tokens: bool


@dataclass(frozen=True)
class Tap:
    """Where a feature map is taken: from which call of which module, and whether its channels come last."""

    module: str
    call: int
    channels_last: bool


class FeatureExtractor(nn.Module):
    """A backbone without its classifier, which returns its feature maps.

    The network runs as it is; hooks keep the last map of every stride, as the members of its sequences, or its other
    children, give them. Everything that no map depends on, the classifier above all, is taken out, so that every
    parameter gets a gradient; all others keep their names, under ``network.``.

    Args:
        network: From (N, C, H, W) float32 to logits, as `build_network` gives it; it is changed in place. Of volumes
            there is a depth D in front of H.
        head: Prefixes of the classifier's parameters.
        in_channels: Channels of the images.
        resolution: Height and width of the images in pixels, or the side of volumes in voxels.
        spatial_dims: 2 for images, 3 for volumes.

    Attributes:
        channels: Of each map, from the finest to the coarsest; empty where the network gives none, as a transformer.
        strides: Input pixels per pixel of each map, rounded to a power of two.
        taps: Where each map is taken.
    """

    def __init__(
        self,
        network: nn.Module,
        head: tuple[str, ...],
        in_channels: int,
        resolution: int,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.network = network
        example = next(network.parameters())
        images = torch.zeros(1, in_channels, *(resolution,) * spatial_dims, dtype=example.dtype, device=example.device)
        with _undisturbed(network):
            found = _taps(network, head, images)
            self.taps = tuple(tap for tap, _, _ in found)
            self.channels = tuple(channels for _, channels, _ in found)
            self.strides = tuple(stride for _, _, stride in found)
            if found:
                _take_out(network, _unused(network, self(images)), [tap.module for tap in self.taps])
                self(images)  # also without what was taken out

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (N, C, H, W) float32, or (N, C, D, H, W), to maps (N, C_i, H/s_i, W/s_i) from fine to coarse."""
        found: dict[tuple[str, int], Tensor] = {}
        calls: dict[str, int] = {}

        def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, -1) + 1
            found[name, calls[name]] = output

        with _hooked(self.network, dict.fromkeys(tap.module for tap in self.taps), keep):
            self.network(images)
        maps = [found[tap.module, tap.call] for tap in self.taps]
        return [
            given.movedim(-1, 1) if tap.channels_last else given for tap, given in zip(self.taps, maps, strict=True)
        ]


@contextmanager
def _hooked(
    network: nn.Module, names: dict[str, Any], keep: Callable[[str, nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Let `keep` see what modules give, for a while: a copy of the network has no hooks that belong to another."""
    handles = [network.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """Look at a network in evaluation mode, and leave modes and generators as they were."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.random.fork_rng(devices=()), torch.enable_grad():
            yield
    finally:
        for module in network.modules():
            module.training = modes.get(module, True)


# --- where maps are taken


def _taps(network: nn.Module, head: tuple[str, ...], images: Tensor) -> list[tuple[Tap, int, int]]:
    """Return where to take maps, from fine to coarse, and the channels and stride of each; nothing after tokens."""
    outputs = _outputs(network, images)
    trunk = set(_trunk(network, "", outputs))
    resolution = images.shape[-1]
    found: list[tuple[Tap, int, int]] = []
    for output in outputs:
        if output.module not in trunk:
            continue
        kind = type(network.get_submodule(output.module)).__name__
        if f"{output.module}.".startswith(head) or _POOLS_ALL.search(kind):
            break
        if output.tokens:  # a transformer, whose maps so far are those of its patches
            return []
        side = output.sides[1]
        if not 0 < side <= resolution:
            continue
        stride = 2 ** round(math.log2(resolution / side))
        if found and stride < found[-1][2]:
            continue
        if found and stride == found[-1][2]:
            found.pop()
        found.append((Tap(output.module, output.call, output.channels_last), output.channels, stride))
    return found


def _outputs(network: nn.Module, images: Tensor) -> list[_Output]:
    """Return what every call of a module gave, in the order in which they ended."""
    found: list[_Output] = []
    calls: dict[str, int] = {}
    dims = images.ndim

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        calls[name] = calls.get(name, -1) + 1
        given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        before, after = _side(given, dims), _side(output, dims)
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        last = after > 0 and _channels_last(shape)
        channels = 0 if not after else shape[-1] if last else shape[1]
        tokens = len(shape) == 3 and min(shape[1:]) > 1
        found.append(_Output(name, calls[name], (before, after), channels, last, tokens))

    names = dict.fromkeys(name for name, _ in network.named_modules(remove_duplicate=True) if name)
    with _hooked(network, names, keep), torch.no_grad():
        network(images)
    return found


def _side(output: Tensor | None, dims: int) -> int:
    """Return the side of a map; 0 if it is none."""
    if not isinstance(output, Tensor) or output.ndim != dims:
        return 0
    return int(output.shape[-2])


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Return whether a map of equal sides has its channels at the end, as Swin's."""
    return shape[1] == shape[-2] != shape[-1]


def _trunk(network: nn.Module, name: str, outputs: list[_Output]) -> Iterator[str]:
    """Yield the names of the modules that make up a network one after the other.

    A sequence is looked into, and so is what gives no map or divides the side by more than two; a block, whose inner
    maps are branches of it, is not.
    """
    of_module = {output.module: output.sides for output in reversed(outputs)}  # the first call of each
    for child, module in network.named_children():
        path = f"{name}.{child}" if name else child
        before, after = of_module.get(path, (0, 0))
        yield path
        if isinstance(module, _CHAINS) or not after or before / after > _ONE_STEP:
            yield from _trunk(module, path, outputs)


# --- what no map depends on


def _unused(network: nn.Module, maps: list[Tensor]) -> set[str]:
    """Return the names of the parameters that no map depends on."""
    named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad([each.sum() for each in maps], list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is None}


def _take_out(network: nn.Module, unused: set[str], tapped: list[str]) -> None:
    """Put the identity in the place of modules all of whose parameters are unused, and nothing in that of the others.

    The last layers of a network still run, on what they are given: they cost next to nothing.

    Args:
        network: The network, which is changed.
        unused: Names of the parameters.
        tapped: Names of the modules that give the maps; they stay.
    """
    for name, module in list(network.named_modules()):
        own = {f"{name}.{inner}" for inner, _ in module.named_parameters()}
        if name and own and own <= unused and not any(f"{tap}.".startswith(f"{name}.") for tap in tapped):
            network.set_submodule(name, nn.Identity())
            unused = unused - own
    for name in unused:
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, None)
