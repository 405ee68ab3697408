"""A network whose passes are replayed as CUDA graphs while it is trained, and which is itself again afterwards.

A small network's step is hundreds of kernels that take a GPU a few microseconds each, and the processor longer to
start. A graph starts all of a pass at once; the numbers are those of the same kernels.
"""

import logging
from collections.abc import Callable, Hashable

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from visionforge.config.rules import graph_problems
from visionforge.errors import SettingsError

log = logging.getLogger(__name__)

MOST_FORMS = 4  # of batches that are captured, each of which holds the memory of its step; others run as they are
WARM_UP = 3  # passes before a capture, in which libraries choose their kernels; torch's own number

Forward = Callable[[Tensor], Tensor]
Capture = Callable[[nn.Module, Tensor], Forward]


def capture(network: nn.Module, sample: Tensor) -> Forward:
    """Return the network's training pass, forward and backward, as CUDA graphs.

    Args:
        network: In training mode, without hooks.
        sample: A batch (N, C, H, W) of the form that all have; the graphs keep it.
    """
    torch.cuda.make_graphed_callables(network, (sample,), num_warmup_iters=WARM_UP, allow_unused_input=True)
    return network.forward  # which that function has replaced


def require_graphs(trainer: pl.Trainer, detects: bool) -> None:
    """Refuse a training that cannot be replayed.

    Args:
        trainer: Has the module attached.
        detects: Whether the network is a detector.

    Raises:
        SettingsError: With a line for each reason.
    """
    device = trainer.strategy.root_device
    name = None if device.type == "cuda" else "the CPU" if device.type == "cpu" else device.type
    if problems := list(graph_problems(name, trainer.accumulate_grad_batches, trainer.world_size, detects)):
        raise SettingsError(problems)


class _Passes(nn.Module):
    """A network by another function of its pass, so that what is captured is not what calls it."""

    def __init__(self, network: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.network = network
        self.passes = forward

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs of the network."""
        return self.passes(images)


class ReplayedForward:
    """The forward pass of a network, which is captured where it comes in a form that it has not had yet.

    A form is the shape of a batch together with what else a graph cannot see: the layout in memory, the precision, and
    which weights are trained. Evaluation and passes without gradients are left as they are.

    Args:
        network: The network.
        capture: Makes graphs of it.
    """

    def __init__(self, network: nn.Module, capture: Capture = capture) -> None:
        self._network, self._eager, self._capture = network, network.forward, capture
        self._captured: dict[Hashable, Forward] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the outputs (N, K) of a batch (N, C, H, W)."""
        if not (self._network.training and torch.is_grad_enabled()):
            return self._eager(images)  # type: ignore[no-any-return]
        form = self._form(images)
        if form not in self._captured:
            if len(self._captured) == MOST_FORMS:
                return self._eager(images)  # type: ignore[no-any-return]
            self._captured[form] = self._capture_once(images)
        return self._captured[form](images)

    def _form(self, images: Tensor) -> Hashable:
        precision = torch.get_autocast_dtype(images.device.type) if torch.is_autocast_enabled(images.device.type) else 0
        trained = tuple(p.requires_grad for p in self._network.parameters())
        modes = tuple(module.training for module in self._network.modules())
        return images.shape, images.stride(), images.dtype, precision, trained, modes

    def _capture_once(self, images: Tensor) -> Forward:
        """Capture the pass, and leave running statistics and random numbers as they were before it."""
        buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        devices = [images.device] if images.device.type == "cuda" else []
        passes = _Passes(self._network, self._eager)
        passes.training = True  # of itself alone: layers of the network may be in another mode
        with torch.random.fork_rng(devices):
            captured = self._capture(passes, images.detach().clone(memory_format=torch.preserve_format))
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)  # in its place, which the graphs know
        return captured


class GraphedNetwork(pl.Callback):
    """Replays the passes of an `ImageClassifier`'s network as CUDA graphs, from the start to the end of a training.

    Args:
        capture: Makes the graphs.
    """

    def __init__(self, capture: Capture = capture) -> None:
        self._capture = capture

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replay from now on; what is captured is captured when the first batch comes."""
        network = pl_module.network
        assert isinstance(network, nn.Module), "it is built before a training starts"
        network.forward = ReplayedForward(network, self._capture)
        log.info("the network's training passes are replayed as CUDA graphs")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the network be as it was, and the memory of the graphs go."""
        if isinstance(network := pl_module.network, nn.Module) and isinstance(network.forward, ReplayedForward):
            del network.forward

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let the network be as it was, also after a training that was ended."""
        self.on_train_end(trainer, pl_module)
