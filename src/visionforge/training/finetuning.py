"""Staged unfreezing, from the classifier to the backbone's first stage; and batch-norm statistics that stay."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BaseFinetuning
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.optimizer import Optimizer

from visionforge.config.schema import Finetuning


def stage_of_parameters(network: nn.Module, head: tuple[str, ...], stages: tuple[str, ...]) -> dict[str, int | None]:
    """Return the stage of every parameter, counted from the input; None for the classifier's.

    What lies in front of the first stage belongs to it, and what lies between two stages or behind the last one belongs
    to the stage before.

    Args:
        network: The network.
        head: Prefixes of the classifier's parameters.
        stages: Names of the stages' modules in order.
    """
    found: dict[str, int | None] = {}
    current = 0
    for name, _ in network.named_parameters():
        if name.startswith(head):
            found[name] = None
            continue
        current = next((i for i, stage in enumerate(stages) if name.startswith(f"{stage}.")), current)
        found[name] = current
    return found


def frozen_stages(settings: Finetuning, epoch: int, count: int) -> int:
    """Return how many of `count` stages, from the input on, are frozen in an epoch (from 0)."""
    if epoch < settings.freeze_epochs:
        return count
    if settings.stage_epochs == 0:
        return 0
    return max(0, count - 1 - (epoch - settings.freeze_epochs) // settings.stage_epochs)


class StagedUnfreezing(BaseFinetuning):
    """Freezes the backbone and unfreezes it stage by stage; a function of the epoch, so that a resumed run continues.

    Frozen stages run in evaluation mode: their batch-norm statistics stay, and they drop nothing. The optimiser knows
    all parameters from the start and passes over those without a gradient, so its schedule needs no change.

    Args:
        settings: When what is unfrozen.
        head: Prefixes of the classifier's parameters in the network.
        stages: Names of the stages' modules in order.
    """

    def __init__(self, settings: Finetuning, head: tuple[str, ...], stages: tuple[str, ...]) -> None:
        super().__init__()
        self._settings = settings
        self._head = head
        self._stages = stages

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        """Do nothing: the network is built later, and `on_train_start` freezes it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze what is frozen in the epoch that the training starts or resumes in."""
        self._apply(pl_module, trainer.current_epoch)

    def finetune_function(self, pl_module: pl.LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Freeze what is frozen in this epoch, and nothing else."""
        self._apply(pl_module, epoch)

    def _apply(self, pl_module: pl.LightningModule, epoch: int) -> None:
        network = pl_module.network
        assert isinstance(network, nn.Module)
        frozen = frozen_stages(self._settings, epoch, len(self._stages))
        stage_of = stage_of_parameters(network, self._head, self._stages)
        for name, parameter in network.named_parameters():
            stage = stage_of[name]
            parameter.requires_grad = stage is None or stage >= frozen
        network.train()  # what has no parameters, dropout and stochastic depth, wakes with its stage
        for module in network.modules():
            own = list(module.parameters(recurse=False))
            if own:
                module.training = any(p.requires_grad for p in own)
        for index, name in enumerate(self._stages):
            if index < frozen:
                network.get_submodule(name).eval()


class KeptStatistics(pl.Callback):
    """Lets batch normalisation use the statistics that it has, in the training, too; its weights learn as others do.

    A small batch of other images than those of the pretraining has other statistics: with them the features of the
    first step are not those that a linear probe has been fitted to.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do so in the epoch that the training starts or resumes in."""
        self._apply(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do so in every epoch, after stages that were frozen have woken."""
        self._apply(pl_module)

    def _apply(self, pl_module: pl.LightningModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
