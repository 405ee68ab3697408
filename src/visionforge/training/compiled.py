"""A network that is compiled while it is trained, and is itself again afterwards."""

import logging

import lightning.pytorch as pl
from torch import nn

log = logging.getLogger(__name__)

BACKEND = "inductor"  # which keeps what it has compiled in a cache of the user's, for the processes that come later


class CompiledNetwork(pl.Callback):
    """Compiles the network of an `ImageClassifier` in its place, between the start and the end of a training.

    Names and values of its weights stay as they are, and so do checkpoints. What tests and predicts later is the
    network itself, which need not be compiled for a few batches.

    Args:
        graphs: Replay what is compiled as CUDA graphs.
    """

    def __init__(self, graphs: bool = False) -> None:
        self._mode = "reduce-overhead" if graphs else None  # torch's name of it

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compile; this is done when the first batch comes, once for training, and once for validation."""
        network = pl_module.network
        assert isinstance(network, nn.Module), "it is built before a training starts"
        network.compile(backend=BACKEND, mode=self._mode)
        log.info("the network is compiled; the first steps take longer")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the network be as it was."""
        if isinstance(network := pl_module.network, nn.Module):
            network._compiled_call_impl = None  # torch has no function that undoes it

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let the network be as it was, also after a training that was ended."""
        self.on_fit_end(trainer, pl_module)
