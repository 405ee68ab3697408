"""Dropout and stochastic depth whose random numbers are a function of (seed, epoch, place of the image).

Torch's own draw a batch's numbers one after the other, so what an image loses depends on how the batch is divided among
processes, and on the device. Here each layer draws from a stretch of the image's own numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visionforge.data.draws import Draws, splitmix64, unit

STRETCH = 1 << 32  # numbers of an image that are each layer's


class _Step:
    """The random numbers of a batch, which all layers of a network read.

    Those of a batch of the same size are written into the same memory, where CUDA graphs look for them.

    Attributes:
        keys: (N,) int64 where the numbers of each image begin; None before the first batch.
        firsts: (N, layers) float32 from 0 to 1, the first number of each layer's stretch.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.firsts: Tensor | None = None
        self._held: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def take(self, keys: Tensor, layers: int) -> None:
        """Let so many layers draw from these keys, (N,) int64."""
        firsts = unit(splitmix64(keys, torch.arange(layers, device=keys.device) * STRETCH))
        self.keys, self.firsts = self._held.setdefault((len(keys), keys.device), (keys, firsts))
        if self.keys is not keys:
            self.keys.copy_(keys)
            self.firsts.copy_(firsts)


class _Drawn(nn.Module):
    """A layer that leaves parts of a batch out in training and makes up for it.

    Args:
        own: The layer that is replaced; it is given what are not rows of the step's images.
        probability: Of being left out.
        shape_of: From the shape of an image within the batch to that of what is kept or left out as one.
        number: Which layer of the network it is.
        step: The batch's numbers.
        rescaled: Whether what is kept is divided by the share that is kept.
    """

    def __init__(
        self,
        own: nn.Module,
        probability: float,
        shape_of: Callable[[torch.Size], tuple[int, ...]],
        number: int,
        step: _Step,
        rescaled: bool = True,
    ) -> None:
        super().__init__()
        self.own = own
        self.probability = probability
        self._number, self._shape_of, self._step, self._rescaled = number, shape_of, step, rescaled
        self.training = own.training

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape, (N, …), or (N·M, …) with M rows of each image."""
        keys, firsts = self._step.keys, self._step.firsts
        if not self.training or self.probability == 0 or keys is None or firsts is None or len(values) % len(keys):
            return self.own(values)  # type: ignore[no-any-return]
        rows, shape = len(values) // len(keys), self._shape_of(values.shape[1:])
        if shape.count(1) == len(shape) and rows == 1:
            drawn = firsts[:, self._number]
        else:
            draws = Draws(keys)
            draws.skip(self._number * STRETCH)
            drawn = draws.uniform(rows, *shape)
        kept = (drawn >= self.probability).view(len(values), *shape).to(values.dtype)
        share = 1 - self.probability
        return values * (kept / share if self._rescaled and share > 0 else kept)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.probability}"


def _values(shape: torch.Size) -> tuple[int, ...]:
    return tuple(shape)


def _channels(shape: torch.Size) -> tuple[int, ...]:
    return shape[0], *(1,) * (len(shape) - 1)


def _images(shape: torch.Size) -> tuple[int, ...]:
    return (1,) * len(shape)


def _drawn_as(layer: nn.Module) -> dict[str, Any] | None:
    """Return how a layer is drawn by image; None if it is none that could be."""
    kind = type(layer)
    if kind is nn.Dropout:
        return {"probability": layer.p, "shape_of": _values}
    if kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        return {"probability": layer.p, "shape_of": _channels}
    name, package = kind.__name__, kind.__module__.split(".")[0]  # neither is imported for the sake of its name
    if (package, name) == ("torchvision", "StochasticDepth") and layer.mode == "row":
        return {"probability": layer.p, "shape_of": _images}
    if (package, name) == ("timm", "DropPath"):
        return {"probability": layer.drop_prob or 0.0, "shape_of": _images, "rescaled": layer.scale_by_keep}
    return None


class DrawnDropout:
    """Dropout and stochastic depth of a network, by image.

    Replaced are `nn.Dropout`, `Dropout1d`, `Dropout2d`, `Dropout3d`, torchvision's `StochasticDepth` of rows and timm's
    `DropPath`. What a network drops by other means, such as `torch.nn.functional.dropout`, comes from torch's
    generators. A layer that is called more than once in a pass leaves out the same each time.

    Args:
        network: The network, whose layers are replaced, until `end`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network, self._step = network, _Step()
        self.end()  # also a training that was broken off
        made: dict[nn.Module, nn.Module] = {}
        for name, layer in list(network.named_modules(remove_duplicate=False)):
            if name and layer not in made and (how := _drawn_as(layer)) is not None:
                made[layer] = _Drawn(layer, number=len(made), step=self._step, **how)
            if layer in made:
                network.set_submodule(name, made[layer])
        self._layers = len(made)

    def begin_step(self, seed: int, places: Tensor) -> None:
        """Let the layers draw for a batch.

        Args:
            seed: A number below 2^63, of this epoch.
            places: (N,) int64, places of the images in the epoch, on their device.
        """
        if self._layers:
            self._step.take(Draws.at(seed, places).keys, self._layers)

    def end(self) -> None:
        """Let the network have its own layers again."""
        for name, layer in list(self._network.named_modules(remove_duplicate=False)):
            if isinstance(layer, _Drawn):
                self._network.set_submodule(name, layer.own.train(layer.training))
